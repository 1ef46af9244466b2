"""What an engine says where making a unit again does not help."""

from __future__ import annotations

from ..errors import EngineError
from ..inputs.listing import Inputs

MOST_DEATHS = 3
"""Times that a unit's worker may die before the job ends."""


def died(inputs: Inputs, unit: range) -> EngineError:
    """The error for a unit whose worker died again and again."""
    first, last = inputs.label(unit.start), inputs.label(unit[-1])
    return EngineError(
        f"the worker that embeds inputs {unit.start + 1} to {unit.stop} ({first} to {last}) died {MOST_DEATHS + 1} "
        "times: mostly memory has run out. What is finished is kept: give the same command with fewer workers, or "
        "leave out what no worker survives."
    )
