"""The images or texts of a `datasets.Dataset`: of the one column that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .images import read_file
from .tables import RowEntry

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT = ("string", "large_string")


def is_dataset(source: object) -> bool:
    """Whether `source` is a `Dataset` of Hugging Face datasets, which is not imported for that."""
    return type(source).__module__.partition(".")[0] == "datasets" and hasattr(source, "select_columns")


def dataset_pictures(dataset: Dataset) -> list[RowEntry]:
    """The pictures of its image column, not read yet. Raises `DataError` unless exactly one column is of images."""
    from datasets import Image

    column = _only_column(dataset, "images", lambda kind: isinstance(kind, Image))
    encoded = dataset.with_format(None).select_columns([column]).cast_column(column, Image(decode=False))
    return [_Picture(encoded, column, row, f"row {row}", 0) for row in range(len(dataset))]


class _Picture(RowEntry):
    """A row of a dataset that the user opened: what it gives as a path is read, as `datasets` itself would.

    That is no row of a parquet file that clipq opened, whose paths are never followed.
    """

    def read(self) -> bytes:
        held = self.table[self.row][self.column] or {"bytes": None, "path": None}
        if held["bytes"] is None and held["path"] is None:
            raise OSError(f"no image in row {self.row}")
        return read_file(held["path"]) if held["bytes"] is None else held["bytes"]


def dataset_texts(dataset: Dataset) -> list[str]:
    """The strings of its text column. Raises `DataError` unless exactly one column is of strings."""
    column = _only_column(dataset, "strings", lambda kind: getattr(kind, "dtype", None) in _TEXT)
    return list(dataset.with_format(None)[column])


def _only_column(dataset: Dataset, what: str, fits: Any) -> str:
    if not hasattr(dataset, "__len__"):
        raise DataError(
            "a streamed dataset has no length; give the rows to look at: Dataset.from_list(list(it.take(128)))."
        )
    found = [name for name, kind in dataset.features.items() if fits(kind)]
    if len(found) != 1:
        raise DataError(
            f"the dataset has {len(found)} columns of {what} ({', '.join(found or dataset.column_names)}); "
            "choose one: dataset.select_columns([...])."
        )
    return found[0]
