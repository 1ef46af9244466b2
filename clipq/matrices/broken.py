"""The inputs of a folder of shards that have no row, as a table beside its manifest."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ..resources import output_path
from .folders import read_broken, read_manifest

BROKEN = "broken.parquet"
_ROWS = 10_000  # in memory at a time


def save_broken(folder: Path) -> None:
    """Write `broken.parquet`, columns "name" and "error", beside the manifest; or none, where all inputs have a row."""
    if not read_manifest(folder)["broken"]:
        (folder / BROKEN).unlink(missing_ok=True)
        return
    import pyarrow
    from pyarrow import parquet

    schema, found = pyarrow.schema([(name, pyarrow.string()) for name in ("name", "error")]), read_broken(folder)
    with output_path(folder / BROKEN) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while rows := list(islice(found, _ROWS)):
            columns = [[_text(row[place]) for row in rows] for place in (0, 1)]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _text(value: str) -> str:
    """As Unicode: a file name on Linux may be any bytes."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
