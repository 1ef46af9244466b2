"""`Model`: one face for every host's CLIP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ClipqError, DataError, QuantizationError
from .hosts import Host, embedder, find_host
from .inputs.borders import batch_of, check_ids, check_pixels, pictures
from .inputs.given import LOGIT_SCALE, fill, open_picture, prompts, strings
from .inputs.preprocessing import Preprocess, build_preprocess
from .inputs.processors import read_processor
from .inputs.scaling import DECODE, smallest_of
from .inputs.tokenization import Tokenize, build_tokenizer, describe_tokenizer
from .inputs.tokenizer_files import TokenizerSpec
from .inputs.tokenizer_names import tokenizer_named
from .kernels.resizing import natively
from .methods.finishing import kernel_path
from .methods.recipes import Recipe, recipe_of, stated_recipe
from .module_like import ModuleLike
from .modules.raw import fingerprint
from .towers.parts import each_once, in_parts
from .work.ahead import ahead
from .work.batches import readers

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy
    from PIL.Image import Image

    Picture: TypeAlias = Image | str | PathLike[str] | bytes | numpy.ndarray
    Pixels: TypeAlias = Tensor | Mapping[str, Tensor] | Picture | Sequence[Picture | Tensor]

_BATCH = 256  # rows encoded at a time: more are no faster, and take memory
_PIXELS = 1 << 24  # at most so many values of pixels, too: memory grows with the area of pictures
_PICTURES = 64  # opened and preprocessed at a time


class Model(ModuleLike):
    """A CLIP-like model with what it needs to be used: preprocessing, tokenizer, and where it came from.

    `module` is the host's model, `source` a dictionary saying where the weights came from, `towers` the towers it has.

    `tokenizer`: a `TokenizerSpec`, a tokenizer of open_clip or transformers, or the name of one: open_clip's
    architecture ("ViT-B-32"), a folder, or a hub id ("hf-hub:..." or "owner/name"). `processor`: what transformers'
    AutoProcessor loads; it has the preprocessing and the tokenizer, where these are not given.
    Code written for open_clip's CLIP takes a `Model` unchanged: it is called, moved and put to `eval()` as that is.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        config: Mapping[str, Any] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        tokenizer: TokenizerSpec | Any | None = None,
        processor: Any = None,
        source: Mapping[str, Any] | None = None,
    ):
        self.module = module = embedder(module)
        self.host: Host = find_host(module)
        self.towers = self.host.towers(module)
        self._config = None if config is None else dict(config)
        known = (None, None) if processor is None else read_processor(processor)
        if preprocessing is None:  # {} says that there is none, as a file may
            preprocessing = known[0] or self.host.preprocessing(module) or {}
        self.preprocessing = dict(preprocessing)
        self.tokenizer_spec = self._described(known[1] if tokenizer is None else tokenizer)
        self.source = {"host": self.host.name, **(source or {})}

    @property
    def recipe(self) -> Recipe:
        """What was done to the module: a scheme per tower, and which modules were replaced."""
        return stated_recipe(self.module) or self._found_recipe

    @cached_property
    def _found_recipe(self) -> Recipe:
        # Looking at every tensor costs milliseconds, which each call of an untouched model would pay.
        return recipe_of(self.module)

    @property
    def precision(self) -> dict[str, str]:
        """The name of each tower's precision, such as {"image": "int8", "text": "int8"}."""
        return {tower: self.recipe.schemes[tower].name for tower in self.towers}

    @property
    def precision_name(self) -> str:
        """One name where all towers share it ("int8"), else "image=int8,text=fp16"."""
        names = set(self.precision.values())
        return names.pop() if len(names) == 1 else ",".join(f"{k}={v}" for k, v in self.precision.items())

    @property
    def config(self) -> dict[str, Any]:
        """The host's architecture configuration; found out from the module where it was not given."""
        if self._config is None:
            self._config = self.host.config(self.module)
        return self._config

    @cached_property
    def preprocess(self) -> Preprocess:
        """PIL image to float tensor [3, height, width]. Raises `ClipqError` if the model came without settings."""
        if not self.preprocessing:
            raise ClipqError("this model came without preprocessing settings; load it by name with clipq.load.")
        return natively(build_preprocess(self.preprocessing))

    @cached_property
    def tokenizer(self) -> Tokenize:
        """A string or list of n strings to int64 ids [n, context]. Raises `ClipqError` if there is none."""
        if self.tokenizer_spec is None:
            raise ClipqError("this model came without a tokenizer; pass token ids, or load it by name with clipq.load.")
        return build_tokenizer(self.tokenizer_spec)

    @torch.no_grad()
    def encode_image(self, pixels: Pixels, normalize: bool = False, decode: str = DECODE) -> Tensor:
        """float32 embeddings [batch, width]; of length 1 if asked.

        `pixels`: preprocessed images [batch, 3, height, width], a tensor of any floating-point type, which is cast; or
        a picture or a list of pictures: PIL images, paths, files' bytes, uint8 arrays [height, width, 3], turned as
        their EXIF orientation says; or a mapping of what the host's own forward takes (SigLIP 2 NaFlex: patches, mask,
        grid). None at all give [0, width]. Raises `DataError`, before the work, for what the model does not take.
        decode: of files; "scaled" lets the JPEG decoder leave out what is far below the model's size, "exact" nothing.
        """
        self._require("image")
        if isinstance(pixels, Mapping):
            return self._encode_mapping(pixels, normalize)
        pixels = pixels if isinstance(pixels, Tensor) else pictures(pixels)
        if isinstance(pixels, list):
            return self._encode_pictures(pixels, normalize, decode)
        check_pixels(pixels, self.host.pixel_shape(self.module), self.host.any_size(self.module))
        if len(pixels) == 0:
            return self._no_images(normalize)
        most = max(1, min(_BATCH, _PIXELS // pixels[0].numel()))
        return in_parts(lambda part: self._encode_pixels(pixels[part], normalize), len(pixels), most)

    @torch.no_grad()
    def encode_text(self, texts: Tensor | str | Iterable[str], normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width]; of length 1 if asked.

        `texts`: a string, strings, or token ids [batch, tokens] of at most the context's length. Equal strings are
        encoded once. None at all give [0, width]. Raises `DataError` for what the model does not take.
        """
        self._require("text")
        if not isinstance(texts, Tensor):
            if not (texts := strings(texts)):
                return self._no_texts(normalize)
            return each_once(texts, lambda some: self._encode_ids(self._tokenized(some), normalize), _BATCH)
        self._check_ids(texts)
        if len(texts) == 0:
            return self._no_texts(normalize)
        return in_parts(lambda part: self._encode_ids(texts[part], normalize), len(texts), _BATCH)

    def classify(self, images: Pixels, labels: Sequence[str], templates: Sequence[str] | None = None) -> Tensor:
        """Probabilities [batch, labels] of zero-shot classification (Radford et al., arXiv:2103.00020).

        `images`: as for `encode_image`. `templates`: prompts with a "{}" (or "{c}") for the label, whose normalized
        embeddings are averaged; default: "a photo of a {}". Raises `DataError` for no labels, no images, or a template
        without a place for the label.
        """
        names, forms = prompts(labels, ["a photo of a {}"] if templates is None else templates)
        encoded_images = self.encode_image(images, normalize=True)
        if len(encoded_images) == 0:
            raise DataError("there are no images to classify; give at least one.")
        texts = [fill(form, name) for name in names for form in forms]
        encoded = self.encode_text(texts, normalize=True)
        classes = F.normalize(encoded.view(len(names), len(forms), -1).mean(dim=1), dim=-1)
        return (LOGIT_SCALE * encoded_images @ classes.T).softmax(dim=-1)

    def fingerprint(self) -> str:
        """sha256 (hex) of what the model computes with: its tensors and its schemes."""
        schemes = {tower: self.recipe.schemes[tower].to_dict() for tower in self.towers}
        return fingerprint(self.module, json.dumps(schemes, sort_keys=True))

    def kernel_path(self) -> str:
        """The kernels its int8 linears run on, such as "native" or "int_mm"; "float" without int8."""
        return kernel_path(self.module)

    def _encode_pictures(self, images: list[Any], normalize: bool, decode: str) -> Tensor:
        """Threads open and preprocess them while those before are encoded."""
        smallest = smallest_of(self.preprocessing, decode)
        if not images:
            return self._no_images(normalize)
        preprocess = self.preprocess
        # One thread a picture object: Pillow reads it when it is first looked at, and two at once would disturb it.
        threads = readers() if 1 < len(images) == len(set(map(id, images))) else 0
        with ahead(lambda one: preprocess(open_picture(one, smallest)), images, threads, _PICTURES) as opened:

            def encode(part: slice) -> Tensor:
                pixels = [next(opened).result() for _ in images[part]]
                return self.encode_image(torch.stack(pixels), normalize)

            return in_parts(encode, len(images), _PICTURES)

    def _encode_mapping(self, inputs: Mapping[str, Any], normalize: bool) -> Tensor:
        """Of what the host's processor gives. Pixels alone are checked as pixels; the rest is for the host to check."""
        pixels = inputs.get("pixel_values")
        if len(inputs) == 1 and isinstance(pixels, Tensor) and pixels.ndim == 4:
            return self.encode_image(pixels, normalize)
        batch = batch_of(inputs)
        if batch is None or batch <= _BATCH:
            return self._encode_pixels(inputs, normalize)
        return in_parts(
            lambda part: self._encode_pixels({k: v[part] for k, v in inputs.items()}, normalize), batch, _BATCH
        )

    def _encode_pixels(self, pixels: Tensor | Mapping[str, Any], normalize: bool) -> Tensor:
        inputs, shape = _to(pixels, self.device, self._dtype("image")), self.host.pixel_shape(self.module)
        usual = isinstance(pixels, Tensor) and (*pixels.shape[1:],) == shape
        encode = self.host.encode_image if usual else _asked(self.host.encode_image, pixels)
        return _finished(encode(self.module, inputs), normalize)

    def _encode_ids(self, ids: Tensor, normalize: bool) -> Tensor:
        usual = ids.shape[1] == self.host.context_length(self.module)
        encode = self.host.encode_text if usual else _asked(self.host.encode_text, ids)
        return _finished(encode(self.module, ids.to(self.device)), normalize)

    def _no_images(self, normalize: bool) -> Tensor:
        """[0, width], of which the model knows the width when it has embedded something."""
        if (shape := self.host.pixel_shape(self.module)) is None:
            raise DataError("there are no images, and a model of no fixed size cannot say how wide embeddings are.")
        return self._encode_pixels(torch.zeros(1, *shape), normalize)[:0]

    def _no_texts(self, normalize: bool) -> Tensor:
        blank = torch.zeros(1, self.host.context_length(self.module) or 1, dtype=torch.int64)
        return self._encode_ids(blank, normalize)[:0]

    def _tokenized(self, texts: list[str]) -> Tensor:
        """Token ids [n, context] of n strings."""
        tokenizer = self.tokenizer
        try:
            ids = tokenizer(texts)
        except Exception as error:  # the border to libraries that are given whatever users have
            raise DataError(f"the tokenizer cannot read the texts {texts[:2]!r:.120} ...: {error}") from error
        self._check_ids(ids)
        return ids

    def _check_ids(self, ids: Tensor) -> None:
        check_ids(ids, self.host.context_length(self.module), self.host.vocabulary(self.module))

    def _described(self, tokenizer: Any) -> TokenizerSpec | None:
        if tokenizer is None or isinstance(tokenizer, TokenizerSpec):
            return tokenizer
        if "text" not in self.towers:
            return None
        find = tokenizer_named if isinstance(tokenizer, (str, PathLike)) else describe_tokenizer
        return find(tokenizer, self.host.context_length(self.module))

    def _require(self, tower: str) -> None:
        if tower not in self.towers:
            raise QuantizationError(
                f"{type(self.module).__name__} has no {tower} tower, only {' and '.join(self.towers)}."
            )

    def __repr__(self) -> str:
        name = self.source.get("name") or self.source.get("arch") or type(self.module).__name__
        return f"clipq.Model({name!r}, precision={self.precision_name!r}, device='{self.device}')"


def _to(pixels: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(pixels, Mapping):
        return pixels.to(device, dtype)
    moved = {}
    for name, value in pixels.items():
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        moved[name] = value.to(device, dtype if is_float else None) if isinstance(value, Tensor) else value
    return moved


def _finished(features: Tensor, normalize: bool) -> Tensor:
    features = features.float()
    return F.normalize(features, dim=-1) if normalize else features


def _asked(encode: Callable[..., Tensor], given: Any) -> Callable[..., Tensor]:
    """`encode`, whose refusal of a shape that some models of the host take and others do not is the user's mistake."""

    def ask(module: nn.Module, inputs: Any) -> Tensor:
        try:
            return encode(module, inputs)
        except (ClipqError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError, AttributeError) as error:
            what = f"a mapping of {[*given]}" if isinstance(given, Mapping) else f"shape {list(given.shape)}"
            raise DataError(f"{type(module).__name__} does not take inputs of {what}: {error}") from error

    return ask
