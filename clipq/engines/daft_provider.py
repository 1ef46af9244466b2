"""clipq in Daft's own expressions: a provider for `daft.functions.embed_image` and `embed_text`, and `embedded`.

    provider = ClipqProvider(Embedder("ViT-B-32"))
    table.with_column("embedding", embed_image(table["image"], provider=provider))

`image` is a column of the bytes of files, as `daft.read_parquet` and `download()` give them: those are decoded as
everywhere in clipq, and the vectors are what `clipq embed` writes. Daft's own decoded pictures are taken too, and are
other pixels: its JPEG decoder is another one, and knows no orientation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..embedding.columns import arrow_vectors
from ..embedding.embedder import Embedder
from ..embedding.rows import check_tower, frozen_ranges
from ..errors import DataError, unknown_name
from ..exports.packages import needed
from ..vectors.codes import quantize

needed(["daft"], "daft", "clipq.engines.daft")

import daft  # noqa: E402 (after the check that says how to install it)
from daft.ai.protocols import ImageEmbedderDescriptor, TextEmbedderDescriptor  # noqa: E402
from daft.ai.provider import Provider  # noqa: E402
from daft.ai.typing import EmbeddingDimensions, UDFOptions  # noqa: E402

if TYPE_CHECKING:
    import numpy
    from daft import DataType, Expression, Series

_ROWS = 256  # of a call; Daft's own 131,072 would be as many pictures in memory at once
_OPTIONS = ("batch_size", "concurrency", "max_retries", "num_gpus", "on_error")
_ON_ERROR = ("ignore", "log", "raise")


class ClipqProvider(Provider):
    """Embeds by an `Embedder`, whose settings hold; `model=` of the call stands in place of the embedder's model.

    A row that cannot be embedded, or is null, is null. Options of the call: `on_error` ("ignore", the default; "log"
    the reasons too; "raise" a `DataError`), and of Daft's workers `batch_size` (rows of a call, 256), `concurrency`,
    `max_retries` (0) and `num_gpus`. int8 and ubinary embedders get the model's default ranges where they have none.
    Other options are an `UnknownNameError`; a model without the tower, or one in memory, is refused at once.
    """

    def __init__(self, embedder: Embedder | str | PathLike[str], name: str = "clipq"):
        self._embedder = embedder if isinstance(embedder, Embedder) else Embedder(embedder)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def get_image_embedder(self, model: str | None = None, **options: Any) -> ImageEmbedderDescriptor:
        """What Daft asks of a provider for `embed_image`."""
        return _Images(_fitted(self._embedder, model, "image"), self._name, _checked(options))

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> TextEmbedderDescriptor:
        """What Daft asks of a provider for `embed_text`. Raises `DataError` for other dimensions than the model's."""
        found = _Texts(_fitted(self._embedder, model, "text"), self._name, _checked(options))
        if dimensions not in (None, width := found.get_dimensions().size):
            raise DataError(f"this model's embeddings have {width} dimensions, not {dimensions}; leave that out.")
        return found


def embedded(column: Expression, embedder: Embedder, tower: str = "image", **options: Any) -> Expression:
    """A struct of `embedding`, `error` and `space_id` for each row of a column of pictures or texts.

    `error` says why an embedding is null. options: as of `ClipqProvider`, without `on_error`.
    """
    checked = _checked(options)
    if "on_error" in checked:
        raise DataError("on_error is of embed_image and embed_text; here each row's error stands beside it.")
    own, workers = _fitted(embedder, None, tower), _workers(checked)
    kinds = {"embedding": _dimensions(own).as_dtype(), "error": daft.DataType.string()}
    kinds["space_id"] = daft.DataType.string()
    daft.method.batch(method=_Columns.structs, return_dtype=daft.DataType.struct(kinds), batch_size=workers.batch_size)
    kind = daft.cls(
        _Columns,
        max_concurrency=workers.concurrency,
        gpus=workers.num_gpus or 0,
        max_retries=workers.max_retries,
        name_override="clipq",
    )
    return kind(own).structs(column)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _OPTIONS:
            raise unknown_name("option", name, _OPTIONS, "Settings of the model are those of the Embedder.")
    if options.get("on_error", "raise") not in _ON_ERROR:
        raise unknown_name("on_error", options["on_error"], _ON_ERROR)
    return options


def _workers(options: dict[str, Any]) -> UDFOptions:
    """What Daft starts; `on_error` is seen to here, row by row."""
    own = {name: value for name, value in options.items() if name != "on_error"}
    return UDFOptions(**{"batch_size": _ROWS, "max_retries": 0, **own})


def _fitted(embedder: Embedder, model: str | None, tower: str) -> Embedder:
    """The embedder for one tower, with the ranges that its codes need, checked to be one that workers can load."""
    found = replace(embedder, model=model or embedder.model, tower=tower, column=None)
    found.__getstate__()  # raises for a model in memory, before Daft says no more than that it cannot be sent
    check_tower(found.encoding(tower), tower, "this column")
    if found.dtype == "float32" and found.ranges is None:
        return found
    return replace(found, ranges=frozen_ranges(found.whole, tower, found.normalize, found.dtype, found.ranges))


def _dimensions(embedder: Embedder) -> EmbeddingDimensions:
    codes, _ = quantize(embedder.nothing(embedder.tower), embedder.dtype, embedder.ranges)
    return EmbeddingDimensions(codes.shape[1], _daft_type(str(codes.dtype).removeprefix("torch.")))


def _daft_type(name: str) -> DataType:
    return getattr(daft.DataType, name)()


@dataclass
class _Described:
    """What Daft sends to its workers, and asks about them."""

    embedder: Embedder
    provider: str
    options: dict[str, Any]

    def get_provider(self) -> str:
        return self.provider

    def get_model(self) -> str:
        return str(self.embedder.model)

    def get_options(self) -> dict[str, Any]:
        return dict(self.options)

    def get_dimensions(self) -> EmbeddingDimensions:
        return _dimensions(self.embedder)

    def get_udf_options(self) -> UDFOptions:
        return _workers(self.options)

    def instantiate(self) -> _Columns:
        return _Columns(self.embedder, self.options.get("on_error", "ignore"))


class _Images(_Described, ImageEmbedderDescriptor):
    pass


class _Texts(_Described, TextEmbedderDescriptor):
    pass


class _Columns:
    """In a worker: Daft's `ImageEmbedder`, `TextEmbedder`, and what `embedded` calls. One batch at a time has all of
    the embedder's threads, however many of its own Daft calls with."""

    def __init__(self, embedder: Embedder, on_error: str = "ignore"):
        self.embedder, self.on_error, self.lock = embedder, on_error, threading.Lock()

    def embed_image(self, images: list[Any]) -> list[numpy.ndarray | None]:
        return self._each(images)

    def embed_text(self, text: list[str]) -> list[numpy.ndarray | None]:
        return self._each(text)

    def structs(self, column: Series) -> Any:
        """A pyarrow array of structs."""
        import pyarrow

        found = self._found(column.to_pylist())
        columns = {
            "embedding": arrow_vectors(found["embedding"], found["error"]),
            "error": pyarrow.array(found["error"], pyarrow.string()),
            "space_id": pyarrow.array(found["space_id"], pyarrow.string()),
        }
        return pyarrow.StructArray.from_arrays(list(columns.values()), list(columns))

    def _each(self, items: list[Any]) -> list[numpy.ndarray | None]:
        found = self._found(items)
        self._tell(items, found["error"])
        rows = zip(found["embedding"], found["error"], strict=True)
        return [row if error is None else None for row, error in rows]

    def _found(self, items: list[Any]) -> dict[str, Any]:
        with self.lock:
            return self.embedder({self.embedder.tower: items})

    def _tell(self, items: Sequence[Any], errors: Sequence[str | None]) -> None:
        """Of rows that are there and have no embedding."""
        for item, error in zip(items, errors, strict=True):
            if item is None or error is None:
                continue
            if self.on_error == "raise":
                raise DataError(f"a row cannot be embedded: {error}. With on_error='ignore' it is null.")
            if self.on_error == "log":
                logging.getLogger("clipq").warning("a row cannot be embedded: %s", error)
