"""What a mixed model may cost, and the error where nothing can cost so little."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BudgetError, SchemeError, unknown_name

MAX_DROP, MAX_SIZE, MAX_MS = "max_drop", "max_size", "max_ms"
KINDS = (MAX_DROP, MAX_SIZE, MAX_MS)
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Budget:
    """One limit.

    max_drop: points of top-1 accuracy that may be lost, as `differences.Difference.drop` estimates them without labels.
    max_size: bytes of all tensors of the model; its file has a header of some kilobytes more, and its tokenizer.
    max_ms: milliseconds on this machine for one input of each mixed tower, one after the other.
    """

    kind: str
    limit: float

    @classmethod
    def of(cls, given: Mapping[str, float | str]) -> Budget:
        """From {"max_drop": 0.3}, {"max_size": "80MB"} (or bytes) or {"max_ms": 12}. Raises `SchemeError`."""
        if not isinstance(given, Mapping) or len(given) != 1:
            raise SchemeError(
                f"budget={given!r} is not allowed; give one of {', '.join(KINDS)}: {{'max_size': '80MB'}}."
            )
        ((kind, limit),) = given.items()
        if kind not in KINDS:
            raise unknown_name("budget", kind, KINDS)
        if kind == MAX_SIZE and isinstance(limit, str):
            limit = _bytes(limit)
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit) or limit < 0:
            raise SchemeError(f"{kind}={limit!r} is not allowed; give a number that is not negative.")
        return cls(kind, float(limit))

    def shown(self, value: float | None = None) -> str:
        """The limit, or another value of its kind, as people write it."""
        value = self.limit if value is None else value
        if self.kind == MAX_SIZE:
            return f"{value / 1e6:.2f} MB"
        return f"{value:.3f} points" if self.kind == MAX_DROP else f"{value:.2f} ms"

    def refusal(self, nearest: float, what: str) -> BudgetError:
        """The error where `what` is the nearest that there is, and needs `nearest`."""
        return BudgetError(
            f"a budget of {self.kind}={self.shown()} cannot be met: {what} has {self.shown(nearest)}. Give at least "
            "that, or other candidates."
        )


def _bytes(text: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if not found:
        raise SchemeError(f"max_size={text!r} is not allowed; give bytes as a number, or a text such as '80MB'.")
    if found[2] not in _BYTES:
        raise unknown_name("unit of size", found[2], _BYTES)
    return float(found[1]) * _BYTES[found[2]]
