"""What engines refuse, how a worker's error is brought back, and what is said where trying again is no help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import ClipqError, EngineError, first_line
from ..inputs.listing import Inputs

MOST_DEATHS = 3
"""Times that a unit's worker may die before the job ends."""


def check_counts(**counts: int | None) -> None:
    """Raise `EngineError` for a number of workers, or of threads, that is none; None is left to the engine."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise EngineError(f"{name}={count!r} cannot be; give a whole number >= 1, or None for what there is.")


def told(error: Exception, engine: str) -> dict[str, str]:
    """An error in a worker as JSON, for engines that do not bring it back as it is; see `check_told`."""
    if isinstance(error, ClipqError):
        return {"error": type(error).__name__, "message": str(error)}
    message = f"a worker of {engine} failed: {type(error).__name__}: {first_line(error)}"
    return {"error": EngineError.__name__, "message": message}


def check_told(found: Mapping[str, Any]) -> None:
    """Raise the error that is told of, if one is."""
    if "error" in found:
        raise getattr(errors, found["error"])(found["message"])


def died(inputs: Inputs, unit: range) -> EngineError:
    """The error for a unit whose worker died again and again."""
    first, last = inputs.label(unit.start), inputs.label(unit[-1])
    return EngineError(
        f"the worker that embeds inputs {unit.start + 1} to {unit.stop} ({first} to {last}) died {MOST_DEATHS + 1} "
        "times: mostly memory has run out. What is finished is kept: give the same command with fewer workers, or "
        "leave out what no worker survives."
    )
