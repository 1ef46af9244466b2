"""What the rows of tables are called, and whether their strings are places or texts."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from clipq.errors import ClipqWarning, DataError, UnknownNameError
from clipq.inputs.listing import Inputs
from clipq.inputs.table_columns import repeated


def table(path: Path, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_other_names_or_a_named_column_are_other_work(tmp_path):
    path = table(tmp_path / "t.parquet", text=["a", "b"], id=[1, 2], name=["x", "y"])
    digests = [Inputs.of(path, names=one).digest for one in ("id", "name", "text", None)]
    assert len(set(digests)) == 3 and digests[3] == digests[1] == Inputs.of(path, column="text").digest
    table(path, image=[{"bytes": None, "path": "a.png"}])  # whose path is opened where the column is named
    assert Inputs.of(path, column="image").digest != Inputs.of(path).digest


@pytest.mark.parametrize(
    ("values", "tower"),
    [
        ([None, "a.png", "", "b.PNG"], "image"),
        (["https://h/img?id=1", "https://h/img?id=2", None], "image"),
        ([None] * 500 + ["s3://b/a b.jpg"], "image"),
        (["a cat", None, "a dog"], "text"),
        (["see https://h/img", "https://a b"], "text"),
        ([None, None], "text"),
    ],
)
def test_strings_are_what_they_look_like(tmp_path, values, tower):
    path = table(tmp_path / "t.parquet", x=pyarrow.array(values, pyarrow.string()))
    assert Inputs.of(path, column="x").tower == tower
    assert [Inputs.of(path, column="x", as_=one).tower for one in ("path", "text")] == ["image", "text"]


def test_strings_that_look_like_both_are_asked_for(tmp_path):
    path = table(tmp_path / "t.parquet", x=["IMG_1.jpg", "a cat on a mat"])
    for options in ({}, {"column": "x"}):
        with pytest.raises(DataError, match=r"'IMG_1.jpg' is named like.*'a cat on a mat' is not.*--as path"):
            Inputs.of(path, **options)
    found = Inputs.of(path, column="x", as_="text")
    assert found.tower == "text" and found.text(0) == "IMG_1.jpg"
    pictures = table(tmp_path / "p.parquet", x=[b"x"])
    for options, words in (({"column": "x", "as_": "path"}, "holds bytes"), ({"as_": "text"}, "--column NAME --as")):
        with pytest.raises(DataError, match=words):
            Inputs.of(pictures, **options)
    with pytest.raises(UnknownNameError, match="path, text"):
        Inputs.of(path, column="x", as_="texts")


def test_a_column_that_names_rows_twice_names_none(tmp_path):
    table(tmp_path / "0.parquet", text=["a", "b"], id=[0, 1], other=["u", "v"])
    assert list(Inputs.of(tmp_path).names) == ["0", "1"]
    table(tmp_path / "1.parquet", text=["c", "d", "e"], id=[None, 1, None], other=["w", None, None])
    with pytest.warns(ClipqWarning, match=r"'id' of .*0\.parquet calls several rows '1'.*--names"):
        found = Inputs.of(tmp_path)
    assert list(found.names) == ["0.parquet#0", "0.parquet#1", "1.parquet#0", "1.parquet#1", "1.parquet#2"]
    assert list(found.without(["0.parquet#0", "1.parquet#2"]).names) == [found.names[row] for row in (1, 2, 3)]
    with pytest.raises(DataError, match="cannot be told: its column 'id'.*--names"):
        found.without(["0", "1"])  # of an output that was made when all were different
    with pytest.raises(DataError, match="'id' calls several rows '1'"):
        Inputs.of(tmp_path, names="id")
    assert list(Inputs.of(tmp_path, names="other").names) == ["u", "v", "w", "1.parquet#1", "1.parquet#2"]


def test_repeated_names_are_found_in_any_chunk():
    columns = [pyarrow.chunked_array([[f"row {row}" for row in range(70_000)], [None, "x", None]])]
    assert repeated(columns) is None
    assert repeated([*columns, pyarrow.chunked_array([[7], [8, 7]])]) == "7"
    assert repeated([*columns, pyarrow.chunked_array([[" row 69999"]])]) == "row 69999"
    assert repeated([]) is None


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path):
    system = fsspec.filesystem("memory")
    for day in ("mon", "tue"):
        path = table(tmp_path / "part.parquet", text=[day])
        system.pipe_file(f"/days/{day}/part.parquet", path.read_bytes())
    assert list(Inputs.of("memory://days/*/part.parquet").names) == ["mon/part.parquet#0", "tue/part.parquet#0"]
