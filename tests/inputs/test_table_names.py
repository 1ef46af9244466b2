"""What the rows of tables are called, and whether their strings are places or texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from clipq.inputs.listing import Inputs


def table(path: Path, **columns: list) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_other_names_or_a_named_column_are_other_work(tmp_path):
    path = table(tmp_path / "t.parquet", text=["a", "b"], id=[1, 2], name=["x", "y"])
    asked = ({}, {"names": "id"}, {"names": "text"}, {"column": "text"})
    digests = [Inputs.of(path, **one).digest for one in asked]
    assert len(set(digests)) == 4 and digests[0] == Inputs.of(path, names="name").digest
