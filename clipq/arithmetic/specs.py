"""How one tensor is quantized: `QuantSpec`.

The vocabulary is compressed-tensors': symmetric, granularity (there: strategy), dynamic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import SchemeError, unknown_name

GRANULARITIES = ("tensor", "channel", "token", "group")
BITS = (8, 4, 3, 2)
CODEBOOKS = ("nf4", "kmeans")
GROUP_SIZE_FALLBACKS = ("error", "keep", "adjust")
MIN_GROUP = 16
"""The smallest group that "adjust" chooses: below it, scales take over a bit for each weight."""

KINDS = ("int", "float")
_FP8_MAX = 448
_LATER = ("kind", "dynamic", "float_zero_point", "codebook", "group_size_fallback")
"""Fields that older versions do not know."""


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes integers of 8, 4, 3 or 2 bits or, where `kind` is "float", fp8.

    `granularity` says what shares a scale: the whole tensor, an output channel (row of a weight [out, in]),
    a token (row of an activation [tokens, in]) or a group of `group_size` consecutive inputs within a row.
    Symmetric values of 8 bits use [-127, 127], of b < 8 bits all of [-2^(b-1), 2^(b-1) - 1], and have no zero point;
    asymmetric ones use all of that range and have a zero point in it. `float_zero_point`: that is no integer but a
    real number, kept in float16, as HQQ has it.

    fp8 is e4m3 without infinities (Micikevicius et al., arXiv:2209.05433): up to 448, symmetric by nature.
    `codebook`: values that are no multiples of a scale; an integer is then the place of a value. "nf4": QLoRA's 16
    quantiles of a normal distribution (Dettmers et al., arXiv:2305.14314), times a scale. "kmeans": the centres of the
    tensor's (or channel's) own weights, which are stored.
    `group_size_fallback`: for a width that the group size does not divide, as OpenVINO has it: "error"; "keep": that
    weight becomes int8, one scale a channel; "adjust": the largest divisor of the width that is no larger than the
    group size, and "keep" where that is below `MIN_GROUP`.
    `dynamic`, of activations: whether their range is measured at run time. A static one was measured on calibration
    data and is the same for all rows, so that `granularity` is "tensor".
    """

    symmetric: bool = True
    granularity: str = "channel"
    group_size: int | None = None
    bits: int = 8
    float_zero_point: bool = False
    codebook: str | None = None
    group_size_fallback: str = "error"
    dynamic: bool = True
    kind: str = "int"

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown_name("granularity", self.granularity, GRANULARITIES)
        if type(self.bits) is not int or self.bits not in BITS:
            raise SchemeError(f"bits={self.bits!r} is not supported; give one of {', '.join(map(str, BITS))}.")
        if not isinstance(self.symmetric, bool):
            raise SchemeError(f"symmetric={self.symmetric!r} is not allowed; give True or False.")
        if not isinstance(self.dynamic, bool):
            raise SchemeError(f"dynamic={self.dynamic!r} is not allowed; give True or False.")
        if not self.dynamic and self.granularity != "tensor":
            raise SchemeError(
                f'dynamic=False with granularity={self.granularity!r} is not supported; use granularity="tensor": '
                "a range that was measured before is the same for all rows."
            )
        if self.float_zero_point is not False and (self.float_zero_point is not True or not self._may_be_real()):
            raise SchemeError(
                f"float_zero_point={self.float_zero_point!r} is not allowed here; it is for asymmetric integers of "
                "fewer than 8 bits."
            )
        if (self.granularity == "group") != (self.group_size is not None):
            raise SchemeError(
                f"granularity={self.granularity!r} with group_size={self.group_size}: "
                'give group_size (a positive integer) with granularity="group", and only there.'
            )
        if self.group_size is not None and (type(self.group_size) is not int or self.group_size < 1):
            raise SchemeError(f"group_size={self.group_size!r} is not allowed; give a positive integer such as 64.")
        if self.kind not in KINDS:
            raise unknown_name("kind of numbers", self.kind, KINDS)
        if self.kind == "float" and (not self.symmetric or self.bits != 8 or self.codebook):
            raise SchemeError(
                'kind="float" is fp8, which has no zero point, no codebook and 8 bits; leave symmetric=True and bits=8.'
            )
        if self.group_size_fallback not in GROUP_SIZE_FALLBACKS:
            raise unknown_name("group_size_fallback", self.group_size_fallback, GROUP_SIZE_FALLBACKS)
        if self.codebook is not None:
            self._check_codebook()

    def _may_be_real(self) -> bool:
        return self.bits < 8 and not self.symmetric

    def _check_codebook(self) -> None:
        if self.codebook not in CODEBOOKS:
            raise unknown_name("codebook", self.codebook, CODEBOOKS)
        if self.bits == 8 or (self.codebook == "nf4" and self.bits != 4) or not self.symmetric:
            allowed = "bits=4" if self.codebook == "nf4" else "4, 3 or 2 bits"
            raise SchemeError(
                f"codebook={self.codebook!r} with bits={self.bits} and symmetric={self.symmetric}: "
                f"give {allowed} and symmetric=True; a codebook has no zero point."
            )
        if self.codebook == "kmeans" and self.granularity not in ("channel", "tensor"):
            raise SchemeError(
                f'codebook="kmeans" with granularity={self.granularity!r}: give "channel" or "tensor"; for fewer '
                "weights than that the centres take more room than the weights."
            )

    @property
    def qmin(self) -> int:
        if self.codebook:
            return 0
        if self.kind == "float":
            return -_FP8_MAX
        return -127 if self.symmetric and self.bits == 8 else -(1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        if self.kind == "float":
            return _FP8_MAX
        return (1 << self.bits) - 1 if self.codebook else (1 << (self.bits - 1)) - 1

    @property
    def is_packed(self) -> bool:
        """Whether several integers share a byte (`arithmetic.packing`)."""
        return self.bits < 8

    @property
    def stores_values(self) -> bool:
        """Whether what is stored beside the integers are their values, 2^bits a channel or tensor, and no scale."""
        return self.codebook == "kmeans"

    @property
    def has_half_scales(self) -> bool:
        """Whether its scales are float16 numbers wherever that is exact enough: those of many small groups."""
        return self.stores_values or (self.is_packed and self.granularity == "group")

    @property
    def label(self) -> str:
        """What its numbers are called: "int4", "nf4", "kmeans4"."""
        if self.kind == "float":
            return f"fp{self.bits}"
        return {None: f"int{self.bits}", "kmeans": f"kmeans{self.bits}"}.get(self.codebook, str(self.codebook))

    def fitted(self, width: int, name: str) -> QuantSpec:
        """The spec that rows of `width` values get, by `group_size_fallback`. Raises `SchemeError` for "error"."""
        if self.group_size is None or width % self.group_size == 0:
            return self
        if self.group_size_fallback == "error":
            raise SchemeError(
                f"{name} has {width} inputs, which do not divide into groups of {self.group_size}; choose a divisor, "
                'or group_size_fallback="adjust" or "keep".'
            )
        size = max(size for size in range(1, min(self.group_size, width) + 1) if width % size == 0)
        adjusts = self.group_size_fallback == "adjust" and size >= min(MIN_GROUP, self.group_size)
        return replace(self, group_size=size) if adjusts else QuantSpec()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; without what older versions do not know where it has its default, so that they read it."""
        default = QuantSpec()
        values = asdict(self)
        return {key: value for key, value in values.items() if key not in _LATER or value != getattr(default, key)}
