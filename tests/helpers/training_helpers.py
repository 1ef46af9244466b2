"""What tests of the training share: a short run on a tiny model, the same one every time."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import build
from torch import Tensor

import clipq
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.modules.state import slots
from clipq.training.options import Options

INT4 = Scheme("w4a8", QuantSpec(bits=4), QuantSpec(symmetric=False, granularity="token"), fallback="fp32")


def pixels(count: int = 20) -> Tensor:
    """[count, 3, 32, 32]"""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def run(*, resume: Any = None, mode: str = "light", lr: float = 1e-3, **options: Any) -> clipq.Model:
    """Eight steps of a tiny model's image tower, rounded to nearest at the start, which is easily bettered."""
    settings = {"batch_size": 4, "every": 2, "progress": False, "begin": (), **options}
    model = clipq.Model(build("open_clip CLIP"))
    return clipq.finetune(
        model, {"image": INT4}, pixels(), steps=8, mode=mode, lr=lr, resume=resume, options=Options(**settings)
    )


def parameters_of(model: clipq.Model) -> list[Tensor]:
    """The float tensors of the image tower, dequantized weights among them, in a fixed order."""
    found = {name: slot for name, slot in slots(model.module).items() if name.startswith("visual.")}
    return [
        (slot.module.weight if slot.is_quantized else slot.tensor).detach().float()
        for name, slot in sorted(found.items())
        if slot.is_quantized or slot.tensor.is_floating_point()
    ]
