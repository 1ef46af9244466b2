"""Milliseconds of each unit in each precision, on this machine, for one input."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..hosts import Host
from ..methods.dtypes import DTYPES
from ..timing import alternate
from .encoding import blocks_of, embedded
from .units import Trials, Unit

RUNS = 5
_SAMPLE = 0.02  # seconds


def tower_time(module: nn.Module, host: Host, tower: str, one: Tensor) -> float:
    """Median milliseconds of a tower for an input [1, ...]."""
    return _median(lambda: embedded(module, host, tower, [one]), one.device)


def unit_times(
    module: nn.Module, host: Host, trials: Trials, inputs: Mapping[str, Tensor]
) -> tuple[dict[tuple[Unit, str], float], float]:
    """Of each unit in each precision that it can have; and of what runs beside them whatever is chosen.

    A block is called by itself with what comes to it. What is outside the blocks is what the whole tower takes longer.
    """
    found, rest = {}, 0.0
    for tower, one in inputs.items():
        units = {unit.name: unit for unit in trials.units if unit.tower == tower}
        calls = _arriving(module, host, tower, one)
        whole, inside = tower_time(module, host, tower, one), 0.0
        for name, unit in units.items():
            for precision in filter(lambda each, unit=unit: trials.can(unit, each), trials.candidates):
                if name in calls:
                    found[unit, precision] = _block_time(trials, unit, precision, *calls[name])
                else:
                    with trials.tried({unit: precision}):
                        found[unit, precision] = max(tower_time(module, host, tower, one) - whole, 0.0)
            if name in calls:
                inside += _median(_call(*calls[name]), one.device)
        rest += max(whole - inside, 0.0)
    return found, rest


def _block_time(trials: Trials, unit: Unit, precision: str, block: nn.Module, args: Any, kwargs: Any) -> float:
    scheme = trials.candidates[precision]
    device = next(block.parameters()).device
    if scheme.is_float:
        dtype = DTYPES[scheme.fallback]
        return _median(_call(deepcopy(block).to(dtype), _cast(args, dtype), _cast(kwargs, dtype)), device)
    with trials.tried({unit: precision}):
        return _median(_call(block, args, kwargs), device)


def _arriving(module: nn.Module, host: Host, tower: str, one: Tensor) -> dict[str, tuple[nn.Module, Any, Any]]:
    """Each block of a tower with the arguments that it gets for an input."""
    found: dict[str, tuple[nn.Module, Any, Any]] = {}
    handles = []
    for view in blocks_of(module, host, tower):

        def keep(block: nn.Module, args: Any, kwargs: Any, name: str = view.name) -> None:
            found[name] = (block, args, kwargs)

        handles.append(view.module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        embedded(module, host, tower, [one])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _call(block: nn.Module, args: Any, kwargs: Any) -> Callable[[], object]:
    return lambda: block(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(one, dtype) for one in value)
    return {key: _cast(one, dtype) for key, one in value.items()} if isinstance(value, dict) else value


def _median(call: Callable[[], object], device: torch.device) -> float:
    return statistics.median(alternate([call], RUNS, device, sample=_SAMPLE)[0])
