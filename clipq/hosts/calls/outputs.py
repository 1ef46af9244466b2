"""transformers' outputs of which the hidden states of all tokens are computed when they are asked for.

An embedding needs one token's; the others would cost most of the time of a short text in a long context. What comes
back is of the host's class, and complete to whoever looks at it: `last_hidden_state`, `[0]`, `to_tuple()`, `items()`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

_LATER = "_last_hidden_state_later"
_FIELD = "last_hidden_state"


def unfinished(kind: type[ModelOutput], later: Callable[[], Tensor], **ready: Tensor) -> ModelOutput:
    """A `kind` with the fields `ready`; `later` gives its `last_hidden_state`, in the gradient mode of now."""
    output = _unfinished_kind(kind)(**{_FIELD: False}, **ready)  # a placeholder: fields keep their order
    output.__dict__[_LATER] = (kind, later, _mode_of_now())
    return output


def _mode_of_now() -> Callable[[], AbstractContextManager]:
    if torch.is_inference_mode_enabled():
        return torch.inference_mode
    return torch.enable_grad if torch.is_grad_enabled() else torch.no_grad


def finish(output: ModelOutput) -> ModelOutput:
    """Compute what is missing; from then on `output` is a plain one of the host's class. Two threads may both do it."""
    if (later := vars(output).get(_LATER)) is not None:
        kind, compute, mode = later
        with mode():
            hidden = compute()
        kind.__setitem__(output, _FIELD, hidden)
        output.__class__ = kind
        vars(output).pop(_LATER, None)
    return output


class Unfinished:
    """Mixed into a host's class of outputs: whoever looks at more than the fields that are ready finishes it."""

    def __getattribute__(self, name: str) -> Any:
        if name == _FIELD:
            finish(self)
        return object.__getattribute__(self, name)  # `super()` is for an instance of this class, which it now is not


def _finishing(name: str) -> Callable:
    def method(self: ModelOutput, *arguments: Any, **options: Any) -> Any:
        return getattr(finish(self), name)(*arguments, **options)

    return method


_LOOKING = (
    *("__getitem__", "__iter__", "__reversed__", "__len__", "__contains__", "__eq__", "__ne__", "__or__", "__ror__"),
    *("__repr__", "__reduce__", "__reduce_ex__", "__sizeof__"),
    *("keys", "values", "items", "get", "copy", "to_tuple", "move_to_end"),
)
for _name in _LOOKING:
    setattr(Unfinished, _name, _finishing(_name))
Unfinished.__hash__ = None


@cache
def _unfinished_kind(kind: type[ModelOutput]) -> type[ModelOutput]:
    return type(kind.__name__, (Unfinished, kind), {"__module__": __name__})
