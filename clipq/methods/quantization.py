"""`quantize`: make a plan of what becomes int8, then replace those modules in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..arithmetic.precisions import Precisions, per_tower
from ..arithmetic.schemes import Scheme
from ..errors import ClipqWarning, QuantizationError
from ..hosts import find_host, unwrapped
from ..modules.layers import QuantizedModule
from .calibration import Calibration, account, inputs_for
from .choosing import choose_numbers
from .coverage import EXCEPTION, Coverage, coverage
from .finishing import finish
from .recipes import Recipe
from .replacing import install, plan, replacement

_UNEXPECTED_SHARE = 0.005  # float weights that nobody asked for, as a share of a tower, above which quantize warns
_SMALL_SHARE = 0.5  # quantized weights, as a share of a tower, below which it warns of all that stays float


def quantize(
    model: Any, precision: Precisions = "int8", *, fallback: str | None = None, calibration: Calibration = None
) -> Any:
    """Quantize `model` in place and return it.

    `model`: an open_clip, transformers or timm module, a SentenceTransformer or feature getter of timm around one, or a
    `clipq.Model`. `precision`: a name ("int8", "int8-weight-only", "fp16", ...), a `Scheme`, or {"image": ...,
    "text": ...}. `fallback`: the precision of what stays float in a quantized tower (default: fp16
    where the device computes it natively). `calibration`: what the numbers of a precision that looks at inputs are
    chosen by, for one tower or {"image": ..., "text": ...}: see `clipq.methods.calibration`.

    Raises `QuantizationError` for a model of an unknown library, one that is quantized already, or a weight that is
    not finite (nothing has been changed then). Warns, naming them, if weights stay float that should not.
    """
    module = unwrapped(model) if isinstance(model, nn.Module) else getattr(model, "module", model)
    towers = find_host(module).towers(module)
    schemes = {tower: scheme for tower, scheme in per_tower(precision, fallback).items() if tower in towers}
    refuse_quantized(module)
    quantize_module(module, schemes, inputs_for(model, schemes, calibration))
    return model


def quantize_module(
    module: nn.Module, schemes: Mapping[str, Scheme], inputs: Mapping[str, Sequence[Tensor]] | None = None
) -> None:
    """As `quantize`, for a host's module; `schemes`: of its towers; `inputs`: batches to calibrate on, by tower."""
    host = find_host(module)
    refuse_quantized(module)
    recipe = Recipe(dict(schemes), plan(host, module, schemes), account(inputs or {}))
    originals = {name: module.get_submodule(name) for name in recipe.modules}
    replacements = {name: replacement(module, name, kind, host, recipe) for name, kind in recipe.modules.items()}
    host.prepare(module)
    install(module, replacements)
    training = [part for part in module.modules() if part.training]
    try:
        choose_numbers(module.eval(), host, recipe, originals, inputs or {})
    except BaseException:  # an interrupted quantization leaves the model as it was, too
        install(module, originals)
        for part in training:
            part.training = True
        raise
    finish(module, host, recipe)
    _warn_if_incomplete(coverage(module, count_macs=False), schemes)


def refuse_quantized(module: nn.Module) -> None:
    """Raise `QuantizationError` if something of `module` is quantized already."""
    if any(isinstance(m, QuantizedModule) for m in module.modules()):
        raise QuantizationError(
            "the model is quantized already; load it again with precision='fp32' and quantize that."
        )


def _warn_if_incomplete(report: Coverage, schemes: Mapping[str, Scheme]) -> None:
    for name, tower in report.towers.items():
        asked_for = schemes[name].embeddings is None  # float embeddings
        left = [one for one in tower.left_float if one.why != EXCEPTION and not (asked_for and one.is_embedding)]
        small = tower.quantized_weights < _SMALL_SHARE * (tower.quantized_weights + sum(one.weights for one in left))
        unexpected = left if small else [one for one in left if not one.intended]
        share = sum(one.weights for one in unexpected) / max(tower.matrix_weights, 1)
        if not schemes[name].is_float and share > _UNEXPECTED_SHARE:
            most = ", ".join(f"{one.name} ({one.why})" for one in unexpected[:5])
            more = f" and {len(unexpected) - 5} more" if len(unexpected) > 5 else ""
            warnings.warn(
                f"{share:.1%} of the {name} tower's matrix weights stay float: {most}{more}. "
                "clipq.coverage(model) lists all of them.",
                ClipqWarning,
                stacklevel=4,
            )
