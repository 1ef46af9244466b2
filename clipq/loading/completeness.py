"""Whether a host's library found every weight of a model in the files it was given."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..errors import CheckpointError, ClipqWarning

_OF_QUANTIZERS = ("qweight", "weight_scale", "weight_scale_inv", "weight_zero_point", "weight_packed", "input_scale")
_OF_QUANTIZERS += (".qzeros", ".scales", ".SCB", ".absmax")
"""How the names end that clipq, compressed-tensors, GPTQ, AWQ, bitsandbytes and others give to quantized weights."""
_UNREAD = "pooler."  # plain ViTs' embedding is their class token; a classifier's file lacks this layer behind it


def check_float(name: str, module: nn.Module) -> None:
    """Raise `CheckpointError` if transformers loaded the model `name` with another quantizer, such as bitsandbytes."""
    if (quantizer := getattr(module, "hf_quantizer", None)) is not None:
        method = quantizer.quantization_config.quant_method
        raise CheckpointError(
            f"{name!r} is quantized already, by {getattr(method, 'value', method)}. Give its float model."
        )


def check_complete(name: str, found: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` if transformers did not find every weight of the model `name` in its files.

    `found`: what `from_pretrained(..., output_loading_info=True)` returns beside the model: names of tensors, without
    those that transformers computes or ties. It initialises what is missing anew and only logs that, so that a folder
    of something else, or of quantized weights, would become a model of random numbers. Warns about missing weights
    that no embedding is computed from.
    """
    quantized = [key for key in _names(found, "unexpected_keys") if key.endswith(_OF_QUANTIZERS)]
    if quantized:
        raise CheckpointError(
            f"{name!r} holds quantized weights that transformers cannot read: {_listed(quantized)}. "
            "Give the float model; int8 models are written by clipq.save(module, path) and read by clipq.load(path)."
        )
    missing = _names(found, "missing_keys")
    needed = [key for key in missing if not key.startswith(_UNREAD)]
    if wrong := [*needed, *_names(found, "mismatched_keys")]:
        raise CheckpointError(
            f"{name!r} lacks weights of its model, or has them in another shape; they would be random numbers: "
            f"{_listed(wrong)}. Get the complete files, or save the model again (a quantized one with clipq.save)."
        )
    if missing:
        warnings.warn(
            f"{name!r} has no weights for {_listed(missing)}: the module's pooler_output means nothing. "
            "Embeddings are not computed from it.",
            ClipqWarning,
            stacklevel=4,
        )


def _names(found: Mapping[str, Any], key: str) -> list[str]:
    """Sorted names; a mismatched tensor comes with its two shapes."""
    return sorted(entry if isinstance(entry, str) else entry[0] for entry in found.get(key) or ())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
