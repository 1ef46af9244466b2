"""Adam over a student's parameters: rates by what a parameter is, a schedule by the step alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

RATES = {"steps": 1.0, "host": 1.0, "weights": 0.3}
"""Times the learning rate: logarithms of step sizes, what has one dimension (norms, biases), matrices."""

_BETAS = (0.9, 0.99)
_EPSILON = 1e-12  # gradients of a loss of 1e-4, divided by the root of the values that share a step size
_WARM_UP = 0.05  # of the steps
_END = 0.02  # of the rate
_STATE = ("step", "exp_avg", "exp_avg_sq")


def optimizer_of(parameters: Mapping[str, nn.Parameter], rate: float) -> torch.optim.Adam:
    """Adam (Kingma and Ba, arXiv:1412.6980); each group knows the `peak` of its rate."""
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in RATES}
    for name, one in parameters.items():
        groups[_kind(name, one)].append(one)
    return torch.optim.Adam(
        [{"params": ones, "lr": 0.0, "peak": rate * RATES[kind]} for kind, ones in groups.items() if ones],
        betas=_BETAS,
        eps=_EPSILON,
    )


def _kind(name: str, parameter: nn.Parameter) -> str:
    last = name.rpartition(".")[2]
    return last if last == "steps" else "host" if parameter.ndim <= 1 else "weights"


def set_rates(optimizer: torch.optim.Adam, step: int, steps: int) -> None:
    """The rates of `step` (from 0): up in a line, then down along a cosine."""
    up = min(1.0, (step + 1) / max(1.0, steps * _WARM_UP))
    down = _END + (1 - _END) * (1 + math.cos(math.pi * step / steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * up * down


def state_of(optimizer: torch.optim.Adam, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Adam's moments and counts, by parameter."""
    held = optimizer.state
    return {f"{key}/{name}": held[one][key] for name, one in parameters.items() if one in held for key in _STATE}


def restore(optimizer: torch.optim.Adam, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_of` gave."""
    for name, one in parameters.items():
        if f"step/{name}" in tensors:
            held = {key: tensors[f"{key}/{name}"] for key in _STATE}
            optimizer.state[one] = {key: t if key == "step" else t.to(one.device) for key, t in held.items()}
