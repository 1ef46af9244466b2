"""Parquet tables of little pictures."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

_DIFFERENT = 2000  # pictures; longer tables repeat them
_BROKEN = 1000  # one row in so many


def make_table(folder: Path, count: int, side: int, rows: int = 10_000) -> None:
    """`count` rows with an "id" and an "image": JPEGs of `side` x `side` coloured blocks, one in a thousand broken.

    rows: of a file; a row group has 500.
    """
    folder.mkdir(parents=True)
    pictures = _pictures(min(count, _DIFFERENT), side)
    for start in range(0, count, rows):
        ids = range(start, min(start + rows, count))
        images = [b"broken" if row % _BROKEN == 123 else pictures[row % len(pictures)] for row in ids]
        table = pyarrow.table({"id": [f"row {row:09d}" for row in ids], "image": images})
        parquet.write_table(table, folder / f"{start // rows:06d}.parquet", row_group_size=500, compression="none")


def _pictures(count: int, side: int) -> list[bytes]:
    numbers, found = np.random.default_rng(0), []
    for _ in range(count):
        file = io.BytesIO()
        blocks = Image.fromarray(numbers.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        blocks.resize((side, side), 3).save(file, "JPEG")
        found.append(file.getvalue())
    return found


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of all files of a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
