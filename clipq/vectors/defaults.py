"""The ranges of a model for which none were given: of clipq's own photos and everyday words, the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DataError, ResultError
from ..methods.defaults import default_pictures, default_texts
from .ranges import Ranges, ranges_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..models import Model

_BATCH = 32  # whatever batches the run itself has: they must not show in the ranges
_TEXTS = 512


def default_ranges(model: Model, tower: str, normalize: bool = True) -> Ranges:
    """Embed the 126 pictures, or 512 short texts, that ship with clipq, and measure their ranges: some seconds.

    tower: "image" or "text". normalize: whether the embeddings to come are of unit length. Another precision of a model
    is another model. On another machine the last digits may differ; what has to fit together takes the ranges of the
    first file. Raises `DataError` if the model has no such tower, `ResultError` if an embedding is not finite.
    """
    origin, matrix = default_embeddings(model, tower, normalize)
    about = {"fingerprint": model.fingerprint(), "tower": tower, "normalized": normalize}
    return ranges_of(matrix, about, origin)


def default_embeddings(model: Model, tower: str, normalize: bool) -> tuple[str, Tensor]:
    """What the default ranges are measured on: its name, and float32 [n, D]."""
    import torch

    if tower not in model.towers:
        raise DataError(f"this model has no tower {tower!r}; it has: {', '.join(model.towers)}.")
    origin, inputs, encode = {"image": _pictures, "text": _texts}[tower](model)
    parts = [encode(inputs[i : i + _BATCH], normalize).float().cpu() for i in range(0, len(inputs), _BATCH)]
    matrix = torch.cat(parts)
    if not matrix.isfinite().all():
        raise ResultError(f"an embedding of {origin} is not finite; try fallback='fp32'.")
    return origin, matrix


def _pictures(model: Model) -> tuple:
    import torch

    def encode(pictures, normalize):
        pixels = torch.stack([model.preprocess(picture) for picture in pictures])
        return model.encode_image(pixels.to(model.device), normalize=normalize)

    return "the photos that ship with clipq, whole and in parts", default_pictures(), encode


def _texts(model: Model) -> tuple:
    return "everyday words that ship with clipq", default_texts(_TEXTS), model.encode_text
