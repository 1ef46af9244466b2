"""The steps by which a scheme chooses its numbers: a new method is a new module, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..arithmetic.observers import OBSERVERS
from ..arithmetic.schemes import Scheme
from ..errors import SchemeError, unknown_name
from .correction import correct_biases
from .fitting import fit_scales
from .observing import observe
from .ordering import round_in_order
from .rounding import round_by_inputs
from .smoothing import smooth
from .turning import turn_values
from .work import Work


@dataclass(frozen=True)
class Step:
    """What is done to a tower between its float weights and its integers.

    `calibrated`: by looking at inputs. `ranges`: it finds the ranges of static activations, so nothing that changes
    inputs may come after it.
    """

    run: Callable[[Work], None]
    calibrated: bool
    ranges: bool = False


STEPS: Mapping[str, Step] = {
    "turn-values": Step(turn_values, calibrated=False),
    "smooth": Step(smooth, calibrated=True),
    "gptq": Step(round_by_inputs, calibrated=True),
    "correct-biases": Step(correct_biases, calibrated=True),
    "gptq-in-order": Step(round_in_order, calibrated=True),
    "fit-scales": Step(fit_scales, calibrated=False),
    **{f"observe-{name}": Step(observe(make), calibrated=True, ranges=True) for name, make in OBSERVERS.items()},
}


def steps_of(scheme: Scheme) -> list[Step]:
    """Those of `scheme`, in order. Raises `UnknownNameError` for a name that is none.

    And `SchemeError` for static activations unless the last step finds their ranges, and for one that finds none.
    """
    for name in scheme.steps:
        if name not in STEPS:
            raise unknown_name("step", name, STEPS)
    steps = [STEPS[name] for name in scheme.steps]
    observing = [name for name in STEPS if STEPS[name].ranges]
    if _has_static(scheme) and [step.ranges for step in steps[-1:]] != [True]:
        raise SchemeError(
            f"the activations of {scheme.name!r} are static, so its last step has to find their ranges: "
            f"one of {', '.join(observing)}."
        )
    if sum(step.ranges for step in steps) > _has_static(scheme):
        raise SchemeError(
            f"{scheme.name!r} has steps {', '.join(scheme.steps)}; one that observes is needed where activations are "
            "static (dynamic=False), once, and nowhere else."
        )
    return steps


def _has_static(scheme: Scheme) -> bool:
    specs = [one.activations for one in (scheme, *(other for _, other in scheme.exceptions))]
    return any(spec is not None and not spec.dynamic for spec in specs)


def is_calibrated(scheme: Scheme) -> bool:
    """Whether the numbers of `scheme` depend on inputs that it is given."""
    return any(step.calibrated for step in steps_of(scheme))
