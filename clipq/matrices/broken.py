"""The inputs of a folder of shards that have no row, as a table beside its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ..resources import output_path
from .folders import read_broken, read_manifest
from .parquet import as_text

BROKEN = "broken.parquet"
_ROWS = 10_000  # in memory at a time


def save_broken(folder: Path) -> None:
    """Write `broken.parquet`, columns "name" and "error", beside the manifest; or none, where all inputs have a row."""
    if not read_manifest(folder)["broken"]:
        (folder / BROKEN).unlink(missing_ok=True)
        return
    with output_path(folder / BROKEN) as temporary:
        broken_table(read_broken(folder), temporary)


def broken_table(rows: Iterable[tuple[str, str]], path: Path) -> int:
    """Write the names and the errors of some inputs; how many there are."""
    import pyarrow
    from pyarrow import parquet

    schema, count = pyarrow.schema([(name, pyarrow.string()) for name in ("name", "error")]), 0
    left = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(left, _ROWS)):
            columns = [[as_text(row[place]) for row in some] for place in (0, 1)]
            writer.write_table(pyarrow.table(columns, schema=schema))
            count += len(some)
    return count
