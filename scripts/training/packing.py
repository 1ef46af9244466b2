"""Pictures and their class indices in one parquet file, laid out as Hugging Face data sets lay out images."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def write_parquet(path: Path, pictures: Iterable[tuple[Image.Image, int]]) -> None:
    """Pack pictures and class indices; a tar of files this small would be mostly padding."""
    import pyarrow
    from pyarrow import parquet

    rows = [({"bytes": _encoded(picture), "path": None}, index) for picture, index in pictures]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    images, labels = pyarrow.array([image for image, _ in rows], kind), pyarrow.array([index for _, index in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"image": images, "label": labels}), path, compression="none")


def read_parquet(path: Path) -> tuple[list[Image.Image], list[int]]:
    """The pictures and class indices that `write_parquet` packed."""
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    return [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows], [
        row["label"] for row in rows
    ]


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=90, method=4)
    return buffer.getvalue()
