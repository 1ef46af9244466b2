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
from .hosts import Host, embedder, find_host
from .inputs.preprocessing import Preprocess, build_preprocess
from .inputs.processors import read_processor
from .inputs.tokenization import Tokenize, TokenizerSpec, build_tokenizer, describe_tokenizer
from .methods import quantization
from .methods.quantization import Recipe
from .module_like import ModuleLike
from .modules.state import fingerprint
from .towers.rows import distinct

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
        self.module = module = embedder(module)
        self.host: Host = find_host(module)
        self.towers = self.host.towers(module)
        self._config = None if config is None else dict(config)
        known = (None, None) if processor is None else read_processor(processor)
        self.preprocessing = dict(preprocessing or known[0] or self.host.preprocessing(module) or {})
        self.tokenizer_spec = self._described(known[1] if tokenizer is None else tokenizer)
        self.source = {"host": self.host.name, **(source or {})}

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

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of preprocessed images [batch, 3, height, width]; of length 1 if asked."""
        self._require("image")
        features = self.host.encode_image(self.module, _to(pixels, self.device, self._dtype("image"))).float()
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def encode_text(self, texts: Tensor | str | Sequence[str], normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of token ids [batch, context] or of strings; of length 1 if asked."""
        self._require("text")
        ids, which = (texts, None) if isinstance(texts, Tensor) else self._tokenized(texts)
        features = self.host.encode_text(self.module, ids.to(self.device)).float()
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

    def _tokenized(self, texts: str | Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids [n, context] of the different ones among `texts`, and for each text the row that is its own."""
        places, which = distinct(texts := [texts] if isinstance(texts, str) else list(texts))
        return self.tokenizer([texts[place] for place in places]), which

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
