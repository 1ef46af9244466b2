"""A model's embeddings of the images and of the classes, in resumable shards."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..description import identity
from ..errors import DataError, ResultError
from ..inputs.images import Entry, Images, decode
from ..inputs.places import NOBODYS_FAULT
from ..work.batches import Batches, Unreadable, readers
from ..work.shards import Shard
from ..work.spent import Spent
from ..work.work import Work
from .prompts import Template, class_embeddings, prompts

if TYPE_CHECKING:
    import torch

    from ..models import Model

_BATCHES_PER_SHARD = 4
_PROMPTS_PER_BATCH = 256


@dataclass(frozen=True)
class Embedded:
    """Unit-length embeddings of the rows that could be read, and why the others could not."""

    indices: torch.Tensor  # [k] int64, rising
    embeddings: torch.Tensor  # [k, D] float32, CPU
    broken: dict[int, str]
    images_per_second: float | None  # None if everything was taken from an earlier run


def embed_images(model: Model, images: Images, batch_size: int, work: Work) -> Embedded:
    """Embed every image that can be read. `DataError` if none can, `ResultError` if an embedding is not finite."""
    work = work.within({**identity(model, batch_size), "data": images.digest(), "what": "images"})
    begun = time.perf_counter()
    batches = Batches(_reader(model, images.entries, work.spent), _encoder(model), batch_size, readers(), work.spent)
    shards = work.streamed("images", len(images), batch_size * _BATCHES_PER_SHARD, batches.shards)
    seconds = time.perf_counter() - begun
    broken = {row: reason for shard in shards for row, reason in shard.broken.items()}
    if len(broken) == len(images):
        raise DataError(f"none of the {len(images)} images of {images.origin} can be read; the first: {broken[0]}")
    fresh = sum(len(shard.indices) for shard in shards if not shard.resumed)
    indices, embeddings = _joined(shards)
    _check_finite(embeddings, [images.entries[i].key for i in indices.tolist()])
    return Embedded(indices, embeddings, broken, fresh / seconds if fresh else None)


def _reader(model: Model, entries: Sequence[Entry], spent: Spent) -> Callable[[int], torch.Tensor | Unreadable]:
    """The preprocessed image of a row, or why there is none."""

    def read(row: int) -> torch.Tensor | Unreadable:
        try:
            with spent.on("decode"):
                image = decode(entries[row])
        except NOBODYS_FAULT:
            raise
        except Exception as error:  # whatever a decoder does with hostile bytes, it means that this image is broken
            return Unreadable(f"{type(error).__name__}: {error}")
        try:
            with spent.on("preprocess"):
                return model.preprocess(image)
        except ValueError as error:  # resizing 1 x 10000 pixels leaves none
            return Unreadable(f"{type(error).__name__}: {error}")

    return read


def _encoder(model: Model) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    import torch

    return lambda batch: model.encode_image(torch.stack(batch).to(model.device), normalize=True)


def embed_classes(model: Model, names: Sequence[str], patterns: Sequence[Template], work: Work) -> torch.Tensor:
    """[len(names), D] float32 class embeddings, see `prompts.class_embeddings`; equal names get equal embeddings."""
    import torch

    distinct = list(dict.fromkeys(names))
    step = max(1, _PROMPTS_PER_BATCH // len(patterns))
    texts = hashlib.sha256(json.dumps(prompts(distinct, patterns)).encode()).hexdigest()
    work = work.within({**identity(model, step), "prompts": texts, "what": "classes"})

    def shard(rows: range) -> Shard:
        parts = [class_embeddings(model, distinct[i : min(i + step, rows.stop)], patterns) for i in rows[::step]]
        return Shard(rows.start, torch.arange(rows.start, rows.stop), torch.cat(parts))

    with torch.inference_mode():
        _, embeddings = _joined(work.shards("classes", len(distinct), step * _BATCHES_PER_SHARD, shard))
    _check_finite(embeddings, distinct)
    place = {name: row for row, name in enumerate(distinct)}
    return embeddings[[place[name] for name in names]]


def _joined(shards: Sequence[Shard]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    full = [shard for shard in shards if len(shard.indices)]
    return torch.cat([shard.indices for shard in full]), torch.cat([shard.embeddings for shard in full])


def _check_finite(embeddings: torch.Tensor, names: Sequence[str]) -> None:
    bad = (~embeddings.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ResultError(
            f"the model's embedding of {names[bad[0]]!r} is not finite ({len(bad)} such of {len(embeddings)}); "
            "numbers from it would mean nothing. Try fallback='fp32' or 'bf16' in place of fp16."
        )
