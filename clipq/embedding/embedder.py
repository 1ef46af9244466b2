"""`Embedder`: batches of columns in, the same batches with embeddings out, in any worker of any engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..arithmetic.precisions import Precisions
from ..errors import DataError, SchemeError
from ..inputs.given import no_picture, open_picture
from ..inputs.images import decode
from ..inputs.listing import Inputs
from ..inputs.places import is_remote, read_place
from ..inputs.scaling import DECODE, Smallest, check_decode, smallest_of
from ..machine import granted_cores
from ..spaces.space import Space
from ..vectors.codes import kind_named, quantize
from ..vectors.ranges import Ranges
from ..work.batches import Batches
from ..work.shards import Shard
from ..work.spent import Spent
from .columns import column_of, names_of, with_columns
from .loaded import Lean, Loading, lean_or_whole, whole_model
from .rows import batches_of, check_tower, finite, picture_batches, picture_reader, text_batches

if TYPE_CHECKING:
    import torch

    from ..models import Model

_TOWERS = ("image", "text")
_SPACES: WeakKeyDictionary[Any, dict[tuple, Space]] = WeakKeyDictionary()
"""Of the models that this process loaded, which nobody changes."""


@dataclass(frozen=True)
class Embedder:
    """Called with a batch of columns, it gives the batch back with `embedding`, `error` and `space_id`.

        embed = Embedder("ViT-B-32", threads=2)
        embed({"image": [b"...", "cat.jpg", array]})["embedding"]  # float32 [3, 512]

    It is its settings alone: it pickles by the model's name, and each process loads the model once, at the first call
    there; int8 models run without torch's own towers where `clipq.runtime` reads their file. A batch is a mapping of
    columns (lists or arrays), a pandas DataFrame or a pyarrow Table, and what comes back is of the same kind. A row
    that cannot be embedded is no exception: its `error` says why, and its embedding is NaN (zeros in codes; null in
    pandas and pyarrow). `error` is None where there is an embedding.

    model: what `clipq.load` takes, with `precision`, `pretrained`, `device` and `cache_dir`; a `clipq.Model` works in
    this process, and is refused when it is pickled.
    tower: "image" or "text"; None: the one of the two that is a column. column: its name, if it is another.
    A picture is a path or URL, the bytes of a file, a uint8 array [height, width(, 3)], a PIL image, or a dictionary
    with "bytes" or "path", as data sets of the hub have them. Paths and URLs are opened, wherever they lead: whoever
    calls it has chosen the column, as `clipq embed --column` does, which opens none in a table's column that nobody
    named. Of tables from strangers, select the bytes.
    threads: of a process; None: what Ray gave the worker, elsewhere all cores.
    batch_size, normalize, dtype, ranges: as of `embed`; codes need their `ranges` (`vectors.default_ranges`).
    """

    model: Model | str | os.PathLike[str]
    precision: Precisions = "int8"
    pretrained: str | None = None
    device: str = "cpu"
    cache_dir: str | os.PathLike[str] | None = None
    tower: str | None = None
    column: str | None = None
    threads: int | None = None
    batch_size: int = 32
    normalize: bool = True
    decode: str = DECODE
    dtype: str = "float32"
    ranges: Ranges | None = None

    def __post_init__(self) -> None:
        check_decode(self.decode)
        kind_named(self.dtype)
        for name, value in (("batch_size", self.batch_size), ("threads", 1 if self.threads is None else self.threads)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise SchemeError(f"{name}={value!r} is no number of them; give a whole number >= 1.")
        if self.tower not in (None, *_TOWERS):
            raise DataError(f"tower={self.tower!r} is none; give 'image' or 'text', or None for the column's own.")
        if isinstance(self.model, (str, os.PathLike)) and Path(self.model).exists():
            object.__setattr__(self, "model", os.path.abspath(self.model))  # noqa: PTH100 (links stay as they are)
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", os.path.abspath(self.cache_dir))  # noqa: PTH100

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.model, (str, os.PathLike)):
            raise SchemeError(
                "this Embedder holds a model in memory, which no other process has; clipq.save it, and give the file: "
                "Embedder('model.safetensors')."
            )
        return {name: value for name, value in vars(self).items() if name != "_loading"}

    def __call__(self, batch: Any) -> Any:
        """The batch (a mapping of columns, a pandas DataFrame, a pyarrow Table), with three more columns.

        Raises `DataError` for what is no batch, or has no column of pictures or texts; never for a row, but for what no
        row is to blame for: `MissingPackageError` for URLs that need one, `MemoryError`.
        """
        import numpy
        import torch

        tower, column = self.chosen(names_of(batch))
        rows = finite(self.rows(tower, column_of(batch, column)))
        errors: list[str | None] = [rows.broken.get(row) for row in range(len(rows.indices) + len(rows.broken))]
        codes, _ = quantize(rows.embeddings, self.dtype, self.ranges)
        missing = numpy.nan if codes.is_floating_point() else 0
        vectors = torch.full((len(errors), codes.shape[1]), missing, dtype=codes.dtype)
        vectors[rows.indices] = codes
        return with_columns(batch, vectors.numpy(), errors, self.space_id(tower))

    def chosen(self, columns: Sequence[str]) -> tuple[str, str]:
        """The tower, and the name of the column that is for it. Raises `DataError` where there is none, or two."""
        found = [tower for tower in _TOWERS if tower in columns]
        tower = self.tower or (found[0] if len(found) == 1 and self.column is None else None)
        column = self.column or tower
        if tower is None or column not in columns:
            raise DataError(
                f"the batch has the columns {', '.join(map(str, columns))}; which of them is to be embedded is said "
                "by tower='image' or 'text', and column= where it is not called so."
            )
        return tower, column

    def rows(self, tower: str, items: Sequence[Any], spent: Spent | None = None) -> Shard:
        """float32 embeddings of those items that can be embedded, and why the others cannot; it never raises for one.

        items: pictures, or texts. spent: is told where the time goes.
        """
        from PIL.Image import Image

        spent, model = spent or Spent(), self.encoding(tower)
        check_tower(model, tower, "these rows")
        if tower == "image":
            smallest = smallest_of(model.preprocessing, self.decode)
            read = picture_reader(lambda row: _opened(items[row], smallest), model, spent)
            images = [id(one) for one in items if isinstance(one, Image)]
            ahead = self.granted if len(set(images)) == len(images) else 0  # Pillow is lazy, and no two threads
            batches = picture_batches(model, read, self.batch_size, self.normalize, spent, ahead)
        else:
            batches = text_batches(model, lambda row: items[row], self.batch_size, self.normalize, spent)
        (found,) = batches.shards([range(len(items))])
        return found if len(found.indices) else Shard(0, found.indices, self.nothing(tower), found.broken)

    def batches(self, inputs: Inputs, spent: Spent) -> Batches:
        """How rows of listed inputs are read and encoded."""
        model = self.encoding(inputs.tower)
        return batches_of(model, inputs, self.batch_size, self.normalize, spent, self.granted)

    def nothing(self, tower: str) -> torch.Tensor:
        """[0, width]"""
        model = self.encoding(tower)
        return model.encode_image([], False) if tower == "image" else model.encode_text([], False)

    @property
    def granted(self) -> int | None:
        """How many threads this process is to use; None: all there are."""
        return granted_cores() if self.threads is None else self.threads

    def encoding(self, tower: str) -> Model | Lean:
        """What encodes in this process, loaded at the first call."""
        if not isinstance(self.model, (str, os.PathLike)):
            return self.model
        return lean_or_whole(self._loading, tower, self.granted)

    def space(self, tower: str) -> Space:
        """The vector space of what it makes of pictures ("image") or of texts."""
        model, asked = self.encoding(tower), (tower, self.decode, self.normalize)
        if model is self.model:  # of whoever made it, who may change it between two batches
            return model.space(*asked)
        known = _SPACES.setdefault(model, {})
        if asked not in known:
            known[asked] = model.space(*asked)
        return known[asked]

    def space_id(self, tower: str) -> str:
        """The space's short name, of 16 hexadecimal digits; see `clipq.space_of`."""
        return self.space(tower).id

    def described(self, tower: str) -> dict[str, Any]:
        """How vectors are computed here, for those who compare their bytes.

        `clipq.runtime` gives a row the same bits in any batch, on any number of threads; with torch's towers the last
        digits depend on the batch, and may on the threads: there, the same batches have to be encoded alike.
        """
        lean = isinstance(self.encoding(tower), Lean)
        encoder, depend_on = ("clipq.runtime", "row") if lean else ("clipq.load", "row and batch")
        return {"encoder": encoder, "vectors_depend_on": depend_on, "batch_size": self.batch_size}

    @property
    def whole(self) -> Model:
        """The `clipq.Model`, loaded at the first call; what is said of the vectors is taken from it."""
        return whole_model(self._loading) if isinstance(self.model, (str, os.PathLike)) else self.model

    @cached_property
    def _loading(self) -> Loading:
        """The file as it was at the first call in this process: all that is taken from it is of one model."""
        return Loading.of(self.model, self.precision, self.pretrained, self.device, self.cache_dir)


def _opened(item: Any, smallest: Smallest | None) -> Any:
    """The RGB picture of whatever a column holds. Raises whatever says why it is none."""
    if isinstance(item, dict) and ("bytes" in item or "path" in item):
        item = item.get("path") if item.get("bytes") is None else item["bytes"]
    if item is None:
        raise DataError("an empty row: it holds no picture")
    if isinstance(item, (bytes, bytearray)):
        return decode(_Held(bytes(item)), oriented=True, smallest=smallest)
    if is_remote(item):
        return decode(_Held(read_place(item)), oriented=True, smallest=smallest)
    if reason := no_picture(item):
        raise DataError(reason)
    return open_picture(item, smallest)


@dataclass(frozen=True)
class _Held:
    """A picture's bytes, as an entry of a list has them."""

    content: bytes
    key: str = ""
    label: int = 0
    size: int = 0

    def read(self) -> bytes:
        return self.content
