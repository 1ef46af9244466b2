"""Images in parquet files: columns, labels and files that are refused."""

from __future__ import annotations

import pytest
from picture_helpers import COLOURS, colour_folder, write_table

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
    with pytest.raises(DataError, match="label 2; allowed: 0 to 1"):
        table_images([path], "image", "label", ("a", "b"), str(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot read the parquet files of .*test\.parquet"):
        table_images([path], "image", "label", tuple(COLOURS), str(path))
