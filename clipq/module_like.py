"""`ModuleLike`: what code written for a CLIP of torch asks of a model besides its embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .arithmetic.precisions import resolve
from .errors import ClipqError, QuantizationError, unknown_name
from .hosts import Host
from .hosts.open_clip_text import with_text_config
from .hosts.structure import differing, structure
from .inputs.scaling import DECODE
from .inputs.tokenizer_files import TokenizerSpec
from .methods.dtypes import DTYPES, fallback_dtype
from .methods.finishing import finish
from .methods.quantization import quantize_module
from .methods.recipes import Recipe, stated_recipe
from .modules.raw import weights_digest
from .spaces.architectures import architecture
from .spaces.space import Space, digest_of
from .spaces.towers import TowerSpace, files_digest

_Like = TypeVar("_Like", bound="ModuleLike")


class ModuleLike(ABC):
    """A model that is called, moved and put to `eval()` as open_clip's CLIP is, so that code for that takes it."""

    module: nn.Module
    host: Host
    towers: tuple[str, ...]
    recipe: Recipe
    precision_name: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    tokenizer_spec: TokenizerSpec | None

    @abstractmethod
    def encode_image(self, pixels: Any, normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of preprocessed images or of pictures."""

    @abstractmethod
    def encode_text(self, texts: Tensor | str | Iterable[str], normalize: bool = False) -> Tensor:
        """float32 embeddings [batch, width] of token ids or strings."""

    def space(self, tower: str, decode: str = DECODE, normalized: bool = True) -> Space:
        """The vector space of what this model makes of pictures ("image") or of texts: `space.id` is its short name.

        decode: how JPEGs are decoded; normalized: whether vectors are of length 1. It is the same for the file that the
        model is saved to, whatever it runs on. The weights are hashed, about a second for a GB, and again after
        they changed. Raises `UnknownNameError` for a tower or a way to decode that there is not.
        """
        return self.tower_space(tower).space(decode, normalized)

    def tower_space(self, tower: str) -> TowerSpace:
        """What is the same in all spaces of a tower."""
        if tower not in self.towers:
            raise unknown_name("tower", tower, self.towers, "This model has no other.")
        recipe, spec = self.recipe, self.tokenizer_spec if tower == "text" else None
        scheme = recipe.schemes[tower]
        return TowerSpace(
            tower,
            weights_digest(self.module, self.host.name, self.towers, tower, scheme.fallback),
            scheme,
            self._architecture(tower)[0],
            self.preprocessing,
            None if spec is None else spec.settings,
            None if spec is None else self._tokenizer_digest(spec),
            [name for name in recipe.modules if self.host.tower_of(self.module, name) == tower],
        )

    def unlike_config(self) -> str | None:
        """In which respect the module is not what its configuration makes, in words; None where it is that."""
        return next((unlike for tower in self.towers if (unlike := self._architecture(tower)[1])), None)

    def _tokenizer_digest(self, spec: TokenizerSpec) -> str | None:
        """Of files that may have 34 MB, hashed once."""
        known = self.__dict__.get("_tokenizer_known")
        if known is None or known[0] is not spec:
            known = self.__dict__["_tokenizer_known"] = spec, files_digest(spec.files)
        return known[1]

    def _architecture(self, tower: str) -> tuple[dict[str, Any], str | None]:
        """The settings of a tower, and in which respect it is not what they make.

        With that, and where the host has no words for it, its modules are told: such a model cannot be saved.
        """
        found = self._structure(self.module, tower)
        known, key = self.__dict__.setdefault("_architectures", {}), (tower, modules := digest_of(found))
        if key not in known:  # the host has to build models to find it out
            try:
                stated, unlike = self._stated(tower, found)
            except ClipqError as error:
                stated, unlike = {"host": self.host.name}, str(error)
            known[key] = ({**stated, "modules": modules} if unlike else stated), unlike
        return known[key]

    def _stated(self, tower: str, found: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        config = with_text_config(self.module, self.config)
        stated = architecture(self.host.name, config, tower)
        try:
            made = self._made(config)[tower]
        except Exception as error:  # the border to libraries that are given a configuration from who knows where
            return stated, f"it cannot be built: {error}"
        return stated, None if made == found else differing(found, made)

    def _made(self, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The structure of each tower that `config` makes: built once."""
        known, key = self.__dict__.setdefault("_twins", {}), digest_of(config)
        if key not in known:
            with torch.random.fork_rng(devices=[]):
                twin = self.host.build(config)
            known[key] = {tower: self._structure(twin, tower) for tower in self.towers}
        return known[key]

    def _structure(self, module: nn.Module, tower: str) -> dict[str, Any]:
        return structure(module, lambda name: self.host.tower_of(module, name) == tower)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which images enter the model (texts, where it has no image tower): that of what stays float."""
        return self._dtype(self.towers[0])

    @property
    def logit_scale(self) -> Tensor | None:
        """The logarithm of what similarities are multiplied with, as the host learned it; None for one without."""
        return getattr(self.module, "logit_scale", None)

    @property
    def training(self) -> bool:
        return self.module.training

    def parameters(self) -> Iterator[nn.Parameter]:
        """The host's parameters: what stayed float. Int8 weights are buffers, and none of them."""
        return self.module.parameters()

    def eval(self: _Like) -> _Like:
        return self.train(False)

    def train(self: _Like, mode: bool = True) -> _Like:
        """As `nn.Module.train`, for float models; embeddings carry no gradient, so what is trained is `module`.

        Raises `QuantizationError` for a quantized model: an int8 weight has no gradient.
        """
        if mode and self._is_quantized():
            raise QuantizationError(
                f"a model of precision {self.precision_name!r} cannot be trained: its weights are integers. Train the "
                "float model (clipq.load(name, precision='fp32').module) and quantize the result."
            )
        self.module.train(mode)
        return self

    def to(
        self: _Like,
        device: str | int | torch.device | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> _Like:
        """Move the model in place, and give a float model another precision (float32, float16 or bfloat16).

        What stays float in a quantized model keeps the precision its scheme says, which "auto" makes fp16 on a GPU.
        Raises `QuantizationError` for another dtype than a quantized model's own.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        target = self.device if device is None else torch.device(device)
        if dtype is not None and any(self._dtype(tower, target) != dtype for tower in self.towers):
            quantize_module(self.module, dict.fromkeys(self.towers, resolve(self._float_precision(dtype))))
        if target != self.device:
            self.module.to(target, non_blocking=non_blocking)
            if (recipe := stated_recipe(self.module)) is not None:
                finish(self.module, self.host, recipe)
        return self

    def __call__(
        self, image: Any = None, text: Tensor | str | Iterable[str] | None = None
    ) -> dict[str, Tensor | None] | tuple[Tensor | None, ...]:
        """What open_clip's `CLIP.forward` gives: both normalized embeddings (None for what was not given) and the

        factor of their similarities, `logit_scale.exp()` (None where the model has none); with the `logit_bias` of
        a model that has one. A dictionary if the host's module has `output_dict` set, else a tuple.
        """
        scale, bias = self.logit_scale, getattr(self.module, "logit_bias", None)
        found = {
            "image_features": None if image is None else self.encode_image(image, normalize=True),
            "text_features": None if text is None else self.encode_text(text, normalize=True),
            "logit_scale": None if scale is None else scale.detach().exp(),
            **({} if bias is None else {"logit_bias": bias.detach()}),
        }
        return found if getattr(self.module, "output_dict", False) else tuple(found.values())

    def _is_quantized(self) -> bool:
        return not all(scheme.is_float for scheme in self.recipe.schemes.values())

    def _float_precision(self, dtype: torch.dtype) -> str:
        names = {known: name for name, known in DTYPES.items()}
        if self._is_quantized() or dtype not in names:
            raise QuantizationError(
                f"a model of precision {self.precision_name!r} cannot be made {dtype}; clipq.quantize(module, 'int8', "
                "fallback='bf16') says what stays float, and a float model may be float32, float16 or bfloat16."
            )
        return names[dtype]

    def _dtype(self, tower: str, device: torch.device | None = None) -> torch.dtype:
        """The dtype of what stays float in `tower`, on its device or on another one."""
        return fallback_dtype(self.recipe.schemes[tower], device or self.device)
