"""What `clipq embed` wrote, opened without reading its vectors: a file, or a folder of shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..matrices.embeddings import Embeddings
from ..matrices.files import beside, damage
from ..matrices.folders import read_manifest, read_shards
from ..vectors.codes import dequantize
from ..vectors.ranges import TENSORS, Ranges
from .index import ROWS, Index
from .raw import npy_matrix, safetensors_header, safetensors_matrix

if TYPE_CHECKING:
    from torch import Tensor

_EXACT = ("float32", "float16")


def of_folder(folder: Path) -> Index:
    """A folder of shards, each of which is checked against its sha256 whenever it is read; memory for one of them."""
    about = read_manifest(folder)
    names = tuple(name for shard in read_shards(folder) for name in shard.names)

    def read() -> Iterator[Tensor]:
        for shard in read_shards(folder):
            yield from shard.restore().matrix.split(ROWS)

    exact = about.get("dtype", "float32") in _EXACT
    return Index(folder, f"clipq shards of {about.get('dtype', 'float32')}", names, about["width"], read, about, exact)


def of_parquet(path: Path) -> Index | None:
    """A table of `save_embeddings`; None if another wrote it."""
    import torch
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        said = (file.schema_arrow.metadata or {}).get(b"clipq")
        if said is None:
            return None
        about, column = json.loads(said), file.schema_arrow.field("embedding").type
        stored = Stored((file.metadata.num_rows, column.list_size), column.value_type.to_pandas_dtype().__name__)
        names = [_text(one) for one in file.read(["name"]).column("name").to_pylist()]
    tensors = {name: torch.tensor(value) for name, value in about.pop("tensors", {}).items()}

    def read() -> Iterator[Tensor]:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=["embedding"]):
                values = batch.column(0).flatten()
                if batch.column(0).null_count or values.null_count:
                    raise DataError(f"{path} has rows without a vector; make it again.")
                values = values.to_numpy(zero_copy_only=False)
                yield torch.from_numpy(values.reshape(len(batch), column.list_size).copy())

    return _index(path, names, about, tensors, stored, read)


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def of_safetensors(path: Path) -> Index | None:
    """A file of `save_embeddings`; None if another wrote it."""
    from safetensors import safe_open

    metadata, entries, start = safetensors_header(path)
    if "clipq" not in metadata:
        return None
    about, matrix = json.loads(metadata["clipq"]), safetensors_matrix(path, entries["embeddings"], start)
    with safe_open(path, framework="pt") as file:
        keys = [key for key in entries if key.startswith("ranges.")]
        tensors = {key.removeprefix("ranges."): file.get_tensor(key).clone() for key in keys}
    return _index(path, about.pop("names"), about, tensors, Stored(matrix.shape, matrix.dtype), matrix.blocks)


def of_npy(path: Path) -> Index | None:
    """An array of `save_embeddings`; None where what it writes beside it is missing."""
    from safetensors.torch import load_file

    listed, rest, ranges = beside(path)
    matrix = npy_matrix(path) if listed.is_file() and rest.is_file() else None
    if matrix is None:
        return None
    lines = listed.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n").split("\n")
    about = json.loads(rest.read_text(encoding="utf-8"))
    tensors = load_file(ranges) if "ranges" in about else {}
    tensors = {key.removeprefix("ranges."): value for key, value in tensors.items()}
    return _index(path, lines, about, tensors, Stored(matrix.shape, matrix.dtype), matrix.blocks)


@dataclass(frozen=True)
class Stored:
    """What lies in a file: the shape of the matrix, and torch's name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


def _index(
    path: Path,
    names: Sequence[str],
    about: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    stored: Stored,
    read: Callable[[], Iterator[Tensor]],
) -> Index:
    """Raises `DataError` where something does not fit together, as `matrices.read_file` does."""
    import torch

    said = {key: value for key, value in (about.get("ranges") or {}).items() if key != "sha256"}
    ranges = Ranges(*(tensors[name] for name in TENSORS), about=said) if tensors else None
    matrix = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype), device="meta")
    found = Embeddings(tuple(names), matrix, {}, dict(about), ranges=ranges)
    if reason := damage(found):
        raise DataError(f"{path} is damaged: {reason}. Make it again with `clipq embed`.")
    width = about["width"] if "width" in about else matrix.shape[1]  # clipq 0.4 and before do not say it

    def restored() -> Iterator[Tensor]:
        return (dequantize(block, found.dtype, ranges) for block in read())

    return Index(
        path, f"clipq {path.suffix[1:]} of {found.dtype}", found.names, width, restored, about, found.dtype in _EXACT
    )
