"""The tensors that a tower is put together from, by name, each of the shape and kind that its place needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .arrays import floats
from .blocks import ACTIVATIONS, ATTENTIONS, NORMS, ROTATIONS, Block, Matrix, Norm

Get = Callable[[str], np.ndarray | None]
"""The tensor of a name: float32, int8 or int64; None if there is none."""


class Tensors:
    """Reads parts of a description (see `clipq.native`). Raises `CheckpointError` for what does not fit.

    A description may come with a file from anywhere, so nothing of it is believed: names must name tensors, and these
    must have the shapes that make one tower.
    """

    def __init__(self, get: Get, origin: str, release: Callable[[], None] = lambda: None, most: int | None = None):
        """`release` is called once a part has been packed: what was read of it is not needed any more.

        `most`: bytes that may be read in all; a small file might name one tensor a million times.
        """
        self._get, self.origin, self.release, self._most, self._taken = get, origin, release, most, 0

    def wrong(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.origin}: {what}; the file is damaged. Get it again, or save the model again.")

    def part(self, table: Any, key: str, optional: bool = False) -> Any:
        """`table[key]`; None where it may be missing."""
        if not isinstance(table, Mapping):
            raise self.wrong(f"the tower's description has {table!r:.40} in place of a table with {key!r}")
        if key not in table and not optional:
            raise self.wrong(f"the tower's description has no {key!r}, only {sorted(table)!r:.80}")
        return table.get(key)

    def number(self, table: Any, key: str, least: int = 0, most: int = 1 << 20) -> int:
        value = self.part(table, key)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(f"{key} is {value!r:.40}; allowed are whole numbers from {least} to {most}")
        return value

    def one_of(self, table: Any, key: str, allowed: Iterable[str]) -> str:
        value = self.part(table, key)
        if value not in (known := list(allowed)):
            raise self.wrong(f"{key} is {value!r:.40}; allowed: {', '.join(known)}")
        return value

    def array(self, name: Any, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor called `name` in that shape (-1: any), which may have more axes of length 1."""
        found = self._get(name) if isinstance(name, str) else None
        if found is None:
            raise self.wrong(f"tensor {name!r:.80} is missing")
        known = [side for side in shape if side >= 0]
        size = int(np.prod(known, dtype=np.int64))
        fits = found.size == size if len(known) == len(shape) else size and found.size % size == 0
        if found.dtype != kind or not fits or found.size == 0:
            stated = f"{found.dtype} {list(found.shape)}, not {np.dtype(kind)} {list(shape)}"
            raise self.wrong(f"tensor {name!r} is {stated}")
        self._taken += found.nbytes
        if self._most is not None and self._taken > self._most:
            raise self.wrong(f"its towers name more than {self._most} bytes of tensors, which it does not have")
        return found.reshape(shape)

    def vector(self, name: Any, *shape: int) -> np.ndarray:
        """float32, contiguous."""
        return floats(self.array(name, np.float32, shape))

    def maybe(self, table: Any, key: str, *shape: int) -> np.ndarray | None:
        name = self.part(table, key, optional=True)
        return None if name is None else self.vector(name, *shape)

    def norm(self, table: Any, width: int) -> Norm:
        weight, bias = (self.vector(self.part(table, key), width) for key in ("weight", "bias"))
        return Norm(weight, bias, self._eps(table))

    def _eps(self, table: Any) -> float:
        eps = self.part(table, "eps")
        if type(eps) not in (int, float) or not isfinite(eps) or not 0 <= eps < 1:
            raise self.wrong(f"eps of a norm is {eps!r:.40}; allowed are numbers from 0 to 1")
        return float(eps)

    def block_norm(self, table: Any, width: int) -> Norm:
        """A norm within a block: of any kind, perhaps without a bias."""
        kind = self.one_of(table, "kind", NORMS) if self.part(table, "kind", optional=True) else "layer"
        weight = self.vector(self.part(table, "weight"), width)
        return Norm(weight, self.maybe(table, "bias", width), self._eps(table), kind)

    def matrix(self, table: Any, outputs: int, inputs: int) -> Matrix:
        """An int8 linear [outputs, inputs] (-1: as many as there are)."""
        weight = self._rows(table, self.array(self.part(table, "weight"), np.int8, (-1, inputs)))
        if outputs not in (-1, len(weight)):
            raise self.wrong(f"tensor {table['weight']!r} has {len(weight)} rows, not {outputs}")
        scale = self.vector(self.part(table, "scale"), -1)
        scale = np.repeat(scale, len(weight)) if scale.size == 1 else self._rows(table, scale)
        bias = self.maybe(table, "bias", -1)
        bias = None if bias is None else self._rows(table, bias)
        if len(scale) != len(weight) or (bias is not None and len(bias) != len(weight)):
            raise self.wrong(f"the scales or the bias of {table['weight']!r} are not one for each of its rows")
        if not np.isfinite(scale).all():
            raise self.wrong(f"scales of {table['weight']!r} are not finite")
        return Matrix(weight, scale, bias, *self._range(table), symmetric=bool(self.part(table, "symmetric")))

    def _rows(self, table: Any, values: np.ndarray) -> np.ndarray:
        rows = self.part(table, "rows", optional=True)
        if rows is None:
            return values
        if not isinstance(rows, list) or len(rows) != 2:
            raise self.wrong(f"rows {rows!r:.40} of {table['weight']!r} are not a first and a last one")
        first, last = self.number({"rows": rows[0]}, "rows"), self.number({"rows": rows[1]}, "rows")
        if not first < last <= len(values):
            raise self.wrong(f"rows {rows!r:.40} of {table['weight']!r} do not exist")
        return values[first:last]

    def _range(self, table: Any) -> tuple[float, int]:
        name = self.part(table, "input_scale", optional=True)
        if name is None:
            return 0.0, 0
        scale = float(self.vector(name, 1)[0])
        if not (isfinite(scale) and scale > 0):
            raise self.wrong(f"tensor {name!r} has a scale that is not positive")
        zero = self.part(table, "input_zero_point", optional=True)
        return scale, 0 if zero is None else int(self.array(zero, np.int8, (1,))[0])

    def block(self, table: Any, width: int) -> Block:
        qkv = self.part(table, "qkv")
        if not isinstance(qkv, list) or len(qkv) not in (1, 3):
            raise self.wrong("the query, key and value of a block are neither one matrix nor three")
        parts = [self.matrix(one, 3 * width // len(qkv), width) for one in qkv]
        gated = bool(self.part(table, "gated", optional=True))
        fc1 = self._inner(table, width)
        hidden, odd = divmod(len(fc1.weight), 1 + gated)
        heads = self.number(table, "heads", 1, width)
        rotation = self.one_of(table, "rotation", ROTATIONS) if self.part(table, "rotation", optional=True) else "none"
        if width % heads:
            raise self.wrong(f"a width of {width} is not divided by {heads} heads")
        if odd or (rotation != "none" and width // heads % 2):
            raise self.wrong(f"{len(fc1.weight)} rows of fc1, or a head of {width // heads}, are no two halves")
        sizes = {"q_norm": width // heads, "k_norm": width // heads, "attn_norm": width, "mlp_norm": hidden}
        norms = {role: self.block_norm(table[role], size) for role, size in sizes.items() if table.get(role)}
        return Block(
            heads=heads,
            attention=self.one_of(table, "attention", ATTENTIONS) if "attention" in table else "float",
            ln_1=self.block_norm(self.part(table, "ln_1"), width),
            qkv=parts[0] if len(parts) == 1 else _joined(parts),
            out_proj=self.matrix(self.part(table, "out_proj"), width, width),
            ln_2=self.block_norm(self.part(table, "ln_2"), width),
            fc1=fc1,
            activation=self.one_of(table, "activation", ACTIVATIONS),
            fc2=self.matrix(self.part(table, "fc2"), width, hidden),
            ls_1=self.maybe(table, "ls_1", width),
            ls_2=self.maybe(table, "ls_2", width),
            gated=gated,
            rotation=rotation,
            **norms,
        )

    def _inner(self, table: Any, width: int) -> Matrix:
        """What a block's MLP begins with: one matrix, or two of a gated one."""
        fc1 = self.part(table, "fc1")
        if not isinstance(fc1, list):
            return self.matrix(fc1, -1, width)
        if len(fc1) not in (1, 2):
            raise self.wrong(f"the MLP of a block begins with {len(fc1)} matrices, neither one nor two")
        parts = [self.matrix(one, -1, width) for one in fc1]
        return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[Matrix]) -> Matrix:
    """Query, key and value, or gate and value, as one matrix."""
    first = parts[0]
    biases = [np.zeros(len(one.weight), np.float32) if one.bias is None else one.bias for one in parts]
    weight, scale = (np.concatenate([getattr(one, name) for one in parts]) for name in ("weight", "scale"))
    return Matrix(weight, scale, np.concatenate(biases), first.input_scale, first.input_zero_point, first.symmetric)
