"""Small real files with pictures of four colours: a folder, a tar, a table."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from clipq.inputs.images import Images

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "dark_grey": (70, 70, 70)}


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A noisy patch of one colour."""
    noise = np.random.default_rng(seed).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def colour_folder(root: Path, per_class: int = 3) -> Path:
    """A folder of class folders, `per_class` pictures each."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            picture(colour, 100 * number + i).save(root / name / f"{i}.png")
    return root


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def colour_tar(path: Path, per_class: int = 3) -> Path:
    """The pictures of `colour_folder` as webdataset samples."""
    members = []
    for label, colour in enumerate(COLOURS.values()):
        for i in range(per_class):
            members.append((f"{label}_{i}.png", encoded(picture(colour, 100 * label + i))))
            members.append((f"{label}_{i}.cls", f"{label}\n".encode()))
    return write_tar(path, members)


def write_table(path: Path, images: Images) -> Path:
    """A parquet file of `images`, laid out as data sets of the hub are."""
    import datasets

    path.parent.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    encoded_images = [{"bytes": entry.read(), "path": None} for entry in images.entries]
    rows = {"image": encoded_images, "label": [entry.label for entry in images.entries]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path
