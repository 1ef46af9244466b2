"""Mixed precision: the precision of each block chosen by its sensitivity, within a budget, and then measured.

The data is divided: sensitivities, and for a budget of accuracy the drops of points on the front, come from one half of
the calibration data; the point that is chosen is really quantized and measured on the other half.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..arithmetic.precisions import PRECISIONS, TOWERS, Precision, Precisions, resolve
from ..arithmetic.schemes import Scheme
from ..errors import ClipqWarning, SchemeError
from ..hosts import Host, find_host, unwrapped
from ..hosts.calls import install
from ..methods import quantization
from ..methods.calibration import Calibration, inputs_of
from ..methods.dtypes import fallback_dtype
from ..methods.steps import is_calibrated
from ..modules.state import slots
from .block_times import tower_time, unit_times
from .budgets import MAX_DROP, MAX_MS, MAX_SIZE, Budget
from .differences import Answers, Difference
from .encoding import Inputs, divided, embedded, evaluating
from .mixtures import MIXED, Mixture, schemes_of
from .search import Option, Point, best, front, thinned
from .sensitivity import checked_towers, measured, with_answers
from .units import Trials, Unit, units_of

CANDIDATES: tuple[str, ...] = ("fp16", "int8", "int8-weight-only", "int4")
"""Precisions that a unit may get; a float one is also what stays float around the integers."""

_SHOWN = 64  # points of the front that are kept
_TIMED = 6  # choices that are timed as a whole until one is within a budget of time


@dataclass(frozen=True)
class _Search:
    """What a search looks at. `seen`, `unseen`: the halves of the data. `others`: schemes of settled towers."""

    module: nn.Module
    host: Host
    budget: Budget
    trials: Trials
    seen: Inputs
    unseen: Inputs
    others: Mapping[str, Scheme]
    fallback: str

    @property
    def units(self) -> tuple[Unit, ...]:
        return self.trials.units

    @property
    def towers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit.tower for unit in self.units))

    def schemes(self, point: Point) -> dict[str, Scheme]:
        return {**self.others, **schemes_of(self.units, point.choice, self.trials.candidates, self.fallback)}


def mix(
    model: Any,
    budget: Mapping[str, float | str],
    *,
    precision: Precisions = MIXED,
    candidates: Sequence[Precision] | None = None,
    calibration: Calibration = None,
) -> Mixture:
    """Choose a precision for each block of `model` (a float one, which stays as it is) within `budget`.

    `budget`: {"max_drop": points}, {"max_size": "80MB"} or {"max_ms": milliseconds}; what each means: `Budget`.
    Sizes or milliseconds decide; of two precisions that cost the same, the more accurate one is chosen, so where speed
    counts, too, leave "int8-weight-only" out or give a budget of milliseconds.
    `precision`: "mixed", or {"image": "mixed", "text": "int8"} for a tower that is settled. `candidates`: precisions
    to choose from (default: `CANDIDATES`), of which one at most is float. `calibration`: as for `quantize`; half of it
    is kept for measuring what was chosen.
    Raises `BudgetError` naming the nearest that there is, where no choice is within the budget.
    """
    limit, chosen = Budget.of(budget), _candidates(candidates)
    module = unwrapped(model) if isinstance(model, nn.Module) else getattr(model, "module", model)
    host = find_host(module)
    towers, others = _asked(host.towers(module), precision)
    checked_towers(host, module, towers)
    inputs = inputs_of(model, with_answers(model, towers, calibration), calibration)
    halves = {tower: divided(batches) for tower, batches in inputs.items()}
    fallback = next((one.fallback for one in chosen.values() if one.is_float), "auto")
    with evaluating(module), torch.no_grad():
        install(module)
        seen, unseen = ({tower: one[i] for tower, one in halves.items()} for i in (0, 1))
        trials = Trials(module, host, units_of(module, host, towers), chosen, seen)
        return _found(_Search(module, host, limit, trials, seen, unseen, others, fallback))


def quantize(
    model: Any,
    precision: Precisions | None = None,
    *,
    fallback: str | None = None,
    calibration: Calibration = None,
    budget: Mapping[str, float | str] | None = None,
    candidates: Sequence[Precision] | None = None,
) -> Any:
    """Quantize `model` in place and return it.

    `model`: an open_clip, transformers or timm module, a SentenceTransformer or feature getter of timm around one, or a
    `clipq.Model`. `precision`: a name ("int8", the default, "int8-weight-only", "fp16", ...), a `Scheme`, or {"image":
    ..., "text": ...}. `fallback`: the precision of what stays float in an int8 tower ("fp32", "fp16", "bf16"; default:
    fp16 where the device computes it natively). `calibration`: what the numbers of a precision that looks at inputs are
    chosen by, for one tower or {"image": ..., "text": ...}: see `clipq.methods.calibration`.
    `budget`, `candidates`: choose the precision of each block within a budget, as `clipq.mix` does, which also tells
    what else there was to choose from. `precision` may then settle a tower: {"image": "mixed", "text": "int8"}.

    Raises `QuantizationError` for a model of an unknown library, one that is quantized already, or a weight that is
    not finite (nothing has been changed then), `BudgetError` for a budget that cannot be met. Warns, naming them, if
    weights stay float that should not.
    """
    if budget is None:
        if candidates is not None:
            raise SchemeError(
                "candidates are what a budget chooses from; give a budget with them, or a precision alone."
            )
        return quantization.quantize(
            model, "int8" if precision is None else precision, fallback=fallback, calibration=calibration
        )
    if fallback is not None:
        raise SchemeError(f"fallback={fallback!r} is not for a budget: name {fallback!r} among the candidates instead.")
    found = mix(model, budget, precision=precision or MIXED, candidates=candidates, calibration=calibration)
    return quantize_as(model, found, calibration)


def quantize_as(model: Any, found: Mixture, calibration: Calibration) -> Any:
    """Quantize `model` in place as a search has found, its steps on `calibration` where they look at inputs."""
    looks = {tower for tower, scheme in found.schemes.items() if is_calibrated(scheme)}
    if isinstance(calibration, Mapping):
        calibration = {tower: one for tower, one in calibration.items() if tower in looks} or None
    return quantization.quantize(model, found.schemes, calibration=calibration if looks else None)


def _candidates(given: Sequence[Precision] | None) -> dict[str, Scheme]:
    schemes = [resolve(one) for one in (CANDIDATES if given is None else given)]
    floats = [one.name for one in schemes if one.is_float]
    if len(floats) > 1 or len(schemes) < 2 or len({one.name for one in schemes}) < len(schemes):
        raise SchemeError(
            f"candidates {[one.name for one in schemes]} are not allowed; give two or more different ones, of "
            "which one at most is float: what stays float in a tower has one precision."
        )
    for one in schemes:
        if any(own.is_float for _, own in one.exceptions) or (one.embeddings is None and not one.is_float):
            raise SchemeError(f"candidate {one.name!r} leaves modules float; what does that is a candidate of its own.")
    if len(steps := {one.steps for one in schemes if one.steps}) > 1:
        raise SchemeError(
            f"candidates have different steps, {' and '.join(map(str, sorted(steps)))}, but a tower's numbers are "
            "chosen in one way; give candidates with the same steps, or without any."
        )
    return {one.name: one for one in schemes}


def _asked(own: Sequence[str], precision: Precisions) -> tuple[tuple[str, ...], dict[str, Scheme]]:
    """The towers to choose for, and the schemes of the others."""
    given = precision if isinstance(precision, Mapping) else dict.fromkeys(TOWERS, precision)
    mixed = tuple(tower for tower in own if given.get(tower) == MIXED)
    if not mixed:
        raise SchemeError(f"precision={precision!r} leaves nothing to a budget; give {MIXED!r} for at least one tower.")
    return mixed, {tower: resolve(given.get(tower, "fp32"), also=(MIXED,)) for tower in own if tower not in mixed}


def _found(search: _Search) -> Mixture:
    effects = measured(search.module, search.host, search.trials, search.seen)
    sizes, fixed_size = _sizes(search)
    costs, fixed = (_times(search)) if search.budget.kind == MAX_MS else (sizes, fixed_size)
    options = [
        [Option(name, costs[unit, name], effects.of(*_key(unit), name).kl) for name in _possible(search, unit)]
        for unit in search.units
    ]
    points = front(options, fixed)
    chosen, found = _CHOOSERS[search.budget.kind](search, points)
    shown = thinned(points, _SHOWN)
    shown = sorted({*shown, chosen}, key=lambda one: one.cost)
    bytes_of = [fixed_size + sum(sizes[u, n] for u, n in zip(search.units, p.choice, strict=True)) for p in shown]
    schemes = search.schemes(chosen)
    return Mixture(schemes, search.budget, search.units, tuple(shown), tuple(bytes_of), chosen, found, effects)


def _key(unit: Unit) -> tuple[str, str]:
    return unit.tower, unit.name


def _possible(search: _Search, unit: Unit) -> list[str]:
    return [name for name in search.trials.candidates if search.trials.can(unit, name)]


def _sizes(search: _Search) -> tuple[dict[tuple[Unit, str], float], float]:
    """Bytes of each unit in each precision, and of all else."""
    module, host, trials = search.module, search.host, search.trials
    device = next(module.parameters()).device
    dtype = fallback_dtype(replace(PRECISIONS["int8"], fallback=search.fallback), device)
    found = {
        (unit, name): trials.bytes_of(unit, name, dtype) for unit in search.units for name in _possible(search, unit)
    }
    fixed = sum(trials.other_bytes(tower, dtype) for tower in search.towers)
    fixed += sum(slot.tensor.nbytes for name, slot in slots(module).items() if host.tower_of(module, name) is None)
    for tower, scheme in search.others.items():
        own = Trials(module, host, units_of(module, host, [tower]), {scheme.name: replace(scheme, steps=())})
        kept = fallback_dtype(scheme, device)
        fixed += own.other_bytes(tower, kept) + sum(own.bytes_of(unit, scheme.name, kept) for unit in own.units)
    return found, fixed


def _times(search: _Search) -> tuple[dict[tuple[Unit, str], float], float]:
    ones = {tower: search.seen[tower][0][:1] for tower in search.towers}
    return unit_times(search.module, search.host, search.trials, ones)


def _difference(search: _Search, module: nn.Module, inputs: Inputs, exact: Mapping[str, torch.Tensor]) -> Difference:
    """Of what `module` makes of `inputs` now from fp32's embeddings: of the images where their tower is mixed."""
    now = {tower: embedded(module, search.host, tower, batches) for tower, batches in inputs.items()}
    tower = search.towers[0]
    moved = next((one for name, one in now.items() if name != tower), None)
    return Answers.of(exact, tower).difference(now[tower], moved)


def _embedded(search: _Search, inputs: Inputs) -> dict[str, torch.Tensor]:
    return {tower: embedded(search.module, search.host, tower, batches) for tower, batches in inputs.items()}


def _verified(search: _Search, point: Point) -> dict[str, float]:
    """What the model of a point, really quantized, is like on the data that was not seen."""
    copy = deepcopy(search.module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)  # said once, when the model itself is quantized
        quantization.quantize_module(copy, search.schemes(point), search.seen)
    found = _difference(search, copy, search.unseen, _embedded(search, search.unseen))
    size = sum(slot.tensor.nbytes for slot in slots(copy).values())
    values = {"drop": found.drop, "changed": found.changed, "cosine": found.cosine, "bytes": size}
    if search.budget.kind != MAX_MS:
        return values
    ones = {tower: search.unseen[tower][0][:1] for tower in search.towers}
    return {**values, "ms": sum(tower_time(copy, search.host, tower, one) for tower, one in ones.items())}


def _by_size(search: _Search, points: list[Point]) -> tuple[Point, dict[str, float]]:
    point = best(points, search.budget.limit)
    if point is None:
        raise search.budget.refusal(points[0].cost, "the smallest choice of these candidates")
    return point, _verified(search, point)


def _by_time(search: _Search, points: list[Point]) -> tuple[Point, dict[str, float]]:
    """The most accurate one whose time as a whole is within the budget: the sum of its parts is only about that."""
    limit, nearest = search.budget.limit, float("inf")
    for _ in range(_TIMED):
        point = best(points, limit) or points[0]
        found = _verified(search, point)
        if found["ms"] <= search.budget.limit:
            return point, found
        nearest = min(nearest, found["ms"])
        if point is points[0]:
            break
        limit = point.cost * min(search.budget.limit / found["ms"], 0.98)
    raise search.budget.refusal(nearest, "the fastest choice that was timed")


def _by_drop(search: _Search, points: list[Point]) -> tuple[Point, dict[str, float]]:
    """The cheapest one that stays within the budget on the seen half, and then on the other half, too."""
    points = thinned(points, _SHOWN)
    exact, limit = _embedded(search, search.seen), search.budget.limit
    low, high = 0, len(points) - 1
    while low < high:
        middle = (low + high) // 2
        with search.trials.tried(dict(zip(search.units, points[middle].choice, strict=True))):
            drop = _difference(search, search.module, search.seen, exact).drop
        low, high = (low, middle) if drop <= limit else (middle + 1, high)
    nearest, step = float("inf"), 1
    while True:
        found = _verified(search, points[low])
        if found["drop"] <= limit:
            return points[low], found
        nearest = min(nearest, found["drop"])
        if low == len(points) - 1:
            raise search.budget.refusal(nearest, "the most accurate choice of these candidates")
        low, step = min(low + step, len(points) - 1), 2 * step


_Chooser = Callable[[_Search, list[Point]], tuple[Point, dict[str, float]]]
_CHOOSERS: Mapping[str, _Chooser] = {MAX_SIZE: _by_size, MAX_MS: _by_time, MAX_DROP: _by_drop}
