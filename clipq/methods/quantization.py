"""`quantize`: make a plan of what becomes int8, then replace those modules in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .. import kernels
from ..arithmetic.schemes import Precisions, Scheme, per_tower, resolve
from ..errors import CheckpointError, ClipqWarning, QuantizationError
from ..hosts import Host, find_host, unwrapped
from ..hosts.calls import install
from ..kernels.cpu import NativeLinear
from ..kernels.reference import ReferenceLinear
from ..machine import cpu_flags
from ..modules.attention import QMultiheadAttention, QOpenClipAttention
from ..modules.convolutions import QPatchEmbed, QPointwise
from ..modules.layers import QEmbedding, QLinear, QuantizedModule
from ..towers.calls import WholeTower
from .coverage import Coverage, coverage, tower_dtype

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CPU_COMPUTES_FP16 = bool(cpu_flags() & {"avx512_fp16", "asimdhp"})  # read here: torch.compile traces no cached call
_RECIPE = "clipq_recipe"  # an attribute of the host's module, so that copies and pickles of it carry it along
_UNEXPECTED_SHARE = 0.005  # float weights that nobody asked for, as a share of a tower, above which quantize warns
_SMALL_SHARE = 0.5  # int8 weights, as a share of a tower, below which it warns of all that stays float

# Kind of replacement, as stored in a checkpoint, and how it is made from (host module, scheme, name).
REPLACEMENTS = {
    "multihead_attention": QMultiheadAttention,
    "open_clip_attention": QOpenClipAttention,
    "linear": QLinear.from_float,
    "patch_embedding": QPatchEmbed.from_float,
    "pointwise_convolution": QPointwise.from_float,
    "embedding": QEmbedding.from_float,
}


@dataclass(frozen=True)
class Recipe:
    """What was done to a model: a scheme per tower and, for each replaced module, the kind of its replacement."""

    schemes: dict[str, Scheme]
    modules: dict[str, str] = field(default_factory=dict)

    @property
    def precision(self) -> dict[str, str]:
        return {tower: scheme.name for tower, scheme in self.schemes.items()}

    def to_dict(self) -> dict[str, Any]:
        return {"towers": {k: s.to_dict() for k, s in self.schemes.items()}, "modules": dict(self.modules)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        return cls({k: Scheme.from_dict(v) for k, v in values["towers"].items()}, dict(values["modules"]))


def quantize(model: Any, precision: Precisions = "int8", *, fallback: str | None = None) -> Any:
    """Quantize `model` in place and return it.

    `model`: an open_clip, transformers or timm module, a SentenceTransformer or feature getter of timm around one, or a
    `clipq.Model`. `precision`: a name ("int8", "int8-weight-only", "fp16", ...), a `Scheme`, or {"image": ...,
    "text": ...}. `fallback`: the precision of what stays float in an int8 tower ("fp32", "fp16", "bf16"; default: fp16
    where the device computes it natively).

    Raises `QuantizationError` for a model of an unknown library, one that is quantized already, or a weight that is
    not finite (nothing has been changed then). Warns, naming them, if weights stay float that should not.
    """
    quantize_module(
        unwrapped(model) if isinstance(model, nn.Module) else getattr(model, "module", model), precision, fallback
    )
    return model


def quantize_module(module: nn.Module, precision: Precisions, fallback: str | None = None) -> None:
    """As `quantize`, for a host's module."""
    host = find_host(module)
    if any(isinstance(m, QuantizedModule) for m in module.modules()):
        raise QuantizationError(
            "the model is quantized already; load it again with precision='fp32' and quantize that."
        )
    schemes = {k: s for k, s in per_tower(precision, fallback).items() if k in host.towers(module)}
    recipe = Recipe(schemes, plan(host, module, schemes))
    replacements = {name: _replacement(module, name, kind, host, recipe) for name, kind in recipe.modules.items()}
    host.prepare(module)
    _install(module, replacements)
    finish(module, host, recipe)
    _warn_if_incomplete(coverage(module, count_macs=False), schemes)


def stated_recipe(module: nn.Module) -> Recipe | None:
    """The recipe that `quantize` or a file left on `module`; None for one that clipq never touched."""
    return getattr(module, _RECIPE, None)


def recipe_of(module: nn.Module) -> Recipe:
    """What was done to `module`; for one that clipq never touched, its towers' float precisions."""
    if stated := stated_recipe(module):
        return stated
    host, names = find_host(module), {dtype: name for name, dtype in DTYPES.items()}
    found = {tower: names.get(tower_dtype(module, host, tower), "fp32") for tower in host.towers(module)}
    return Recipe({tower: resolve(name) for tower, name in found.items()})


def plan(host: Host, module: nn.Module, schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Which submodules to replace, and the kind of each replacement, outermost first.

    Raises `QuantizationError` for a tower that is to be int8 and of which nothing would be.
    """
    chosen: dict[str, str] = {}
    for name, part in module.named_modules():
        scheme = schemes.get(host.tower_of(module, name) or "")
        inside = any(name.startswith(f"{outer}.") for outer, kind in chosen.items() if kind.endswith("attention"))
        if not name or scheme is None or scheme.is_float or inside or host.kept_float(module, name):
            continue
        if kind := _kind(part, scheme):
            chosen[name] = kind
    for tower, scheme in schemes.items():
        if not scheme.is_float and not any(host.tower_of(module, name) == tower for name in chosen):
            raise _nothing_to_quantize(module, tower, scheme)
    return chosen


def _nothing_to_quantize(module: nn.Module, tower: str, scheme: Scheme) -> QuantizationError:
    return QuantizationError(
        f"nothing of the {tower} tower of this {type(module).__name__} can become {scheme.name!r}: it has no linear, "
        "attention, embedding, patch embedding or 1x1 convolution that is to be quantized. Give that tower a float "
        f"precision, such as precision={{{tower!r}: 'fp16'}}, and name the other tower's beside it if there is one."
    )


def _kind(part: nn.Module, scheme: Scheme) -> str | None:
    if QMultiheadAttention.fits(part):
        return "multihead_attention"
    if QOpenClipAttention.fits(part):
        return "open_clip_attention"
    if type(part) is nn.Linear:
        return "linear"
    if type(part) is nn.Embedding and scheme.embeddings is not None:
        return "embedding"
    if QPatchEmbed.fits(part):
        return "patch_embedding"
    return "pointwise_convolution" if QPointwise.fits(part) else None


def rebuild(module: nn.Module, host: Host, recipe: Recipe) -> None:
    """Put empty quantized modules into a skeleton on the meta device, as `recipe` (from a file) says.

    Raises `CheckpointError` if the recipe does not fit the architecture.
    """
    for name, kind in recipe.modules.items():
        try:
            fits = _kind(module.get_submodule(name), recipe.schemes[host.tower_of(module, name)]) == kind
        except (AttributeError, KeyError):
            fits = False
        if not fits:
            raise CheckpointError(f"the recipe makes {name!r} a {kind!r}, which does not fit the architecture.")
        _install(module, {name: _replacement(module, name, kind, host, recipe)})


def _replacement(module: nn.Module, name: str, kind: str, host: Host, recipe: Recipe) -> nn.Module:
    scheme = recipe.schemes[host.tower_of(module, name)]
    return REPLACEMENTS[kind](module.get_submodule(name), scheme, name)


def _install(module: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    for name, replacement in replacements.items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, replacement)


def finish(module: nn.Module, host: Host, recipe: Recipe) -> None:
    """Cast what stays float to its fallback precision, and make the model ready for inference."""
    for name, part in module.named_modules():
        for key, tensor in [*part._parameters.items(), *part._buffers.items()]:
            tower = host.tower_of(module, f"{name}.{key}" if name else key)
            if tensor is None or tower not in recipe.schemes or not tensor.is_floating_point() or key == "weight_scale":
                continue
            dtype = fallback_dtype(recipe.schemes[tower], tensor.device)
            if isinstance(tensor, nn.Parameter):
                part._parameters[key] = nn.Parameter(tensor.detach().to(dtype), requires_grad=False)
            else:
                part._buffers[key] = tensor.to(dtype)
        if isinstance(part, QuantizedModule):
            part.compute_dtype = fallback_dtype(recipe.schemes[host.tower_of(module, name)], part.qweight.device)
    setattr(module, _RECIPE, recipe)
    module.eval().requires_grad_(False)
    install(module)
    _pack(module, host)
    _warn_if_slow(recipe, next(module.parameters()).device)


def _pack(module: nn.Module, host: Host) -> None:
    """Pack everything now and not at the first call: `torch.export` cannot pack while it traces."""
    packed: set[QLinear] = set()
    for tower in host.towers(module):
        whole = host.whole(module, tower)
        if isinstance(whole, WholeTower):
            packed |= set(whole.pack())
    for part in module.modules():
        if isinstance(part, QLinear) and part not in packed:
            part.pack()


def fallback_dtype(scheme: Scheme, device: torch.device) -> torch.dtype:
    """The dtype of what stays float. "auto" is fp16 on devices with native fp16 arithmetic, else fp32."""
    if scheme.fallback != "auto":
        return DTYPES[scheme.fallback]
    native = device.type in ("cuda", "mps") or (device.type == "cpu" and _CPU_COMPUTES_FP16)
    return torch.float16 if native else torch.float32


def _warn_if_incomplete(report: Coverage, schemes: Mapping[str, Scheme]) -> None:
    for name, tower in report.towers.items():
        asked_for = schemes[name].embeddings is None  # float embeddings
        left = [one for one in tower.left_float if not (asked_for and one.is_embedding)]
        small = tower.int8_weights < _SMALL_SHARE * (tower.int8_weights + sum(one.weights for one in left))
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


def _warn_if_slow(recipe: Recipe, device: torch.device) -> None:
    """Warn where int8 is no faster than fp32: in plain torch, and on a CPU without the native library.

    There torch._int_mm at best multiplies fast; whole towers and small batches are then as slow as the rest.
    """
    dynamic = any(scheme.activations is not None for scheme in recipe.schemes.values())
    kernel = kernels.chosen(device)
    if dynamic and kernel == ReferenceLinear.name:
        text = f"int8 runs on plain torch on this {device.type}, slower than fp32, only smaller; `clipq info` says why."
        warnings.warn(text, ClipqWarning, stacklevel=4)
    elif dynamic and device.type == "cpu" and kernel != NativeLinear.name:
        why = kernels.why(device)[NativeLinear.name].rstrip(".")
        text = f"int8 runs on {kernel}, not on clipq's own kernels, on this cpu, often slower than fp32; {why}."
        warnings.warn(text, ClipqWarning, stacklevel=4)


def use_kernel(module: nn.Module, kernel: str | None) -> None:
    """Force every int8 linear of `module` onto the kernel named, or let the device decide (None)."""
    for part in module.modules():
        if isinstance(part, QLinear):
            part.use_kernel(kernel)


def kernel_path(module: nn.Module) -> str:
    """The kernels that `module`'s int8 linears run on, such as "native"; "float" if it has none."""
    linears = [part for part in module.modules() if isinstance(part, QLinear)]
    return "+".join(sorted({part.kernel_name() for part in linears})) or "float"
