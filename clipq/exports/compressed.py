"""compressed-tensors: a folder that transformers loads by that package, without clipq.

Written are the model's own integers, scales and zero points, so that the embeddings are the same; what the format has
no words for is written as fp16. Source of the format: compressed-tensors 0.20 (`QuantizationArgs`, `pack_to_int32`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arithmetic import packing
from ..arithmetic.specs import QuantSpec
from ..errors import ExportError
from ..hosts.base import host_class
from ..hosts.transformers import TransformersHost, own_config
from ..models import Model
from ..modules.layers import QEmbedding, QLinear, QuantizedModule
from ..modules.state import weights
from ..resources import atomic_path, json_text
from .layouts import hugging_face

_FILE = "model.safetensors"
_KINDS = (QLinear, QEmbedding)
_TOWERS = {"vision_config": "vision_model", "text_config": "text_model"}
_WORD = 32


def write_compressed(model: Model, folder: Path) -> dict[str, str]:
    """Write `model`, of transformers, into `folder` as transformers reads it with compressed-tensors installed.

    Returns the modules that are quantized in `model` and fp16 in the folder, by name, and why. `config.json` says
    float32, in which the rest is computed: `from_pretrained(folder, dtype=...)` asks for another type.
    Raises `ExportError` for a model of another library or a tokenizer that transformers' files cannot say, and where
    nothing can be kept as integers.
    """
    if model.host.name != "transformers":
        raise ExportError(
            f"compressed-tensors folders are read by transformers, and this is a {model.host.name} model; quantize the "
            "transformers model of the same weights, or export to another target."
        )
    found = {name: part for name, part in model.module.named_modules() if isinstance(part, QuantizedModule)}
    reasons = {name: why for name, part in found.items() if (why := _obstacle(name, part, model))}
    kept = {name: part for name, part in found.items() if name not in reasons}
    if not kept:
        most = Counter(reasons.values()).most_common(1)
        why = most[0][0] if most else f"it is {model.precision_name}"
        raise ExportError(
            f"nothing of this model can be kept in integers by compressed-tensors: {why}. Precisions that can: int8, "
            "int8-symmetric, int8-static, int8-weight-only, fp8, int4, w4a8."
        )
    texts = {"config.json": json_text(_config(model, kept)), **hugging_face(model, model.towers)}
    tensors = _tensors(model, kept)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / _FILE, tensors)
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return reasons


def write_and_open(model: Model, folder: Path) -> tuple[dict[str, Callable[[Any], Any]], dict[str, str]]:
    """What `open_compressed` gives of what `write_compressed` wrote, and what that left float."""
    left = write_compressed(model, folder)
    return open_compressed(folder), left


def open_compressed(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """The towers of such a folder as transformers and compressed-tensors run them: clipq's modules have no part in it.

    "image": float32 arrays [batch, 3, height, width], "text": int64 arrays [batch, tokens], each to float32
    [batch, width]. Raises `ExportError` for a folder that transformers does not load.
    """
    import transformers

    try:
        settings = json.loads((folder / "config.json").read_text("utf-8"))
        kind = getattr(transformers, str(settings["architectures"][0]))
        module = kind.from_pretrained(folder)
    except Exception as error:  # the border to a library that is given a folder it may not like
        raise ExportError(f"transformers does not load {folder}: {error}") from error
    # Its own hook does this at the first call of the whole model, which nobody makes who asks for one tower.
    module.hf_quantizer.compressor.decompress_model(module)
    host = TransformersHost()
    encoders = {"image": host.encode_image, "text": host.encode_text}

    def tower(name: str) -> Callable[[Any], Any]:
        @torch.no_grad()
        def encode(array: Any) -> Any:
            return encoders[name](module, torch.from_numpy(array)).float().numpy()

        return encode

    return {name: tower(name) for name in host.towers(module)}


# -- what the format can say --


def _obstacle(name: str, part: QuantizedModule, model: Model) -> str | None:
    """Why a quantized module cannot be one of compressed-tensors; None if it can."""
    if type(part) not in _KINDS or _is_fused(model, name):
        return "only linears and embeddings are quantized: this is a convolution or a fused attention"
    spec, activations = part.spec, getattr(part, "activations", None)
    if spec.codebook:
        return f"{spec.label} weights are places in a codebook, which the format does not have"
    if activations is not None and activations.granularity == "tensor" and activations.dynamic:
        return "one range for all rows, measured at run time, is that of whatever shares the batch"
    return None


def _is_fused(model: Model, name: str) -> bool:
    """Whether the linear is a part of an attention that has one weight for query, key and value."""
    return model.recipe.modules.get(name.rpartition(".")[0], "").endswith("attention")


def _format(part: QuantizedModule, packs: bool) -> str:
    """Of the formats that hold the weight, the smallest that transformers loads. `packs`: see `_packs`.

    Packed zero points it makes room for unpacked, and a packed embedding it does not load; integers of 3 and 2 bits
    are packed in another way by each version of compressed-tensors.
    """
    if part.spec.kind == "float":
        return "float-quantized"
    if packs and part.spec.bits == 4 and part.spec.symmetric and isinstance(part, QLinear):
        return "pack-quantized"
    return "int-quantized" if getattr(part, "activations", None) is not None else "naive-quantized"


def _packs(model: Model) -> bool:
    """Whether transformers loads packed linears of this family: where it initialises SigLIP it looks for weights."""
    return not str(model.config.get("model_type")).startswith("siglip")


def _written(spec: QuantSpec, form: str) -> QuantSpec:
    """How the weight is quantized in the folder: as in the model, or in 8 bits (`_widened`)."""
    return spec if form == "pack-quantized" else replace(spec, bits=8, float_zero_point=False)


def _arguments(spec: QuantSpec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    return {
        "num_bits": spec.bits,
        "type": spec.kind,
        "symmetric": spec.symmetric,
        "strategy": spec.granularity,
        "group_size": spec.group_size,
        "dynamic": spec.dynamic and spec.granularity == "token",
    }


# -- tensors --


def _tensors(model: Model, kept: Mapping[str, QuantizedModule]) -> dict[str, Tensor]:
    """What goes into the file: `kept` as the format has them, all else in floats."""
    tensors = {}
    inside = {f"{name}.weight" for name in kept}
    for name, slot in weights(model.module).items():
        if name not in inside:
            value = slot.module.weight.reshape(slot.shape) if slot.is_quantized else slot.tensor
            tensors[name] = _half(value)
    for name, part in kept.items():
        found = _of_module(part, _format(part, _packs(model)))
        tensors |= {f"{name}.{key}": value.detach().cpu().contiguous().clone() for key, value in found.items()}
    return tensors


def _of_module(part: QuantizedModule, form: str) -> dict[str, Tensor]:
    spec, integers, scale, zero = part.spec, part.qweight, part.weight_scale, part.weight_zero_point
    if spec.is_packed:
        integers = packing.unpack(integers, spec.bits, part.weight_shape[-1]).to(torch.int8) + spec.qmin
    found = {"weight": integers}
    if form == "pack-quantized":
        found = {"weight_packed": packed(integers, spec.bits), "weight_shape": torch.tensor(integers.shape)}
    elif spec.is_packed:
        found["weight"], scale, zero = _widened(integers, scale, zero, spec)
    found["weight_scale"] = _rows(scale.float(), spec, len(integers))
    if zero is not None:
        found["weight_zero_point"] = _rows(zero, spec, len(integers)).to(torch.int8)
    ranges = {key: part._buffers.get(key) for key in ("input_scale", "input_zero_point")}
    return found | {key: value for key, value in ranges.items() if value is not None}


def _widened(integers: Tensor, scale: Tensor, zero: Tensor | None, spec: QuantSpec) -> tuple[Tensor, Tensor, Any]:
    """Integers of fewer bits as int8 in finer steps: the same numbers, but for the last digits of a real zero point."""
    finer = 1 << (8 - spec.bits)
    zero = None if zero is None else (zero.float() * finer).round().clamp(-128, 127)
    return (integers.int() * finer).to(torch.int8), scale.float() / finer, zero


def _rows(values: Tensor, spec: QuantSpec, rows: int) -> Tensor:
    """Scales or zero points as the format has them: [rows, groups], [rows, 1], or [1] of a tensor."""
    return values.reshape(1) if spec.granularity == "tensor" else values.reshape(rows, -1)


def packed(values: Tensor, bits: int) -> Tensor:
    """int32 [rows, words] of int8 [rows, n]: offset to start at 0, from the lowest bits of a word on."""
    each = _WORD // bits
    offset = (values.int() + (1 << (bits - 1))).long()
    words = torch.nn.functional.pad(offset, (0, -values.shape[1] % each)).unflatten(1, (-1, each))
    shifts = torch.arange(0, _WORD, bits, device=values.device)
    whole = (words << shifts).sum(-1)
    return torch.where(whole >= 1 << (_WORD - 1), whole - (1 << _WORD), whole).to(torch.int32)


def _half(value: Tensor) -> Tensor:
    """fp16, or as it is where that is too small a range or no float."""
    value = value.detach().cpu()
    if value.is_floating_point():
        half = value.half()
        value = half if bool(half.isfinite().all()) else value.float()
    return value.contiguous().clone()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, {"format": "pt"})


# -- config.json and what lies beside it --


def _config(model: Model, kept: Mapping[str, QuantizedModule]) -> dict[str, Any]:
    values = deepcopy(own_config(model.config))
    for part in (values, *(values[key] for key in _TOWERS if isinstance(values.get(key), dict))):
        part["dtype"] = "float32"
    for key, prefix in _TOWERS.items():
        inside = {name: part for name, part in kept.items() if name.startswith(f"{prefix}.")}
        if isinstance(values.get(key), dict) and inside:
            values[key] = {**values[key], "quantization_config": _quantization(model, inside, f"{prefix}.")}
    values["architectures"] = [host_class(model.module).__name__]
    return {**values, "quantization_config": _quantization(model, kept)}


def _quantization(model: Model, kept: Mapping[str, QuantizedModule], prefix: str = "") -> dict[str, Any]:
    """One group for each scheme. `prefix`: what the names begin with in the model, and maybe not in one tower of it."""
    alike: dict[tuple[QuantSpec, QuantSpec | None, str], list[str]] = {}
    for name, part in kept.items():
        form = _format(part, _packs(model))
        alike.setdefault((_written(part.spec, form), getattr(part, "activations", None), form), []).append(name)
    groups = {}
    for (spec, activations, form), names in alike.items():
        targets = names if not prefix else [_either(name, prefix) for name in names]
        groups[f"group_{len(groups)}"] = {
            "targets": targets,
            "weights": _arguments(spec),
            "input_activations": _arguments(activations),
            "output_activations": None,
            "format": form,
        }
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [],
    }


def _either(name: str, prefix: str) -> str:
    """A pattern for `name` with and without `prefix`: a class of one tower calls its modules the one or the other."""
    return f"re:^({re.escape(prefix)})?{re.escape(name.removeprefix(prefix))}$"
