"""Data sets of Ray Data, any that it reads: with embeddings as columns, or embedded into a folder, each row once."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..embedding.columns import column_of
from ..embedding.embedder import Embedder
from ..embedding.rows import described_rows, frozen_ranges
from ..errors import DataError, EngineError
from ..exports.packages import package
from ..inputs.images import EXTENSIONS
from ..inputs.listing import Inputs
from ..inputs.places import file_system, files_at, is_remote
from ..inputs.table_columns import KEYS
from ..vectors.ranges import Ranges
from ..work.spent import Spent
from .failures import check_counts, check_told, told
from .keyed import Keyed
from .keys import digests, lacking
from .ray_cluster import connected, own_error, ray_package, workers_of

_READ_AS = ("bytes", "jpg", "jpeg", "png", "webp")
"""What Ray's readers of files and webdataset tars call a picture."""
_BATCH = 256  # rows that an actor is given at a time where it writes no files


def embedded(
    dataset: Any, embedder: Embedder | str, *, workers: int | None = None, threads: int = 1, rows: int = _BATCH
) -> Any:
    """A Ray data set with the columns `embedding`, `error` and `space_id` more; nothing is done before it is used.

    dataset: of Ray Data, or what `ray.data` reads for it: a folder of pictures, parquet files, webdataset tars, by path
    or URL. embedder: or the name of a model for one. workers: actors, of `threads` CPUs each; None: as many as the
    cluster has CPUs for, one of them left free to read. rows: that an actor is given at a time.
    Raises `EngineError` for a cluster that is too small, `DataError` for a data set without pictures or texts.
    """
    ray = ray_package()
    if not ray.is_initialized():
        raise EngineError(
            "Ray is not initialized, and a data set needs it for as long as it is used: ray.init() first."
        )
    dataset = _dataset(ray, dataset)
    embedder, _, _ = _chosen(embedder, dataset.columns())
    return _mapped(ray, dataset, _Columns, (replace(embedder, threads=threads),), rows, (workers, threads))


def embed(
    dataset: Any,
    embedder: Embedder | str,
    output: str | os.PathLike[str],
    *,
    key: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    rows: int = 1000,
    spent: Spent | None = None,
) -> dict[str, Any]:
    """Embed a data set of Ray into a folder of parquet files with a manifest, which is returned; each row once.

    dataset, embedder, workers, threads: as of `embedded`. output: a folder that all workers see, or a URL.
    key: the column that names the rows, each differently; None: the first of "name", "key", "__key__", "id", "path"
    and the like. A file of `rows` rows is there whole or not at all, and the same call after a kill does those whose
    key is in none: so it does where the data set has grown. Rows that cannot be embedded are in `broken.parquet`.
    spent: is told where the time went. `clipq.matrices.read_embeddings` reads a folder of this machine.
    Raises what `embedded` does, `SpaceError` if the folder holds vectors of another space, `OutputError` if nothing can
    be written there.
    """
    ray = ray_package()
    with connected(ray):
        dataset = _dataset(ray, dataset)
        embedder, tower, column = _chosen(embedder, dataset.columns())
        key = _key(key, dataset.columns(), column)
        into = _into(output, embedder, tower, rows)
        known = into.known()
        work = _Work(replace(embedder, threads=threads), tower, column, key, into)
        columns = dataset.select_columns([*dict.fromkeys((key, column))])
        made = _mapped(ray, columns, _Files, (work, ray.put(known.hashes)), rows, (workers, threads))
        for line, keys in _lines(ray, made):
            known.seen.append(keys)
            if line:
                known.entries.append(line["entry"])
                if spent is not None:
                    spent.include(line["seconds"], line["rows"])
        return into.finish(known)


def _mapped(ray: Any, dataset: Any, kind: type, given: tuple, rows: int, size: tuple[int | None, int]) -> Any:
    workers, threads = size
    check_counts(workers=workers, threads=threads, rows=rows)
    most = workers_of(ray, threads, spare=1)  # readers that find no CPU wait for actors, and those for rows
    pool = ray.data.ActorPoolStrategy(size=min(workers or most, most))
    return dataset.map_batches(
        kind, fn_constructor_args=given, batch_size=rows, batch_format="pyarrow", num_cpus=threads, compute=pool
    )


def _lines(ray: Any, made: Any) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Of each batch, what was made of it, if anything was, and the digests of its keys. Raises what an actor met."""
    try:
        for batch in made.iter_batches(batch_size=None, batch_format="pyarrow"):
            for line, keys in zip(batch.column("made").to_pylist(), batch.column("keys").to_pylist(), strict=True):
                check_told(found := json.loads(line))
                yield found, keys
    except ray.exceptions.RayError as error:
        raise own_error(error) from error


class _Columns:
    """An actor that adds columns."""

    def __init__(self, embedder: Embedder):
        self.embedder = embedder

    def __call__(self, table: Any) -> Any:
        return self.embedder(table)


@dataclass(frozen=True)
class _Work:
    """What an actor has to know to write files."""

    embedder: Embedder
    tower: str
    column: str
    key: str
    into: Keyed


class _Files:
    """An actor that writes a file of each batch, and gives a line that says so."""

    def __init__(self, work: _Work, known: Any):
        self.work, self.known = work, ray_package().get(known)

    def __call__(self, table: Any) -> Any:
        import pyarrow

        try:
            names = _names(table, self.work.key)
            made, keys = self._made(table, names), digests(names)
        except Exception as error:  # of which Ray Data would bring back a traceback alone
            made, keys = told(error, "Ray"), b""
        return pyarrow.table({"made": pyarrow.array([json.dumps(made)]), "keys": pyarrow.array([keys])})

    def _made(self, table: Any, names: list[str]) -> dict[str, Any]:
        """What is said of the file; nothing, if no row of the batch was lacking."""
        if not (new := lacking(self.known, names)):
            return {}
        work, spent = self.work, Spent()
        items = column_of(table.select([work.column]).take(new), work.column)
        found = work.embedder.rows(work.tower, items, spent)
        entry = work.into.write([names[row] for row in new], found)
        return {"entry": entry, "seconds": spent.seconds, "rows": spent.rows}


def _names(table: Any, key: str) -> list[str]:
    """Raises `DataError` for a batch in which they are not all there, and different."""
    column = table.column(key)
    if column.null_count:
        raise DataError(f"{column.null_count} rows have no {key!r}, and a row is known by it; give each row one.")
    names = [str(value) for value in column.to_pylist()]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(
            f"{count} of {len(names)} rows have the {key!r} {name!r}, and a row is known by it; name a column whose "
            "values are all different, or give each row one of its own."
        )
    return names


def _chosen(embedder: Embedder | str, columns: list[str]) -> tuple[Embedder, str, str]:
    """The embedder for the data set's own columns, its tower and the column."""
    embedder = embedder if isinstance(embedder, Embedder) else Embedder(embedder)
    if embedder.column is None and not {"image", "text"} & set(columns):
        embedder = replace(embedder, column=next((one for one in _READ_AS if one in columns), None))
        embedder = replace(embedder, tower=embedder.tower or (embedder.column and "image"))
    tower, column = embedder.chosen(columns)
    return replace(embedder, tower=tower, column=column), tower, column


def _key(key: str | None, columns: list[str], column: str) -> str:
    found = key or next((one for one in KEYS if one in columns and one != column), None)
    if found is None or found not in columns:
        raise DataError(
            f"a row has to be known by its key, and the data set has the columns {', '.join(columns)}; name one whose "
            "values are all different: key='id'."
        )
    return found


def _into(output: str | os.PathLike[str], embedder: Embedder, tower: str, rows: int) -> Keyed:
    inputs, model = Inputs("a data set of Ray", tower, (), "", decode=embedder.decode), embedder.whole
    ranges: Ranges | None = frozen_ranges(model, tower, embedder.normalize, embedder.dtype, embedder.ranges)
    about: Mapping[str, Any] = {**described_rows(model, inputs, embedder.normalize), **embedder.described(tower)}
    return Keyed.at(output, about, embedder.dtype, ranges, rows)


def _dataset(ray: Any, source: Any) -> Any:
    """A data set of Ray: the one given, or what its readers make of a path or URL."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    package("aiohttp", "ray", "reading files with Ray")  # without it, the threads of Ray 2.60's readers race and fail
    source = os.fspath(source) if is_remote(source) else os.path.abspath(source)  # noqa: PTH100
    options = {"filesystem": file_system(source)[0]} if is_remote(source) else {}
    for ending, read in ((".parquet", ray.data.read_parquet), (".tar", _tars(ray))):
        if files := [_path(one) for one in files_at(source, (ending,))]:
            return read(files, **options)
    endings = [one.removeprefix(".") for one in sorted(EXTENSIONS)]
    return ray.data.read_binary_files(_path(source), include_paths=True, file_extensions=endings, **options)


def _tars(ray: Any) -> Any:
    return lambda files, **options: ray.data.read_webdataset(files, decoder=False, **options)


def _path(place: str) -> str:
    return file_system(place)[1] if is_remote(place) else place
