"""Whether an index says of itself that it lies in a model's own space."""

from __future__ import annotations

from ..indexes import Index
from ..inputs.listing import Inputs
from ..models import Model


def is_same_space(index: Index, model: Model, inputs: Inputs) -> bool:
    """Whether the index was made by the same weights in the same precision; False where it does not say."""
    about = index.about
    if about.get("tower") != inputs.tower or not index.exact:
        return False
    return about.get("fingerprint") == model.fingerprint()
