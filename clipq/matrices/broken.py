"""The inputs of a folder of shards that have no row, as a table beside its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..resources import output_path
from .files import read_file

BROKEN = "broken.parquet"


def save_broken(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write `broken.parquet`, columns "name", "error" and "shard" (the file's), if any of the shards has such inputs.

    entries: what `write_shard` said of each. One row group a shard, so that memory is for one of them.
    """
    if not any(entry["broken"] for entry in entries):
        return
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("name", "error", "shard")])
    with output_path(folder / BROKEN) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for shard, found in _of_shards(folder, entries):
            names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in found]
            columns = [names, [_text(why) for why in found.values()], [shard] * len(found)]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _of_shards(folder: Path, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, str]]]:
    for entry in entries:
        if entry["broken"]:
            yield entry["file"], read_file(folder / entry["file"]).broken


def _text(reason: str) -> str:
    return reason.encode("utf-8", "replace").decode()
