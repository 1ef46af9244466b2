"""Static ranges: what the inputs of each linear span, measured once on calibration data instead of at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from ..arithmetic.observers import Observer, qparams
from ..errors import QuantizationError
from .work import Floats, Work


def observe(make: type[Observer]) -> Callable[[Work], None]:
    """The step that gives each static linear the range that an observer of the kind `make` finds for its inputs.

    Raises `QuantizationError`, naming the linear, for one that no input came to or whose inputs are not finite.
    """
    return lambda work: _observe(work, make)


def _observe(work: Work, make: type[Observer]) -> None:
    observers = {first: make() for first in _sharing(work)}

    reached = set()

    def see(one: Floats, rows: Tensor, gradients: Tensor | None = None) -> None:
        reached.add(one)
        with _named(one):
            observers[one].see(*((rows,) if gradients is None else (rows, gradients.cpu().double().square())))

    chosen = list(observers)
    if make.weighted:
        work.observe_gradients(chosen, see)
    else:
        work.observe(chosen, see, every_row=True)
    for first, others in _sharing(work).items():
        if first not in reached:
            raise QuantizationError(
                f"{first.name}: no calibration input came to it, so its range is not known; calibrate on inputs that "
                "use it, or keep it float by an exception of the scheme."
            )
        with _named(first):
            scale, zero_point = qparams(observers[first], first.layer.activations)
        for one in (first, *others):
            one.static = (scale, zero_point)


@contextmanager
def _named(one: Floats) -> Iterator[None]:
    """Names the linear in what is raised within."""
    try:
        yield
    except QuantizationError as error:
        raise QuantizationError(f"{one.name}: {error}") from error


def _sharing(work: Work) -> dict[Floats, list[Floats]]:
    """The static linears to look at, and for each those that get the same inputs: a block's query, key and value.

    They are one product where a whole block is one call, so that they have to share a range. Of these the values'
    projection is looked at: where only one row is read in the end, the queries of the others are not computed.
    """
    followers = {}
    for block in work.blocks():
        *others, values = (work.floats[linear] for linear in block.qkv)
        followers[values] = others
    static = [one for one in work.floats.values() if one.is_static]
    led = {one for others in followers.values() for one in others}
    return {one: [other for other in followers.get(one, []) if other.is_static] for one in static if one not in led}
