"""Text towers in the native library: token ids to embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import steps
from .stacks import Stack
from .tensors import Tensors

POOLS = ("argmax", "end", "last", "first")
_MOST_TOKENS = 1 << 16


class TextTower:
    """Token ids to embeddings; equal texts are computed once."""

    def __init__(self, tensors: Tensors, table: Mapping[str, Any]):
        self.context = tensors.number(table, "context", 1, _MOST_TOKENS)
        self.vocabulary = tensors.number(table, "vocabulary", 1, 1 << 24)
        tokens = tensors.part(table, "tokens")
        scaled = tensors.part(tokens, "scale", optional=True) is not None
        kind = np.int8 if scaled else np.float32
        self._table = tensors.array(tensors.part(tokens, "weight"), kind, (self.vocabulary, -1))
        self._scale = tensors.vector(tokens["scale"], self.vocabulary) if scaled else None
        self.width = self._table.shape[1]
        self._positions = tensors.vector(tensors.part(table, "positions"), self.context, self.width)
        self._causal = bool(tensors.part(table, "causal"))
        pool = tensors.part(table, "pool")
        self._pool = tensors.one_of(pool, "kind", POOLS)
        self._end = tensors.number(pool, "id", 0, self.vocabulary - 1) if self._pool == "end" else 0
        self._stack = Stack(tensors, table, self.width, 1)

    @property
    def outputs(self) -> int:
        return self._stack.outputs

    def __call__(self, ids: np.ndarray, threads: int) -> np.ndarray:
        """int64 [batch, tokens], at most `context`, all below `vocabulary`, to [batch, outputs].

        Of a causal tower nothing after the token that is read is computed; rows lie end to end without padding.
        """
        places, which = distinct(row.tobytes() for row in ids)
        return self._encode(ids, threads) if len(places) == len(ids) else self._encode(ids[places], threads)[which]

    def _encode(self, ids: np.ndarray, threads: int) -> np.ndarray:
        pooled = self._read_at(ids)
        lengths = pooled + 1 if self._causal else np.full(len(ids), ids.shape[1], np.int64)
        used = np.arange(ids.shape[1]) < lengths[:, None]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = self._embed(np.ascontiguousarray(ids[used]), threads)
        rows += self._positions[np.nonzero(used)[1]]
        return self._stack.run(rows, offsets, self._causal, offsets[:-1] + pooled, threads)

    def _embed(self, ids: np.ndarray, threads: int) -> np.ndarray:
        if self._scale is None:
            return np.ascontiguousarray(self._table[ids])
        return steps.gather_rows(self._table, self._scale, ids, threads)

    def _read_at(self, ids: np.ndarray) -> np.ndarray:
        """The place of the token that is read in each text, int64 [batch]."""
        if self._pool == "argmax":
            return ids.argmax(axis=1)
        if self._pool == "end":
            return (ids == self._end).argmax(axis=1)
        return np.full(len(ids), ids.shape[1] - 1 if self._pool == "last" else 0, np.int64)


def distinct(rows: Iterable) -> tuple[list[int], list[int]]:
    """Of hashable `rows`: where each different one stands first, and for each row which of those it equals."""
    first: dict = {}
    which, places = [], []
    for place, row in enumerate(rows):
        index = first.setdefault(row, len(first))
        if index == len(places):
            places.append(place)
        which.append(index)
    return places, which
