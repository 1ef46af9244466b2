"""What a model needs after its modules were replaced: float precisions, packed weights, the kernel that runs them."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from .. import kernels
from ..errors import ClipqWarning
from ..hosts import Host
from ..hosts.calls import install
from ..kernels.cpu import NativeLinear
from ..kernels.reference import ReferenceLinear
from ..kernels.scaled_mm import ScaledMMLinear
from ..modules.layers import KEPT, QLinear, QuantizedModule
from ..towers.calls import WholeTower
from .dtypes import fallback_dtype
from .recipes import Recipe, state


def finish(module: nn.Module, host: Host, recipe: Recipe) -> None:
    """Cast what stays float to its fallback precision, and make the model ready for inference."""
    for name, part in module.named_modules():
        for key, tensor in [*part._parameters.items(), *part._buffers.items()]:
            tower = host.tower_of(module, f"{name}.{key}" if name else key)
            if tensor is None or tower not in recipe.schemes or not tensor.is_floating_point() or key in KEPT:
                continue
            dtype = fallback_dtype(recipe.schemes[tower], tensor.device)
            if isinstance(tensor, nn.Parameter):
                part._parameters[key] = nn.Parameter(tensor.detach().to(dtype), requires_grad=False)
            else:
                part._buffers[key] = tensor.to(dtype)
        if isinstance(part, QuantizedModule):
            part.compute_dtype = fallback_dtype(recipe.schemes[host.tower_of(module, name)], part.qweight.device)
    state(module, recipe)
    module.eval().requires_grad_(False)
    install(module)
    host.finished(module)
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


def _warn_if_slow(recipe: Recipe, device: torch.device) -> None:
    """Warn where int8 or fp8 is no faster than fp32: in plain torch, and int8 on a CPU without the native library.

    There torch._int_mm at best multiplies fast; whole towers and small batches are then as slow as the rest.
    """
    schemes = [one for scheme in recipe.schemes.values() for one in (scheme, *(own for _, own in scheme.exceptions))]
    dynamic = [one for one in schemes if one.activations is not None and one.activations.kind == "int"]
    has_fp8 = any(one.activations is not None and one.activations.kind == "float" for one in schemes)
    if has_fp8 and (why := ScaledMMLinear.obstacle(device)):
        text = f"fp8 is emulated on this {device.type}, as accurate as elsewhere, but slower than fp32: {why}."
        warnings.warn(text, ClipqWarning, stacklevel=4)
    kernel = kernels.chosen(device)
    if any(scheme.weights.is_packed and scheme.weights.has_half_scales for scheme in dynamic):
        text = f"groups or codebooks with int8 activations run on plain torch on this {device.type}, slower than fp32."
        warnings.warn(text, ClipqWarning, stacklevel=4)
    elif dynamic and kernel == ReferenceLinear.name:
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
