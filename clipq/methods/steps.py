"""The steps by which a scheme chooses its numbers: a new method is a new module, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..arithmetic.schemes import Scheme
from ..errors import unknown_name
from .correction import correct_biases
from .fitting import fit_scales
from .ordering import round_in_order
from .rounding import round_by_inputs
from .smoothing import smooth
from .turning import turn_values
from .work import Work


@dataclass(frozen=True)
class Step:
    """What is done to a tower between its float weights and its integers; `calibrated`: by looking at inputs."""

    run: Callable[[Work], None]
    calibrated: bool


STEPS: Mapping[str, Step] = {
    "turn-values": Step(turn_values, calibrated=False),
    "smooth": Step(smooth, calibrated=True),
    "gptq": Step(round_by_inputs, calibrated=True),
    "correct-biases": Step(correct_biases, calibrated=True),
    "gptq-in-order": Step(round_in_order, calibrated=True),
    "fit-scales": Step(fit_scales, calibrated=False),
}


def steps_of(scheme: Scheme) -> list[Step]:
    """Those of `scheme`, in order. Raises `UnknownNameError` for a name that is none."""
    for name in scheme.steps:
        if name not in STEPS:
            raise unknown_name("step", name, STEPS)
    return [STEPS[name] for name in scheme.steps]


def is_calibrated(scheme: Scheme) -> bool:
    """Whether the numbers of `scheme` depend on inputs that it is given."""
    return any(step.calibrated for step in steps_of(scheme))
