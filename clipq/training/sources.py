"""Training data: from what users have to one input at a time, read when it is needed, a little different each time.

For the image tower: a folder of pictures, a list of pictures (paths, bytes, PIL images, arrays), preprocessed images
[n, channels, height, width], or an iterable of batches of them. For the text tower: strings, a text file with one text
a line, or token ids [n, tokens]; where none are given, the captions of a folder (NAME.txt beside each NAME.jpg), else
clipq's own everyday words. Labels are not needed, and not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.precisions import check_towers
from ..errors import DataError, QuantizationError
from ..inputs import borders, folders, given
from ..methods.calibration import images_of, lines_of, named, opened
from ..methods.defaults import default_pictures, default_texts
from ..models import Model
from .views import view_of_picture, view_of_pixels

Data = Any
"""What the module's docstring lists, for the image tower or the only one, or {"image": ..., "text": ...}."""

MOST_WORDS = 4096
_PART = 32  # inputs that are read at a time


@dataclass(frozen=True)
class Source:
    """The inputs of one tower: how many, which (`digest`), and how one is read, as it is or as a random view of it."""

    count: int
    digest: str
    read: Callable[[int, torch.Generator | None], Tensor]

    def batches(self, places: Sequence[int]) -> Iterator[Tensor]:
        """The inputs at `places` as they are, some at a time."""
        for start in range(0, len(places), _PART):
            yield torch.stack([self.read(place, None) for place in places[start : start + _PART]])


def sources_for(model: Model, towers: Sequence[str], data: Data) -> dict[str, Source]:
    """A source for each of `towers`. Raises `DataError` for no data, or data that cannot be read, naming it."""
    given = _by_tower(towers, data)
    found = {}
    if "image" in towers:
        found["image"] = _pictures(model, given.get("image"))
    if "text" in towers:
        found["text"] = _texts(model, given.get("text", _captions(given.get("image"))))
    return found


def _by_tower(towers: Sequence[str], data: Data) -> Mapping[str, Any]:
    if data is None or (isinstance(data, (Mapping, Sequence)) and not len(data)):
        raise DataError(
            "there is nothing to train on; give data= a folder of pictures, a list of them, a tensor of preprocessed "
            'images, or {"image": ..., "text": ...}. A few hundred of the kind that will be embedded do.'
        )
    if not isinstance(data, Mapping):
        return {"image" if "image" in towers else "text": data}
    check_towers(data)
    if unused := [tower for tower in data if tower not in towers]:
        raise QuantizationError(
            f"data was given for the {unused[0]} tower, which this precision does not quantize; leave it out, or "
            f"quantize that tower too (trained are: {', '.join(towers)})."
        )
    return data


def _pictures(model: Model, data: Any) -> Source:
    if isinstance(data, Tensor):
        return _pixels(model, data)
    if data is None:
        data = default_pictures()
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        images = folders.pictures(data)
        return _of_pictures(model, images.entries, images.digest())
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, Sequence)):
        return _pixels(model, torch.cat([images_of(batch) for batch in data] or [torch.empty(0)]))
    found = borders.pictures(data)
    return _pixels(model, found) if isinstance(found, Tensor) else _of_pictures(model, found, _digest_of(found))


def _of_pictures(model: Model, pictures: Sequence[Any], digest: str) -> Source:
    _some(pictures, "picture")
    preprocess = model.preprocess

    def read(place: int, chance: torch.Generator | None) -> Tensor:
        try:
            picture = opened(pictures[place])
        except (OSError, DataError) as error:
            raise DataError(f"the picture {named(pictures[place], place)} cannot be read: {error}") from error
        return preprocess(picture if chance is None else view_of_picture(picture, chance))

    return Source(len(pictures), digest, read)


def _pixels(model: Model, pixels: Tensor) -> Source:
    _some(pixels, "image")
    borders.check_pixels(pixels, model.host.pixel_shape(model.module), model.host.any_size(model.module))

    def read(place: int, chance: torch.Generator | None) -> Tensor:
        image = pixels[place].float()
        return image if chance is None else view_of_pixels(image, chance)

    return Source(len(pixels), _sha(pixels.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()), read)


def _texts(model: Model, data: Any) -> Source:
    if isinstance(data, Tensor):
        ids = data.long()
        borders.check_ids(data, model.host.context_length(model.module), model.host.vocabulary(model.module))
    else:
        ids = model.tokenizer(_strings(data))
    _some(ids, "text")
    return Source(len(ids), _sha(ids.cpu().contiguous().numpy()), lambda place, chance: ids[place])


def _strings(data: Any) -> list[str]:
    if data is None:
        return default_texts(MOST_WORDS)
    if isinstance(data, (str, os.PathLike)):
        texts = [line for line in lines_of(Path(data)) if line.strip()]
    else:
        texts = given.strings(data)
    _some(texts, "text")
    return texts


def _captions(data: Any) -> list[str] | None:
    """What NAME.txt says beside each picture NAME.jpg of a folder; None unless every picture has one."""
    if not isinstance(data, (str, os.PathLike)) or not Path(data).is_dir():
        return None
    beside = [entry.path.with_suffix(".txt") for entry in folders.pictures(data).entries]
    if not all(path.is_file() for path in beside):
        return None
    return [" ".join(" ".join(lines_of(path)).split()) for path in beside]


def _some(found: Any, what: str) -> None:
    if not len(found):
        raise DataError(f"the data holds no {what}; give at least one.")


def _digest_of(pictures: Sequence[Any]) -> str:
    """sha256 (hex) of pictures in memory by their contents, of paths by name and size."""
    parts = []
    for one in pictures:
        if isinstance(one, (str, os.PathLike)):
            parts.append([os.fspath(one), Path(one).stat().st_size])
        else:
            parts.append(_sha(one if isinstance(one, (bytes, bytearray)) else _bytes_of(one)))
    return _sha(json.dumps(parts).encode())


def _bytes_of(picture: Any) -> bytes:
    return picture.tobytes()  # of PIL images and arrays


def _sha(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()
