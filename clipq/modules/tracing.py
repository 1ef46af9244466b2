"""Int8 modules as leaves of `torch.fx` graphs, as torch's own layers are: a graph calls them and looks no further."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch import nn
from torch.fx import Proxy, Tracer

from ..errors import QuantizationError

_Forward = TypeVar("_Forward", bound=Callable[..., Any])


def fx_leaf(forward: _Forward) -> _Forward:
    """A `forward` that, where `torch.fx` traces it, records one call of its module.

    A tracer takes for leaves what it is told and what is defined within torch; what is recorded here is what it would
    record for those. Raises `QuantizationError` for a module that is not part of what is traced.
    """

    @wraps(forward)
    def called(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        for value in args:
            if isinstance(value, Proxy):
                return _record(self, value, args, kwargs)
        for value in kwargs.values():
            if isinstance(value, Proxy):
                return _record(self, value, args, kwargs)
        return forward(self, *args, **kwargs)

    return called


def _record(module: nn.Module, value: Proxy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proxy:
    tracer = value.tracer
    path = tracer.path_of_module(module) if isinstance(tracer, Tracer) else ""
    if not path:
        raise QuantizationError(
            f"torch.fx records a call of a whole {type(module).__name__} and does not trace into it: "
            "trace a module that holds it, such as nn.Sequential(layer)."
        )
    return tracer.create_proxy("call_module", path, args, kwargs)
