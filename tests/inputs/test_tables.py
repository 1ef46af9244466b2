"""Images in parquet files: columns, labels and files that are refused."""

from __future__ import annotations

import pyarrow
import pytest
from picture_helpers import COLOURS, colour_folder, write_table
from pyarrow import parquet

from clipq.errors import DataError
from clipq.inputs.folders import class_folders
from clipq.inputs.tables import table_images


def test_parquet_with_other_columns_or_labels_is_refused(tmp_path):
    images = class_folders(colour_folder(tmp_path / "folder"), tuple(COLOURS))
    path = write_table(tmp_path / "table" / "test.parquet", images)
    with pytest.raises(DataError, match="unknown column 'img'.*image"):
        table_images([path], "img", "label", tuple(COLOURS), str(path))
    with pytest.raises(DataError, match="unknown column 'class'.*label"):
        table_images([path], "image", "class", tuple(COLOURS), str(path))
    with pytest.raises(DataError, match="label 2; allowed: whole numbers 0 to 1"):
        table_images([path], "image", "label", ("a", "b"), str(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot read the parquet files of .*test\.parquet"):
        table_images([path], "image", "label", tuple(COLOURS), str(path))


IMAGE = {"bytes": [b"x", b"y"], "path": [None, None]}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": [1, 2], "label": [0, 1]}, r"column 'image' of .* holds .*int64.*not encoded images"),
        ({"image": [[1], [2]], "label": [0, 1]}, "not encoded images"),
        ({"image": [b"x", b"y"], "label": [True, False]}, "row 0 of .* label True; allowed: whole numbers 0 to 3"),
        ({"image": [b"x", b"y"], "label": [0, None]}, "row 1 of .* label None"),
        ({"image": [b"x", b"y"], "label": [0.0, 1.0]}, "row 0 of .* label 0.0"),
        ({"image": [b"x", b"y"], "label": ["0", "1"]}, "row 0 of .* label '0'"),
        ({"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())}, "has no rows"),
        ({}, "unknown column 'image'"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, columns, says):
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=says):
        table_images([path], "image", "label", tuple(COLOURS), str(path))


def test_paths_in_a_table_are_never_followed(tmp_path):
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"image": ["/etc/hostname"], "label": [0]}), path)
    (entry,) = table_images([path], "image", "label", tuple(COLOURS), str(path)).entries
    with pytest.raises(OSError, match="no image in row 0"):
        entry.read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(500) + b"PAR1"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot read the parquet files of"):
        table_images([path], "image", "label", tuple(COLOURS), str(path))
