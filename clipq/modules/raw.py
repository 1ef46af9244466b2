"""The weights of a model's tower as a hash, computed again only after somebody has changed them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..spaces.tensors import RawTensor, digest, of_tower
from .state import slots

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
}
"""As safetensors calls them in a header."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_Stamp = list[tuple[Any, int]]
_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple, tuple[_Stamp, str]]] = weakref.WeakKeyDictionary()


def weights_digest(module: nn.Module, host: str, towers: Sequence[str], tower: str, fallback: str) -> str:
    """sha256 (hex) of the weights of `tower`, as `spaces.tensors.digest` has it.

    Hashed once for a model that nobody trains: a tensor replaced, or changed in place, is noticed. What is changed
    behind torch's back (`tensor.data`) is not.
    """
    tensors = {name: slot.tensor for name, slot in slots(module).items()}
    key, stamp = (tower, fallback), _stamp(tensors.values())
    known = _KNOWN.setdefault(module, {}).get(key)
    if known is not None and stamp is not None and _is_same(known[0], stamp):
        return known[1]
    found = digest(of_tower([_raw(*one) for one in tensors.items()], host, towers, tower), fallback)
    if stamp is not None:
        _KNOWN[module][key] = stamp, found
    return found


def _raw(name: str, tensor: Tensor) -> RawTensor:
    def read() -> Any:
        return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    return RawTensor(name, _NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), read)


def _stamp(tensors: Iterable[Tensor]) -> _Stamp | None:
    """What changes whenever a tensor does; None where that cannot be told, or training will change them."""
    found = []
    for tensor in tensors:
        if tensor.requires_grad or tensor.is_inference():
            return None
        found.append((weakref.ref(tensor), tensor._version))
    return found


def _is_same(one: _Stamp, other: _Stamp) -> bool:
    """A tensor that is gone is no other's equal, even where another lies in its place."""
    same = len(one) == len(other)
    return same and all(a() is b() and v == w for (a, v), (b, w) in zip(one, other, strict=True))
