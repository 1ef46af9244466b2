"""Sets of files that cost what real ones do: real photos at a given size, with a sensor's noise, as JPEGs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIZES = {"500x375": (500, 375), "12-megapixel": (4000, 3000)}
_NOISE = 3.0  # standard deviation, of 255: an upscaled photo is smooth, and would be decoded too fast without
_QUALITY = 90


def photos(folder: Path | None) -> list[bytes]:
    """The files of a folder of photos; of clipq's own photos without one."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    from pyarrow import parquet

    from clipq.resources import resource

    return [row["bytes"] for row in parquet.read_table(resource("eval", "data", "photos.parquet"))["image"].to_pylist()]


def make(folder: Path, size: tuple[int, int], count: int, sources: Sequence[bytes]) -> Path:
    """`count` JPEGs of `size`, each photo cropped to its shape, mirrored every other time round, with fresh noise."""
    if folder.is_dir() and len(list(folder.iterdir())) == count:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        with Image.open(io.BytesIO(sources[i % len(sources)])) as photo:
            photo = ImageOps.fit(photo.convert("RGB"), size, Image.Resampling.BICUBIC)
        photo = ImageOps.mirror(photo) if i // len(sources) % 2 else photo
        noise = random.standard_normal((size[1], size[0], 3), dtype=np.float32) * _NOISE
        noisy = (np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:05d}.jpg", quality=_QUALITY)
    return folder


def captions(path: Path, count: int) -> Path:
    """A text file of `count` captions of 6 to 40 words, a line each."""
    from clipq.benchmark import captions as made

    path.write_text("".join(f"{line}\n" for line in made(count)), encoding="utf-8")
    return path
