"""The weights of a tower as a hash: the same in memory and in a file, on every device, with torch and without."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_FLOATS = ("F64", "F32", "F16", "BF16")
_KEPT_IN = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "auto": "F16"}
"""How what stays float is kept, by the fallback precision. "auto" is fp32 or fp16 as the device has it: hashed is what
both have in common, the fp16 numbers."""
_EXACT = ("weight_scale", "weight_zero_point", "weight_codebook", "input_scale", "input_zero_point")
"""How the names of tensors end that quantization added; nothing casts them."""
_OUTSIDE = ("logit_scale", "logit_bias")
_IMAGE, _TEXT = ("vision_model", "visual_projection"), ("text_model", "text_projection")


@dataclass(frozen=True)
class RawTensor:
    """A tensor under its name on disk; `read` gives its bytes, uint8 [n]; `dtype` as safetensors calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def digest(tensors: Iterable[RawTensor], fallback: str) -> str:
    """sha256 (hex) of names, dtypes, shapes and bytes; floats as the fallback precision keeps them."""
    found = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda one: one.name):
        dtype = _kept_as(tensor, fallback)
        found.update(f"{tensor.name}|{dtype}|{list(tensor.shape)}|".encode())
        found.update(_cast(tensor.read(), tensor.dtype, dtype).data)
    return found.hexdigest()


def of_tower(tensors: Iterable[RawTensor], host: str, towers: Sequence[str], tower: str) -> list[RawTensor]:
    """The tensors that belong to `tower`, under names that a model of this one tower has as well."""
    own = [one for one in tensors if tower_of(host, one.name, towers) == tower]
    if host != "transformers":
        return own
    return [RawTensor(alone(one.name), one.dtype, one.shape, one.read) for one in own]


def alone(name: str) -> str:
    """transformers' classes of one tower have its tensors with or without the tower's name in front."""
    return name.removeprefix("vision_model.").removeprefix("text_model.")


def _kept_as(tensor: RawTensor, fallback: str) -> str:
    is_float = tensor.dtype in _FLOATS and not tensor.name.endswith(_EXACT)
    return _KEPT_IN[fallback] if is_float else tensor.dtype


def _cast(raw: np.ndarray, dtype: str, to: str) -> np.ndarray:
    """Bytes of floats of one type to those of another, rounded to the nearest, ties to even, as torch rounds."""
    import numpy as np

    if dtype == to:
        return np.ascontiguousarray(raw)
    if dtype == "BF16":
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])
    with np.errstate(over="ignore"):
        if to == "BF16":
            bits = values.astype(np.float32).view(np.uint32)
            rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
            return rounded.astype(np.uint16).view(np.uint8)
        return values.astype({"F32": np.float32, "F16": np.float16}[to]).view(np.uint8)


def tower_of(host: str, name: str, towers: Sequence[str]) -> str | None:
    """The tower to which the tensor or submodule called `name` belongs, of a model of `host` with `towers`; None for
    what is in neither. It is told by names alone, so that a file's reader needs no host.
    """
    return _TOWER_OF[host](name, towers)


def _open_clip(name: str, towers: Sequence[str]) -> str | None:
    if name.startswith("visual"):
        return "image"
    # CoCa's captioning decoder is in neither tower: embeddings do not pass through it.
    return None if name in _OUTSIDE or name.startswith("text_decoder") else "text"


def _transformers(name: str, towers: Sequence[str]) -> str | None:
    if len(towers) == 1:
        return towers[0]
    first = name.partition(".")[0]
    return "image" if first in _IMAGE else "text" if first in _TEXT else None


_TOWER_OF: Mapping[str, Callable[[str, Sequence[str]], str | None]] = {
    "open_clip": _open_clip,
    "timm": lambda name, towers: "image",
    "transformers": _transformers,
}
