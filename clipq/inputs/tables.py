"""Images in parquet files, as data sets of the Hugging Face hub hold them, read with `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, unknown_name
from .images import MAX_BYTES, Images

if TYPE_CHECKING:
    from datasets import Dataset

_IN_MEMORY = 64 << 20  # `load_dataset` maps a converted copy in its cache: worth it for large sets, and only for those


@dataclass(frozen=True)
class RowEntry:
    """An image in a row of a table; the bytes stay encoded until they are read."""

    table: Dataset
    column: str
    row: int
    key: str
    label: int
    size: int = 0  # not known without reading the row

    def read(self) -> bytes:
        content = self.table[self.row][self.column]["bytes"]
        if content is None or len(content) > MAX_BYTES:
            raise OSError(f"no image in row {self.row}, or more than {MAX_BYTES} bytes")
        return content


def table_images(files: Sequence[Path], image: str, label: str, classes: Sequence[str], origin: str) -> Images:
    """The rows of parquet files with an image and a label column.

    Raises `DataError` for a file that cannot be read, a missing column, or a label out of range.
    """
    table = _open(files, origin)
    for column in (image, label):
        if column not in table.column_names:
            raise DataError(str(unknown_name("column", column, table.column_names, f"The files are {origin}.")))
    if not len(table):
        raise DataError(f"{origin} has no rows, so there is nothing to read; fetch it again or name other files")
    labels = [_checked(one, row, len(classes), origin) for row, one in enumerate(table[label])]
    undecoded = _undecoded(table, image, origin)
    entries = (RowEntry(undecoded, image, row, f"row {row}", one) for row, one in enumerate(labels))
    return Images(tuple(entries), origin, "parquet", tuple(classes))


def _open(files: Sequence[Path], origin: str) -> Dataset:
    import datasets
    from pyarrow import parquet

    try:
        if sum(file.stat().st_size for file in files) <= _IN_MEMORY:
            return datasets.Dataset(parquet.read_table([str(file) for file in files]))
        return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except Exception as error:  # the border to Arrow and `datasets`, whose errors are of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read the parquet files of {origin}: {reason}; fetch them again") from error


def _undecoded(table: Dataset, column: str, origin: str) -> Dataset:
    import datasets

    kind = table.features[column]
    try:
        return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except Exception as error:  # the border to Arrow, as above
        raise DataError(
            f"the column {column!r} of {origin} holds {kind}, not encoded images; name the column that does in the "
            "task's [dataset.hub]"
        ) from error


def _checked(label: object, row: int, classes: int, origin: str) -> int:
    if type(label) is not int or not 0 <= label < classes:  # a bool is an int, and no class index
        raise DataError(f"row {row} of {origin} has the label {label!r}; allowed: whole numbers 0 to {classes - 1}")
    return label
