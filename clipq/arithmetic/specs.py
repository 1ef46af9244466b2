"""How one tensor is quantized: `QuantSpec`.

The vocabulary is compressed-tensors': symmetric, granularity (there: strategy), dynamic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SchemeError, unknown_name

GRANULARITIES = ("tensor", "channel", "token", "group")


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes int8.

    `granularity` says what shares a scale: the whole tensor, an output channel (row of a weight [out, in]),
    a token (row of an activation [tokens, in]) or a group of `group_size` consecutive inputs within a row.
    `dynamic`, of activations: whether their range is measured at run time. A static one was measured on calibration
    data and is the same for all rows, so that `granularity` is "tensor".
    Symmetric values use [-127, 127] and no zero point; asymmetric ones [-128, 127] and an int8 zero point.
    """

    symmetric: bool = True
    granularity: str = "channel"
    group_size: int | None = None
    bits: int = 8
    dynamic: bool = True

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown_name("granularity", self.granularity, GRANULARITIES)
        if self.bits != 8:
            raise SchemeError(f"bits={self.bits} is not supported; clipq quantizes to 8 bits.")
        if not isinstance(self.symmetric, bool):
            raise SchemeError(f"symmetric={self.symmetric!r} is not allowed; give True or False.")
        if not isinstance(self.dynamic, bool):
            raise SchemeError(f"dynamic={self.dynamic!r} is not allowed; give True or False.")
        if not self.dynamic and self.granularity != "tensor":
            raise SchemeError(
                f'dynamic=False with granularity={self.granularity!r} is not supported; use granularity="tensor": '
                "a range that was measured before is the same for all rows."
            )
        if (self.granularity == "group") != (self.group_size is not None):
            raise SchemeError(
                f"granularity={self.granularity!r} with group_size={self.group_size}: "
                'give group_size (a positive integer) with granularity="group", and only there.'
            )
        if self.group_size is not None and (type(self.group_size) is not int or self.group_size < 1):
            raise SchemeError(f"group_size={self.group_size!r} is not allowed; give a positive integer such as 64.")

    @property
    def qmin(self) -> int:
        return -127 if self.symmetric else -128

    @property
    def qmax(self) -> int:
        return 127

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `dynamic` only where it is False, so that older versions read the rest."""
        return {key: value for key, value in asdict(self).items() if key != "dynamic" or not value}
