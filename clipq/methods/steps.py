"""The steps by which a scheme chooses its numbers: a new method is a new module, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    `calibrated`: by looking at inputs. `ranges`: it finds the ranges of static activations. `keeps_inputs`: it may come
    after that, as it changes what comes to a linear by rounding alone.
    """

    run: Callable[[Work], None]
    calibrated: bool
    ranges: bool = False
    keeps_inputs: bool = False


STEPS: Mapping[str, Step] = {
    "turn-values": Step(turn_values, calibrated=False),
    "smooth": Step(smooth, calibrated=True),
    "gptq": Step(round_by_inputs, calibrated=True, keeps_inputs=True),
    "gptq-in-order": Step(round_in_order, calibrated=True, keeps_inputs=True),
    "fit-scales": Step(fit_scales, calibrated=False, keeps_inputs=True),
    **{f"observe-{name}": Step(observe(make), calibrated=True, ranges=True) for name, make in OBSERVERS.items()},
    "correct-biases": Step(correct_biases, calibrated=True, keeps_inputs=True),
}


def steps_of(scheme: Scheme) -> list[Step]:
    """Those of `scheme`, in order. Raises `UnknownNameError` for a name that is none.

    And `SchemeError` where ranges of static activations are not found, or looked for in vain, or changed afterwards.
    """
    for name in scheme.steps:
        if name not in STEPS:
            raise unknown_name("step", name, STEPS)
    steps = [STEPS[name] for name in scheme.steps]
    _check_ranges(scheme, steps)
    return steps


def _check_ranges(scheme: Scheme, steps: Sequence[Step]) -> None:
    observing = [place for place, step in enumerate(steps) if step.ranges]
    if len(observing) != _has_static(scheme):
        raise SchemeError(
            f"{scheme.name!r} has the steps {', '.join(scheme.steps) or 'none'}; where activations are static, with "
            f"dynamic=False, and nowhere else, one observes: {', '.join(k for k in STEPS if STEPS[k].ranges)}."
        )
    after = [] if not observing else range(observing[0] + 1, len(steps))
    if late := [scheme.steps[place] for place in after if not steps[place].keeps_inputs]:
        raise SchemeError(
            f"{late[0]!r} changes the inputs that {scheme.name!r} observes before; put it before that step."
        )


def _has_static(scheme: Scheme) -> bool:
    specs = [one.activations for one in (scheme, *(other for _, other in scheme.exceptions))]
    return any(spec is not None and not spec.dynamic for spec in specs)


def is_calibrated(scheme: Scheme) -> bool:
    """Whether the numbers of `scheme` depend on inputs that it is given."""
    return any(step.calibrated for step in steps_of(scheme))
