"""A folder of pictures or a file of texts in, one matrix out; a killed run goes on where it stopped."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from ..description import check_model
from ..inputs.listing import Inputs
from ..matrices.embeddings import Embeddings
from ..vectors.ranges import Ranges
from ..work.processes import launched
from ..work.work import working
from .embedder import Embedder
from .rows import check_tower, described_rows, encoded, frozen_ranges, joined

if TYPE_CHECKING:
    from ..models import Model


def embed(
    model: Model,
    source: str | os.PathLike[str] | Inputs,
    *,
    batch_size: int = 32,
    normalize: bool = True,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    dtype: str = "float32",
    ranges: Ranges | str | os.PathLike[str] | None = None,
) -> Embeddings | None:
    """Embed every picture below a folder (sorted by path, names relative to it), or every line of a UTF-8 text file.

    source: the folder or the file, or `Inputs.of` it (which lists it, before a model is loaded, and says how JPEGs are
    decoded).
    resume: a folder for finished shards; the same call after a kill goes on there and gives the same numbers.
    progress: a bar on stderr; `None` shows it on a terminal, and elsewhere a line now and then.
    dtype: of `vectors.DTYPES`; what the vectors are kept as. Shards are float32: a killed run may go on with another.
    ranges: what int8 and bits are measured by, never this source: `Ranges`, or an earlier file of the same model (a
    float32 file's rows); `None` takes clipq's own photos and everyday words, see `vectors.default_ranges`.

    Pictures are turned the way up that their EXIF orientation says. Inputs that cannot be read (broken pictures, empty
    lines) have no row and are listed in `broken`. Under `accelerate launch` the processes share the work; the main one
    returns the result, the others `None`.
    Raises `DataError` if there is nothing to embed, no tower for it or ranges of another model, `SchemeError` for
    ranges of a dtype that has none, `ResultError` if an embedding is not finite, `OutputError` if a shard cannot be
    written (those before it are kept).
    """
    inputs = source if isinstance(source, Inputs) else Inputs.of(source)
    check_model(model, needs_text=inputs.tower == "text")
    check_tower(model, inputs.tower, inputs.source)
    processes = launched(model.device.type)
    frozen = frozen_ranges(model, inputs.tower, normalize, dtype, ranges) if processes.is_main else None
    with working(resume, processes, progress) as work:
        shards, folder = encoded(model, inputs, batch_size, normalize, work)
    if not processes.is_main:
        return None
    about = {
        **described_rows(model, inputs, normalize),
        **Embedder(model, batch_size=batch_size).described(inputs.tower),
    }
    return replace(joined(inputs, shards, about, dtype, frozen), kept=folder)
