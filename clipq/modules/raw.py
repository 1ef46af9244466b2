"""The weights of a model, or of one of its towers, as a hash, computed again only after somebody has changed them."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from ..spaces.tensors import RawTensor, digest, of_tower
from .state import slots

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
}
"""As safetensors calls them in a header."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SAMPLED = 256  # values of each tensor, or up to twice as many
_Stamp = list[tuple[Any, int, int]]
_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple, tuple[_Stamp, str]]] = weakref.WeakKeyDictionary()


def weights_digest(module: nn.Module, host: str, towers: Sequence[str], tower: str, fallback: str) -> str:
    """sha256 (hex) of the weights of `tower`, as `spaces.tensors.digest` has it.

    Hashed again only after a change: a tensor replaced, or changed in place. Behind torch's back (`tensor.data`),
    changes of many values are noticed, as those of training, and not one of a few.
    """

    def of(tensors: Mapping[str, Tensor]) -> str:
        return digest(of_tower([_raw(*one) for one in tensors.items()], host, towers, tower), fallback)

    return _unless_known(module, (tower, fallback), of)


def fingerprint(model: nn.Module, settings: str = "") -> str:
    """sha256 (hex) over the names, dtypes, shapes and bytes of all tensors of `model`, and over `settings`.

    Hashed again as `weights_digest` is. It stands in outputs and results since clipq 0.3, and so stays as it is.
    """

    def of(tensors: Mapping[str, Tensor]) -> str:
        found = hashlib.sha256(settings.encode())
        for name, tensor in sorted(tensors.items()):
            found.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            found.update(_raw(name, tensor).read().data)
        return found.hexdigest()

    return _unless_known(model, (fingerprint, settings), of)


def _unless_known(module: nn.Module, key: tuple, of: Callable[[Mapping[str, Tensor]], str]) -> str:
    """`of` the tensors of `module`, or what it gave of the same ones."""
    tensors = {name: slot.tensor for name, slot in slots(module).items()}
    stamp, kept = _stamp(tensors.values()), _KNOWN.setdefault(module, {})
    if key not in kept or not _is_same(kept[key][0], stamp):
        kept[key] = stamp, of(tensors)
    return kept[key][1]


def _raw(name: str, tensor: Tensor) -> RawTensor:
    def read() -> Any:
        return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    return RawTensor(name, _NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), read)


def _stamp(tensors: Iterable[Tensor]) -> _Stamp:
    """What changes whenever a tensor does: which one it is, torch's count of its changes, and some of its values, since
    what is done to `tensor.data` is not counted, but changes many.
    """
    return [(weakref.ref(tensor), _version(tensor), crc32(_sample(tensor))) for tensor in tensors]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _sample(tensor: Tensor) -> bytes:
    """At most 512 values, evenly spread."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLED)].cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _is_same(one: _Stamp, other: _Stamp) -> bool:
    """A tensor that is gone is no other's equal, even where another lies in its place."""
    same = len(one) == len(other)
    return same and all(a() is b() and more == rest for (a, *more), (b, *rest) in zip(one, other, strict=True))
