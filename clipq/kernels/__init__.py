"""The int8 or fp8 linear: which implementation runs where, and why.

A kernel is a class that packs a `LinearWeights` for its machine when constructed and maps [..., in] to [..., out] when
called. `KERNELS` lists them from best to most general; the first one that supports the device and the scheme runs.
Nothing here knows a module or a model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import SchemeError, unknown_name
from ..native import library
from .cpu import NativeLinear
from .int_mm import IntMMLinear
from .reference import ReferenceLinear, WeightOnlyLinear
from .scaled_mm import ScaledMMLinear
from .weights import LinearWeights

Kernel = Callable[[Tensor], Tensor]
_W8A8 = (NativeLinear, IntMMLinear, ReferenceLinear)
KERNELS = {kernel.name: kernel for kernel in (WeightOnlyLinear, ScaledMMLinear, *_W8A8)}

__all__ = ["KERNELS", "Kernel", "LinearWeights", "chosen", "label", "pack", "why"]


def pack(weights: LinearWeights, kernel: str | None = None) -> Kernel:
    """Pack `weights` for the best kernel of their device and scheme, or for the one named.

    "native/avx2" names a kernel and one of its instruction sets. Raises `UnknownNameError` for a kernel that does not
    exist, `SchemeError` for one that does not compute the scheme.
    """
    name, _, path = (kernel or chosen(weights.device, weights)).partition("/")
    if name not in KERNELS or (path and name != NativeLinear.name):
        raise unknown_name("kernel", kernel, KERNELS)
    if not KERNELS[name].fits(weights):
        raise SchemeError(
            f"kernel {name!r} does not compute weights={weights.spec} with activations={weights.activations} and shape "
            f"{list(weights.shape)}; force {chosen(weights.device, weights)!r}, or none."
        )
    return KERNELS[name](weights, path) if path else KERNELS[name](weights)


def label(name: str) -> str:
    """A kernel's name, with the instruction set it runs on where it has several: "native/avx2"."""
    return f"{name}/{library.best_path()}" if name == NativeLinear.name else name


def chosen(device: torch.device, weights: LinearWeights | None = None) -> str:
    """The kernel that runs on `device` for `weights` (None: for the default scheme, W8A8 dynamic)."""
    for kernel in _W8A8 if weights is None else KERNELS.values():
        if kernel.obstacle(device) is None and (weights is None or kernel.fits(weights)):
            return kernel.name
    return ReferenceLinear.name


def why(device: torch.device) -> dict[str, str]:
    """For each W8A8 kernel, "chosen", "available", or what is missing for it on `device`."""
    best = chosen(device)
    return {one.name: "chosen" if one.name == best else one.obstacle(device) or "available" for one in _W8A8}
