"""A model's embeddings of the images and of the classes, in resumable shards."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DataError, ResultError, SchemeError
from ..machine import cores
from .images import Entry, Images, decode
from .prompts import Template, class_embeddings, prompts
from .work import Shard, Work

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


def check_model(model: Model, needs_text: bool = False) -> None:
    """Raise `SchemeError` where the numbers would not be the model's own: autocast, training mode, no text tower."""
    import torch

    if torch.is_autocast_enabled(model.device.type):
        raise SchemeError(
            f"autocast is on for {model.device.type!r}: it would change the precision that is being measured. "
            "Leave the `torch.autocast` block and call again."
        )
    if model.module.training:
        raise SchemeError("the model is in training mode (dropout changes its numbers); call model.module.eval() first")
    if needs_text and "text" not in model.towers:
        raise SchemeError(
            f"this model has the towers {', '.join(model.towers)} and no text tower, so it cannot name images; "
            "fidelity(model, baseline, folder) measures image models"
        )


def identity(model: Model, batch_size: int) -> dict:
    """What the embeddings depend on besides the data: work is resumed only if all of it is the same."""
    import torch

    return {
        "model": model.fingerprint(),
        "preprocess": _preprocess_digest(model),
        "kernel_path": model.kernel_path(),
        "device": model.device.type,
        "batch_size": batch_size,
        "torch": torch.__version__,
    }


def _preprocess_digest(model: Model) -> str:
    """sha256 of what the preprocessing makes of a test picture; its repr holds addresses and hides settings."""
    from PIL import Image

    ramp = Image.linear_gradient("L").resize((320, 256))
    picture = Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize((320, 256))))
    return hashlib.sha256(model.preprocess(picture).float().contiguous().numpy().tobytes()).hexdigest()


def embed_images(model: Model, images: Images, batch_size: int, work: Work) -> Embedded:
    """Embed every image that can be read. `DataError` if none can, `ResultError` if an embedding is not finite."""
    import torch

    work = work.within({**identity(model, batch_size), "data": images.digest(), "what": "images"})
    begun = time.perf_counter()
    with ThreadPoolExecutor(min(8, cores())) as readers, torch.inference_mode():
        shards = work.shards(
            "images",
            len(images),
            batch_size * _BATCHES_PER_SHARD,
            lambda rows: _image_shard(model, images.entries, rows, batch_size, readers),
        )
    seconds = time.perf_counter() - begun
    broken = {row: reason for shard in shards for row, reason in shard.broken.items()}
    if len(broken) == len(images):
        raise DataError(f"none of the {len(images)} images of {images.origin} can be read; the first: {broken[0]}")
    fresh = sum(len(shard.indices) for shard in shards if not shard.resumed)
    indices, embeddings = _joined(shards)
    _check_finite(embeddings, [images.entries[i].key for i in indices.tolist()])
    return Embedded(indices, embeddings, broken, fresh / seconds if fresh else None)


def _image_shard(
    model: Model, entries: Sequence[Entry], rows: range, batch_size: int, readers: ThreadPoolExecutor
) -> Shard:
    import torch

    good, broken, batch, parts = [], {}, [], []
    for row, pixels in zip(rows, readers.map(lambda row: _pixels(model, entries[row]), rows), strict=True):
        if isinstance(pixels, str):
            broken[row] = pixels
        else:
            good.append(row)
            batch.append(pixels)
        if batch and (len(batch) == batch_size or row == rows[-1]):
            parts.append(model.encode_image(torch.stack(batch).to(model.device), normalize=True).float().cpu())
            batch = []
    embeddings = torch.cat(parts) if parts else torch.empty(0, 0)
    return Shard(rows.start, torch.tensor(good, dtype=torch.int64), embeddings, broken)


def _pixels(model: Model, entry: Entry) -> torch.Tensor | str:
    """The preprocessed image, or why there is none."""
    try:
        image = decode(entry)
    except Exception as error:  # whatever a decoder does with hostile bytes, it means that this image is broken
        return f"{type(error).__name__}: {error}"
    try:
        return model.preprocess(image)
    except ValueError as error:  # resizing 1 x 10000 pixels leaves none
        return f"{type(error).__name__}: {error}"


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
