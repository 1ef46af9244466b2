"""What building a file's architecture may cost: what the file itself can fill, and little more.

A header of a few kilobytes can ask for a hundred thousand layers. No list of the settings that do so would be complete,
so it is watched what the host builds instead: every tensor before it is made, and every module and parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import CheckpointError
from .header import Header

_FREE_NUMBER = 1 << 16  # token ids and the like, of which nothing is made
_FREE_ELEMENTS = 1 << 21  # of one tensor that is computed, such as the mask of 1448 places
_FREE_BYTES = 16 << 20  # of all buffers that are computed
_LARGEST_NUMBER = 1 << 20
_BUILDS = 4  # of a decoder that is dropped, again where the meta device does not do, then with quantized modules
_HARMLESS = ("_id", "_ids", "_index", "theta")  # how names end whose number counts nothing
_SWITCHES = ("output_hidden_states", "output_attentions", "return_dict", "use_return_dict", "use_cache")
_NAME = "model_type"
_DEPTH = 50
_LABELS = "num_labels"  # transformers makes a table of names of them, whatever the tensors

_IN_PLACE = (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
_IN_PLACE += (torch.ops.aten.zero_.default, torch.ops.aten.fill_.Scalar)
_NO_LARGER = (*_IN_PLACE, torch.ops.aten._to_copy.default, torch.ops.aten.detach.default)
"""The operations that building a model is made of; all others are looked at one by one."""


@dataclass(frozen=True)
class Limits:
    """What a file holds: bytes, tensors, elements of all and of the largest one, and the largest dimension."""

    size: int
    tensors: int
    elements: int
    largest: int
    dimension: int

    @classmethod
    def of(cls, header: Header) -> Limits:
        """Those of the file whose checked header this is."""
        tensors = [(name, entry["shape"]) for name, entry in header.tensors.items() if prod(entry["shape"])]
        counts = [prod(shape) * _share(name) for name, shape in tensors]
        dimensions = [number * _share(name) for name, shape in tensors for number in shape]
        return cls(header.size, len(header.tensors), sum(counts), max(counts, default=0), max(dimensions, default=0))


def _share(name: str) -> int:
    """How many values there may be for each element of a tensor: 2 bits are the fewest that are packed into bytes."""
    return 4 if name.endswith("weight_packed") else 1


def check_numbers(header: Header) -> None:
    """Raise `CheckpointError` if a number of the architecture is larger than anything that the file holds.

    Or if a switch is no switch: transformers looks at these only when the model is called.
    """
    _check_end(header)
    dimension = min(Limits.of(header).dimension, _LARGEST_NUMBER)
    for name, number in _leaves(header.config["config"], "config"):
        if name.rpartition(".")[2] in _SWITCHES and type(number) not in (bool, type(None)):
            raise CheckpointError(f"{header.path}: {name} is {number!r}; allowed: true or false.")
        if name.endswith(_NAME) and not isinstance(number, str):
            raise CheckpointError(f"{header.path}: {name} is {number!r}; a name is needed.")
        if isinstance(number, float) and not isfinite(number):
            raise CheckpointError(f"{header.path}: {name} is {number}, which is no number that JSON has.")
        if not isinstance(number, int):
            continue
        allowed = _FREE_NUMBER if name.endswith(_LABELS) else max(dimension, _FREE_NUMBER)
        if name.endswith(_HARMLESS):
            allowed = 1 << 63
        if abs(number) > allowed:
            raise CheckpointError(
                f"{header.path}: {name} is {number}, but no tensor of the file has more than {dimension} rows or "
                f"columns (up to {allowed} is allowed). The file is forged or damaged; get it again."
            )


def _check_end(header: Header) -> None:
    """transformers' CLIP reads a text's embedding where the token is that ends it, and finds out at the first text."""
    config = header.config["config"]
    if str(config.get("class")).startswith("CLIPText"):
        text = config
    else:
        text = config.get("text_config") if str(config.get("class")) == "CLIPModel" else None
    if isinstance(text, Mapping) and type(text.get("eos_token_id", 0)) is not int:
        raise CheckpointError(f"{header.path}: eos_token_id is {text['eos_token_id']!r}; a token's number is needed.")


def _leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Names and values of all that is no table and no list; a switch is a leaf whatever it is."""
    if depth > _DEPTH:
        raise CheckpointError(f"the architecture's configuration is nested more than {_DEPTH} deep.")
    if name.rpartition(".")[2] in _SWITCHES or not isinstance(value, Mapping | list):
        yield name, value
        return
    named = (
        ((f"{name}.{key}", one) for key, one in value.items())
        if isinstance(value, Mapping)
        else ((name, one) for one in value)
    )
    for key, one in named:
        yield from _leaves(one, key, depth + 1)


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Within, this thread builds no more tensors, parameters and modules than `limits` can fill.

    Raises `CheckpointError` before what is too much is made.
    """
    with ExitStack() as stack:
        for hook, of_parts in ((_parameter_hook, "parameter"), (_module_hook, "module"), (_buffer_hook, "buffer")):
            register = getattr(registration, f"register_module_{of_parts}_registration_hook")
            stack.enter_context(_removed_after(register(_of_this_thread(hook(limits)))))
        stack.enter_context(_Foreseen(limits))
        yield


@contextmanager
def _removed_after(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _of_this_thread(hook: Callable[[Any], None]) -> Callable[..., None]:
    thread = threading.get_ident()

    def registered(module: nn.Module, name: str, part: Any) -> None:
        if threading.get_ident() == thread and part is not None:
            hook(part)

    return registered


class _Counter:
    """Raises when what was counted is more than `allowed`."""

    def __init__(self, what: str, allowed: int):
        self.what, self.allowed, self.count = what, allowed, 0

    def add(self, count: int = 1) -> None:
        self.count += count
        if self.count > self.allowed:
            raise CheckpointError(
                f"its configuration asks for more {self.what} than the file can fill (stopped at {self.count})."
            )


def _parameter_hook(limits: Limits) -> Callable[[Tensor], None]:
    count = _Counter("weights", 64 + _BUILDS * limits.tensors)
    elements = _Counter("elements of weights", 2 * _FREE_ELEMENTS + _BUILDS * limits.elements)

    def hook(parameter: Tensor) -> None:
        count.add()
        elements.add(parameter.numel())

    return hook


def _module_hook(limits: Limits) -> Callable[[nn.Module], None]:
    count = _Counter("modules", 1000 + 20 * _BUILDS * limits.tensors)
    return lambda module: count.add()


def _buffer_hook(limits: Limits) -> Callable[[Tensor], None]:
    count = _Counter("buffers", 64 + _BUILDS * limits.tensors)
    size = _Counter("bytes of buffers", _FREE_BYTES + 2 * limits.size)

    def hook(buffer: Tensor) -> None:
        count.add()
        size.add(0 if buffer.is_meta else buffer.nbytes)

    return hook


class _Foreseen(TorchDispatchMode):
    """Runs every operation of torch on the meta device first, to see how large its results would be."""

    def __init__(self, limits: Limits):
        super().__init__()
        self.largest = max(limits.largest, _FREE_ELEMENTS)
        self.operations = _Counter("computing", 4000 + 100 * limits.tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.operations.add()
        if func is torch.ops.aten.empty.memory_format:
            self._allow(prod(args[0]))
        elif func in _IN_PLACE and args[0].is_meta:
            return args[0]  # initial values of weights that are to be read from the file
        elif not (func in _NO_LARGER or any(isinstance(one, Tensor) and one.is_meta for one in args)):
            self._foresee(func, args, dict(kwargs))
        return func(*args, **kwargs)

    def _foresee(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs["device"] = torch.device("meta")
        try:
            results = tree_flatten(func(*tree_map(_on_meta, args), **tree_map(_on_meta, kwargs)))[0]
        except RuntimeError:  # its results depend on values, and are no larger than its inputs
            return
        self._allow(max((result.numel() for result in results if isinstance(result, Tensor)), default=0))

    def _allow(self, elements: int) -> None:
        if elements > self.largest:
            raise CheckpointError(
                f"its configuration asks for a tensor of {elements} elements; at most {self.largest} are allowed, as "
                "in its file."
            )


def _on_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
