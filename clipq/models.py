"""`Model`: one face for every host's CLIP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ClipqError, QuantizationError
from .hosts import Host, find_host
from .inputs.preprocessing import Preprocess, build_preprocess
from .inputs.processors import read_processor
from .inputs.tokenization import Tokenize, TokenizerSpec, build_tokenizer, describe_tokenizer
from .methods import quantization
from .methods.quantization import Recipe
from .module_like import ModuleLike
from .modules.state import fingerprint
from .towers.rows import Tower, TowerView, distinct, run_image, run_text

if TYPE_CHECKING:
    from PIL.Image import Image

_PROMPTS = 256  # encoded at a time: more is no faster, and takes memory
_LOGIT_SCALE = 100.0  # CLIP clips its learned scale at 100, and zero-shot evaluation uses 100


class Model(ModuleLike):
    """A CLIP-like model with what it needs to be used: preprocessing, tokenizer, and where it came from.

    `module` is the host's model, `source` a dictionary saying where the weights came from, `towers` the towers it has.

    `tokenizer`: a `TokenizerSpec`, or a tokenizer of open_clip or transformers. `processor`: what transformers'
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
        self.module = module
        self.host: Host = find_host(module)
        self.towers = self.host.towers(module)
        self._config = None if config is None else dict(config)
        known = (None, None) if processor is None else read_processor(processor)
        self.preprocessing = dict(preprocessing or known[0] or self.host.preprocessing(module) or {})
        self.tokenizer_spec = self._described(known[1] if tokenizer is None else tokenizer)
        self.source = {"host": self.host.name, **(source or {})}
        self._views: dict[str, TowerView] = {}

    @property
    def recipe(self) -> Recipe:
        """What was done to the module: a scheme per tower, and which modules were replaced."""
        return quantization.stated_recipe(self.module) or self._found_recipe

    @cached_property
    def _found_recipe(self) -> Recipe:
        # Looking at every tensor costs milliseconds, which each call of an untouched model would pay.
        return quantization.recipe_of(self.module)

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
        return build_preprocess(self.preprocessing)

    @cached_property
    def tokenizer(self) -> Tokenize:
        """A string or list of n strings to int64 ids [n, context]. Raises `ClipqError` if there is none."""
        if self.tokenizer_spec is None:
            raise ClipqError("this model came without a tokenizer; pass token ids, or load it by name with clipq.load.")
        return build_tokenizer(self.tokenizer_spec)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of preprocessed images [batch, 3, height, width]; of length 1 if asked."""
        self._require("image")
        pixels = _to(pixels, self.device, self._dtype("image"))
        tower = self._tower("image") if isinstance(pixels, Tensor) and pixels.ndim == 4 and len(pixels) else None
        features = (run_image(tower, pixels) if tower else self.host.encode_image(self.module, pixels)).float()
        return F.normalize(features, dim=-1) if normalize else features

    @torch.inference_mode()
    def encode_text(self, texts: Tensor | str | Sequence[str], normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of token ids [batch, context] or of strings; of length 1 if asked."""
        self._require("text")
        ids, which = self._distinct_ids(texts)
        ids = ids.to(self.device)
        tower = self._tower("text") if ids.ndim == 2 and len(ids) else None
        fits = tower is not None and 0 < ids.shape[1] <= tower.context
        features = (run_text(tower, ids) if fits else self.host.encode_text(self.module, ids)).float()
        features = features if which is None else features[which]
        return F.normalize(features, dim=-1) if normalize else features

    def classify(
        self, images: Image | Sequence[Image] | Tensor, labels: Sequence[str], templates: Sequence[str] | None = None
    ) -> Tensor:
        """Probabilities [batch, labels] of zero-shot classification (Radford et al., arXiv:2103.00020).

        `images`: PIL images or preprocessed pixels. `templates`: prompts with a "{}" (or "{c}") for the label, whose
        normalized embeddings are averaged; default: "a photo of a {}".
        """
        if isinstance(images, Tensor):
            pixels = images
        else:
            pixels = torch.stack([self.preprocess(i) for i in (images if isinstance(images, Sequence) else [images])])
        prompts = templates or ["a photo of a {}"]
        texts = [_fill(prompt, label) for label in labels for prompt in prompts]
        parts = [texts[i : i + _PROMPTS] for i in range(0, len(texts), _PROMPTS)]
        encoded = torch.cat([self.encode_text(part, normalize=True) for part in parts])
        classes = F.normalize(encoded.view(len(labels), len(prompts), -1).mean(dim=1), dim=-1)
        return (_LOGIT_SCALE * self.encode_image(pixels, normalize=True) @ classes.T).softmax(dim=-1)

    def fingerprint(self) -> str:
        """sha256 (hex) of what the model computes with: its tensors and its schemes."""
        schemes = {tower: self.recipe.schemes[tower].to_dict() for tower in self.towers}
        return fingerprint(self.module, json.dumps(schemes, sort_keys=True))

    def kernel_path(self) -> str:
        """The kernels its int8 linears run on, such as "native" or "int_mm"; "float" without int8."""
        return quantization.kernel_path(self.module)

    def _distinct_ids(self, texts: Tensor | str | Sequence[str]) -> tuple[Tensor, list[int] | None]:
        """Token ids [n, context] without repetition, and for each text the row that is its own (None: in order)."""
        if isinstance(texts, Tensor):
            ids, which = texts, range(len(texts))
        else:
            places, which = distinct(texts := [texts] if isinstance(texts, str) else list(texts))
            ids = self.tokenizer([texts[place] for place in places])
        if ids.ndim == 2:  # other texts may have the same ids: "A cat" and "a cat"
            places, of_ids = distinct(row.tobytes() for row in ids.cpu().numpy())
            if len(places) < len(ids):
                ids, which = ids[places], [of_ids[row] for row in which]
        return ids, None if len(which) == len(ids) else list(which)

    def _tower(self, name: str) -> Tower | None:
        """How to run a tower over rows, if that is known and nothing on it asks for the host's own forward."""
        view = self._views.get(name)
        if view is None or not view.is_of(self.module):
            find = {"image": self.host.image_tower, "text": self.host.text_tower}[name]
            view = self._views[name] = TowerView(self.module, find(self.module) if self._by_rows(name) else None)
        return view.usable()

    def _by_rows(self, tower: str) -> bool:
        """Whether a row's result depends on no other row; a range that all rows share changes with their number."""
        activations = self.recipe.schemes[tower].activations
        return activations is None or activations.granularity != "tensor"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}}  # a copy has modules of its own

    def _described(self, tokenizer: Any) -> TokenizerSpec | None:
        if tokenizer is None or isinstance(tokenizer, TokenizerSpec):
            return tokenizer
        return describe_tokenizer(tokenizer, self.host.context_length(self.module)) if "text" in self.towers else None

    def _require(self, tower: str) -> None:
        if tower not in self.towers:
            raise QuantizationError(
                f"{type(self.module).__name__} has no {tower} tower, only {' and '.join(self.towers)}."
            )

    def __repr__(self) -> str:
        name = self.source.get("name") or self.source.get("arch") or type(self.module).__name__
        return f"clipq.Model({name!r}, precision={self.precision_name!r}, device='{self.device}')"


def _to(pixels: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(pixels, Mapping):  # SigLIP 2 NaFlex: patches, their mask and their grid
        return {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in pixels.items()}
    return pixels.to(device, dtype)


def _fill(template: str, label: str) -> str:
    return template.replace("{c}", label).replace("{}", label)
