"""Whether an index says of itself that it lies in a model's own space, and else what it says is different."""

from __future__ import annotations

from ..indexes import Index
from ..inputs.listing import Inputs
from ..models import Model
from ..same_space import space_of
from ..spaces.space import space_in


def differences(index: Index, model: Model, inputs: Inputs) -> list[str] | None:
    """What differs between the space that the index states and that of the model's vectors of `inputs`, in words: none
    for the very same space. None if the index states no space.

    Raises `SpaceError` for a statement that was altered.
    """
    stated = space_in(index.about, str(index.path))
    if stated is None:
        return None
    own = space_of(model, inputs.tower, decode=inputs.decode, normalized=stated.components["normalized"])
    return stated.differences(own)
