"""The precision of what stays float in a tower."""

from __future__ import annotations

import torch
from torch import nn

from ..arithmetic.schemes import Scheme
from ..hosts import Host
from ..machine import cpu_flags
from ..modules.state import slots

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CPU_COMPUTES_FP16 = bool(cpu_flags() & {"avx512_fp16", "asimdhp"})  # read here: torch.compile traces no cached call


def fallback_dtype(scheme: Scheme, device: torch.device) -> torch.dtype:
    """The dtype of what stays float. "auto" is fp16 on devices with native fp16 arithmetic, else fp32."""
    if scheme.fallback != "auto":
        return DTYPES[scheme.fallback]
    native = device.type in ("cuda", "mps") or (device.type == "cpu" and _CPU_COMPUTES_FP16)
    return torch.float16 if native else torch.float32


def tower_dtype(module: nn.Module, host: Host, tower: str) -> torch.dtype:
    """The dtype of the tower's first floating-point tensor (quantized layers count as what surrounds them)."""
    for name, slot in slots(module).items():
        kept = slot.is_extra or slot.is_quantized
        if host.tower_of(module, name) == tower and not kept and slot.tensor.is_floating_point():
            return slot.tensor.dtype
    return torch.float32
