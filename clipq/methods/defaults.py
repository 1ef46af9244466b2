"""What is calibrated on where the user gives nothing: the openly licensed photos that ship with clipq, everyday words.

Their licences and authors: eval/data/photos.md. They hold no picture of a benchmark.
"""

from __future__ import annotations

from typing import Any

from ..inputs.images import decode_upright, spread
from ..inputs.tables import table_images
from ..resources import resource

_SHARE = 0.7  # of the height and width that a cutting shows
_PLACES = ((0.0, 0.0), (1.0, 1.0))  # of the cuttings: top left, bottom right
_TEMPLATES = ("{}", "a photo of a {}.", "a picture of the {} in a room", "a close-up of a small {} with blue sky")
_CLASSES = 1000  # more than the labels of any set that ships


def default_pictures() -> list[Any]:
    """Each of the photos, whole and as two cuttings: 126 RGB PIL images."""
    images = table_images(
        [resource("eval", "data", "photos.parquet")], "image", "label", [""] * _CLASSES, "clipq's photos"
    )
    whole = [decode_upright(entry.read()) for entry in images.entries]
    return [one for picture in whole for one in (picture, *(_cutting(picture, place) for place in _PLACES))]


def _cutting(picture: Any, place: tuple[float, float]) -> Any:
    width, height = (round(_SHARE * side) for side in picture.size)
    left, top = (round(at * (1 - _SHARE) * side) for at, side in zip(place, picture.size, strict=True))
    return picture.crop((left, top, left + width, top + height))


def default_texts(count: int) -> list[str]:
    """At most `count` of everyday words in a few sentences."""
    words = resource("eval", "data", "drawings.classes.txt").read_text(encoding="utf-8").splitlines()
    words = [words[place] for place in spread(len(words), count)]
    return [_TEMPLATES[place % len(_TEMPLATES)].format(word) for place, word in enumerate(words)]
