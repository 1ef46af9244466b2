"""How a student is trained: what a run is told beside its model, its data and how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..arithmetic.precisions import PRECISIONS
from ..errors import QuantizationError, unknown_name

AUTOCAST = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Drift:
    """How far the student is from its teacher after `step` steps: for each tower the mean of 1 - cosine on what is held

    out of the data; `loss`: of the last step's own inputs, None before the first.
    """

    step: int
    loss: float | None
    drift: Mapping[str, float]


@dataclass(frozen=True)
class Options:
    """`batch_size`: inputs of a step, of each tower and each process. `losses`: names of `clipq.training.losses` and

    their weights. `begin`: steps of `clipq.methods.steps` that the training begins with, where the scheme has none of
    its own; () is rounding to nearest. `autocast`: the precision of the student's products while it is trained
    ("fp16": with scaled gradients); weights, rounding and the teacher stay float32. `every`: steps between two looks at
    the drift, each with a line on stderr (`progress=False`: none) and, if the run is to be resumed, a checkpoint.
    `tell`: is told, too.
    """

    batch_size: int = 16
    losses: Mapping[str, float] = field(default_factory=lambda: {"cosine": 1.0})
    begin: tuple[str, ...] = PRECISIONS["int8-best"].steps
    autocast: str = "no"
    every: int = 25
    seed: int = 0
    progress: bool | None = None
    tell: Callable[[Drift], None] | None = None

    def __post_init__(self) -> None:
        if self.autocast not in AUTOCAST:
            raise unknown_name("autocast precision", self.autocast, AUTOCAST)
        for name, least in (("batch_size", 1), ("every", 1), ("seed", 0)):
            check_number(name, getattr(self, name), least)

    def to_dict(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON values."""
        same = ("batch_size", "autocast", "every", "seed")
        return {**{name: getattr(self, name) for name in same}, "losses": dict(self.losses), "begin": list(self.begin)}


def check_number(name: str, value: object, least: int) -> None:
    """Raise `QuantizationError` unless `value` is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise QuantizationError(f"{name}={value!r} is not allowed; give a whole number of at least {least}.")
