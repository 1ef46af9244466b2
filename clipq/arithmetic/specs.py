"""How one tensor is quantized: `QuantSpec`.

The vocabulary is compressed-tensors': symmetric, granularity (there: strategy), dynamic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SchemeError, unknown_name

GRANULARITIES = ("tensor", "channel", "token", "group")
KINDS = ("int", "float")


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes int8 or, where `kind` is "float", fp8.

    `granularity` says what shares a scale: the whole tensor, an output channel (row of a weight [out, in]),
    a token (row of an activation [tokens, in]) or a group of `group_size` consecutive inputs within a row.
    Symmetric values use [-127, 127] and no zero point; asymmetric ones [-128, 127] and an int8 zero point.
    fp8 is e4m3 without infinities (Micikevicius et al., arXiv:2209.05433): up to 448, symmetric by nature.
    """

    symmetric: bool = True
    granularity: str = "channel"
    group_size: int | None = None
    bits: int = 8
    kind: str = "int"

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown_name("granularity", self.granularity, GRANULARITIES)
        if self.bits != 8:
            raise SchemeError(f"bits={self.bits} is not supported; clipq quantizes to 8 bits.")
        if not isinstance(self.symmetric, bool):
            raise SchemeError(f"symmetric={self.symmetric!r} is not allowed; give True or False.")
        if self.kind not in KINDS:
            raise unknown_name("kind of numbers", self.kind, KINDS)
        if self.kind == "float" and not (self.symmetric and self.bits == 8):
            raise SchemeError(
                'kind="float" is fp8, which has no zero point and 8 bits; leave symmetric=True and bits=8.'
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
        return -self.qmax if self.symmetric else -128

    @property
    def qmax(self) -> int:
        return 448 if self.kind == "float" else 127

    def to_dict(self) -> dict[str, Any]:
        """JSON values; without `kind` where it is "int", so that older versions read it."""
        values = asdict(self)
        return values if self.kind != "int" else {key: value for key, value in values.items() if key != "kind"}
