"""`RuntimeModel`: pictures and texts to vectors, as numpy arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, DataError, unknown_name
from ..files.header import Header
from ..files.spaces import tower_space
from ..inputs.given import LOGIT_SCALE, fill, open_picture, pictures, prompts, strings
from ..inputs.scaling import DECODE
from ..inputs.tokenizer_files import unpack_files
from ..machine import cores
from ..native.images import ImageTower
from ..native.texts import TextTower, distinct
from ..spaces.space import Space
from ..spaces.towers import TowerSpace

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypeAlias

    from PIL.Image import Image

    Picture: TypeAlias = Image | str | PathLike[str] | bytes | np.ndarray

_PICTURES, _TEXTS = 32, 256  # encoded at a time


class RuntimeModel:
    """A model of one file: `towers` are those that were loaded, `config` what the file's header says of it."""

    def __init__(
        self,
        header: Header,
        towers: Mapping[str, ImageTower | TextTower],
        tokenizer: bytes | None,
        threads: int | None = None,
    ):
        self.config, self.towers = dict(header.config), tuple(towers)
        self._header = header
        self._spaces: dict[str, TowerSpace] = {}
        self.threads = cores() if threads is None else threads
        self._towers, self._tokenizer_files = towers, tokenizer
        self._lock = threading.Lock()

    @cached_property
    def preprocess(self) -> Callable[[Image], np.ndarray]:
        """PIL image to float32 [3, height, width]. Raises `ClipqError` if the file has no settings for it."""
        settings = self.config["preprocessing"]
        if not settings:
            raise CheckpointError("this file came without preprocessing settings; give encode_image float32 pixels.")
        from .preprocessing import build_pixels

        return build_pixels(settings)

    @cached_property
    def tokenizer(self) -> Callable[[str | list[str]], np.ndarray]:
        """A string or n strings to int64 ids [n, context]. Raises `ClipqError` if the file has none."""
        settings = self.config.get("tokenizer")
        if settings is None:
            raise CheckpointError("this file came without a tokenizer; give encode_text token ids.")
        from .tokenizing import build_tokens

        return build_tokens(settings, {} if self._tokenizer_files is None else unpack_files(self._tokenizer_files))

    def encode_image(self, images: Picture | Sequence[Picture] | np.ndarray, normalize: bool = False) -> np.ndarray:
        """float32 embeddings [batch, width]; of length 1 if asked.

        `images`: a picture or a list of pictures: PIL images, paths, files' bytes, uint8 arrays [height, width, 3],
        turned as their EXIF orientation says; or preprocessed pixels, a float array [batch, 3, height, width].
        Raises `DataError`, before the work, for what the model does not take.
        """
        tower = self._tower("image")
        if isinstance(images, np.ndarray) and images.dtype.kind == "f":
            self._check_pixels(images, tower)
            return self._parts(lambda part: tower(images[part], self.threads), len(images), tower, _PICTURES, normalize)
        found, preprocess = pictures(images), self.preprocess

        def encode(part: slice) -> np.ndarray:
            pixels = np.stack([preprocess(open_picture(one)) for one in found[part]])
            self._check_pixels(pixels, tower)
            return tower(pixels, self.threads)

        return self._parts(encode, len(found), tower, _PICTURES, normalize)

    def encode_text(self, texts: str | Iterable[str] | np.ndarray, normalize: bool = False) -> np.ndarray:
        """float32 embeddings [batch, width]; of length 1 if asked.

        `texts`: a string, strings, or token ids, whole numbers [batch, context]. Equal ones are encoded once.
        Raises `DataError` for what the model does not take.
        """
        tower = self._tower("text")
        if isinstance(texts, np.ndarray) and texts.dtype.kind in "iu":
            self._check_ids(texts, tower)
            ids = texts.astype(np.int64)
            return self._parts(lambda part: tower(ids[part], self.threads), len(ids), tower, _TEXTS, normalize)
        places, which = distinct(found := strings(texts))

        def encode(part: slice) -> np.ndarray:
            ids = self._tokenized([found[place] for place in places[part]])
            self._check_ids(ids, tower)
            return tower(ids, self.threads)

        return self._parts(encode, len(places), tower, _TEXTS, normalize)[which]

    def classify(
        self, images: Any, labels: Sequence[str], templates: Sequence[str] = ("a photo of a {}",)
    ) -> np.ndarray:
        """Probabilities [batch, labels] of zero-shot classification (Radford et al., arXiv:2103.00020).

        `templates`: prompts with a "{}" (or "{c}") for the label, whose normalized embeddings are averaged. Raises
        `DataError` for no labels, no images, or a template without a place for the label.
        """
        names, forms = prompts(labels, templates)
        encoded = self.encode_image(images, normalize=True)
        if not len(encoded):
            raise DataError("there are no images to classify; give at least one.")
        texts = self.encode_text([fill(form, name) for name in names for form in forms], normalize=True)
        classes = _unit(texts.reshape(len(names), len(forms), -1).mean(axis=1))
        logits = LOGIT_SCALE * encoded @ classes.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def space(self, tower: str, decode: str = DECODE, normalized: bool = True) -> Space:
        """The vector space of what this model makes of pictures ("image") or of texts, as `clipq.Model.space` has it.

        The tensors in the file are hashed when it is first asked for, about a second for a GB. Raises
        `UnknownNameError` for a tower that was not loaded, `CheckpointError` for a file that says another space.
        """
        return self.tower_space(tower).space(decode, normalized)

    def tower_space(self, tower: str) -> TowerSpace:
        """What is the same in all spaces of a tower."""
        if tower not in self.towers:
            raise unknown_name("tower", tower, self.towers, "No other was loaded.")
        if tower not in self._spaces:
            self._spaces[tower] = tower_space(self._header, tower, read=True)
        return self._spaces[tower]

    def _tower(self, name: str) -> Any:
        if name not in self._towers:
            raise DataError(
                f"this model was loaded with its {' and '.join(self.towers)} tower; it has no {name} tower."
            )
        return self._towers[name]

    def _tokenized(self, texts: list[str]) -> np.ndarray:
        with self._lock:
            tokenizer = self.tokenizer
        return tokenizer(texts)

    @staticmethod
    def _parts(
        encode: Callable[[slice], np.ndarray], count: int, tower: ImageTower | TextTower, size: int, normalize: bool
    ) -> np.ndarray:
        found = np.empty((count, tower.outputs), np.float32)
        for start in range(0, count, size):
            found[start : start + size] = encode(slice(start, start + size))
        return _unit(found) if normalize else found

    @staticmethod
    def _check_pixels(pixels: np.ndarray, tower: ImageTower) -> None:
        if pixels.ndim != 4 or pixels.shape[1:] != tower.shape:
            raise DataError(
                f"pixels of shape {list(pixels.shape)} are not what this model takes: [batch, "
                f"{', '.join(map(str, tower.shape))}]. model.preprocess(picture) makes them, and encode_image takes "
                "pictures and paths too."
            )

    @staticmethod
    def _check_ids(ids: np.ndarray, tower: TextTower) -> None:
        if ids.ndim != 2 or ids.shape[1] != tower.context:
            raise DataError(
                f"token ids of shape {list(ids.shape)} are not what this model takes: [batch, {tower.context}]. "
                "model.tokenizer(texts) makes them, and encode_text takes strings too."
            )
        if ids.size and (ids.min() < 0 or ids.max() >= tower.vocabulary):
            raise DataError(
                f"token ids from {ids.min()} to {ids.max()} are not all of this model's vocabulary, 0 to "
                f"{tower.vocabulary - 1}. model.tokenizer(texts) makes ids that are."
            )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
