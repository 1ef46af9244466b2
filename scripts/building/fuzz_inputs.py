"""Odd inputs to models: each gives embeddings of the right shape or a `ClipqError`; int8 refuses what fp32 refuses.

The same of `clipq.runtime`, which is given the models' files, and arrays in place of tensors.

    python scripts/building/fuzz_inputs.py --count 20000 --seed 0

Prints the outcomes counted, and the first of each kind that should not be. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import clipq
from clipq import runtime
from clipq.errors import ClipqError
from clipq.runtime.model import RuntimeModel

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 64, 72)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool)
DTYPES += (torch.complex64, torch.int32)
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "F", "LA", "I", "YCbCr")
TEXTS = ("", " ", "a cat", "\x00", "\ud800", "😀" * 50, "x" * 5000, "a\nb", "{}", "ÄÖ", "<|endoftext|>", "\u202e")


@dataclass(frozen=True)
class Subject:
    """A model in int8, the host's module of the same weights in float, and the runtime's model of the same file."""

    name: str
    model: clipq.Model
    float_module: nn.Module
    runtime: RuntimeModel

    @property
    def shape(self) -> tuple[int, ...]:
        return self.model.host.pixel_shape(self.model.module)

    @property
    def context(self) -> int:
        return self.model.host.context_length(self.model.module) or 8


_VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
_TEXT = {"context_length": 16, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1}
CONFIGS = {"open_clip": {"embed_dim": 48, "vision_cfg": _VISION, "text_cfg": _TEXT}}
"""Of models that cannot be saved without."""


def _open_clip() -> nn.Module:
    import open_clip

    return open_clip.CLIP(48, dict(_VISION), dict(_TEXT))


def _transformers(family: str) -> nn.Module:
    import transformers

    shared = {"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**shared, "hidden_size": 64, "image_size": 32, "patch_size": 8}
    text = {**shared, "hidden_size": 32, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99}
    config = getattr(transformers, f"{family}Config")(
        vision_config=vision, text_config={**text, "bos_token_id": 98, "pad_token_id": 1, "projection_size": 64}
    )
    return getattr(transformers, f"{family}Model")(config)


def _timm() -> nn.Module:
    import timm

    return timm.create_model("test_vit", pretrained=False, num_classes=0)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "open_clip": _open_clip,
    "transformers CLIP": lambda: _transformers("CLIP"),
    "transformers SigLIP": lambda: _transformers("Siglip"),
    "timm": _timm,
}


def subjects() -> list[Subject]:
    """One of each host, and the embedded model, which has a tokenizer and preprocessing."""
    torch.manual_seed(0)
    found = []
    for name, make in MODULES.items():
        module = make().eval()
        model = clipq.quantize(clipq.Model(deepcopy(module), config=CONFIGS.get(name)))
        found.append(Subject(name, model, module, _in_runtime(model)))
    tiny = clipq.load("clipq-tiny", precision="fp32")
    return [*found, Subject("clipq-tiny", clipq.load("clipq-tiny"), tiny.module, runtime.load("clipq-tiny"))]


def _in_runtime(model: clipq.Model) -> RuntimeModel:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        clipq.save(model, path)
        return runtime.load(path)


class Odd:
    """Draws inputs, some of them right, most of them nearly so."""

    def __init__(self, rng: random.Random, subject: Subject):
        self.rng, self.subject = rng, subject

    def pixels(self) -> Any:
        kinds = (self._near_pixels, self._near_pixels, self._tensor, self._picture, self._array, self._bytes)
        kinds += (self._thing,)
        made = self.rng.choice(kinds)
        return [self.rng.choice(kinds)() for _ in range(self.rng.choice((0, 1, 2)))] if self._rarely() else made()

    def texts(self) -> Any:
        kinds = (self._near_ids, self._near_ids, self._text, self._several_texts, self._tensor, self._thing)
        return self.rng.choice(kinds)()

    def _rarely(self) -> bool:
        return self.rng.random() < 0.15

    def _fill(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        values = torch.randn(shape) * self.rng.choice((1, 1, 1, 0, 100, 1e36, 1e-36))
        if values.numel() and self._rarely():
            values.view(-1)[self.rng.randrange(values.numel())] = self.rng.choice((float("nan"), float("inf"), -1e38))
        return values.to(dtype)

    def _near_pixels(self) -> torch.Tensor:
        shape = [self.rng.choice((0, 1, 2, 3)), *self.subject.shape]
        if self.rng.random() < 0.7:
            place = self.rng.randrange(4)
            shape[place] = self.rng.choice((*SIZES, shape[place] * 2, shape[place] + 1))
        if self._rarely():
            shape.insert(self.rng.randrange(5), self.rng.choice((1, 2)))
        elif self._rarely():
            shape.pop(self.rng.randrange(len(shape)))
        x = self._fill(tuple(shape), self.rng.choice((torch.float32, torch.float32, *DTYPES)))
        return self._viewed(x)

    def _viewed(self, x: torch.Tensor) -> torch.Tensor:
        views = (lambda: x, lambda: x.flip(0) if x.ndim else x, lambda: x.transpose(-1, -2) if x.ndim > 1 else x)
        wide = lambda: x[:1].expand(3, *x.shape[1:]) if x.ndim and len(x) else x  # noqa: E731
        return self.rng.choice((*views, wide, lambda: x.requires_grad_() if x.is_floating_point() else x))()

    def _tensor(self) -> torch.Tensor:
        shape = tuple(self.rng.choice(SIZES[:9]) for _ in range(self.rng.randrange(6)))
        return self._fill(shape, self.rng.choice(DTYPES))

    def _near_ids(self) -> torch.Tensor:
        length = self.rng.choice((self.subject.context, self.subject.context, 1, 0, 2, self.subject.context + 1))
        high = self.rng.choice((90, 100, 300, 49408, 2**31, 2**62))
        ids = torch.randint(-1 if self._rarely() else 0, high, (self.rng.choice((0, 1, 2, 5)), length))
        return ids.to(self.rng.choice((torch.int64, torch.int64, torch.int32, torch.float32, torch.int16)))

    def _text(self) -> str:
        return self.rng.choice(TEXTS)

    def _several_texts(self) -> Any:
        made = [self._text() if not self._rarely() else self._thing() for _ in range(self.rng.randrange(6))]
        return self.rng.choice((list, tuple))(made)

    def _picture(self) -> Image.Image:
        size = (self.rng.choice((1, 2, 5, 40, 300)), self.rng.choice((1, 3, 32, 64, 2000)))
        return Image.new(self.rng.choice(MODES), size)

    def _array(self) -> np.ndarray:
        shape = tuple(self.rng.choice((1, 3, 4, 8, 40)) for _ in range(self.rng.randrange(2, 5)))
        return np.zeros(shape, self.rng.choice((np.uint8, np.uint8, np.float32, np.int64)))

    def _bytes(self) -> bytes:
        return self.rng.randbytes(self.rng.choice((0, 1, 10, 1000)))

    def _thing(self) -> Any:
        return self.rng.choice((None, 5, 2.5, {}, "no/such/file.png", object(), [], [[]], True, ..., b"", ("a", 1)))


def outcome_of_model(subject: Subject, odd: Odd) -> str:
    """What one call of the model made of one input."""
    return _outcome(
        "", subject.model, odd, lambda given: given, lambda y: y.dtype == torch.float32 and not y.requires_grad
    )


def outcome_of_runtime(subject: Subject, odd: Odd) -> str:
    """What one call of the runtime's model made of one input."""
    return _outcome(
        "runtime ", subject.runtime, odd, _as_arrays, lambda y: isinstance(y, np.ndarray) and y.dtype == np.float32
    )


def _outcome(name: str, model: Any, odd: Odd, changed: Callable[[Any], Any], is_right: Callable[[Any], bool]) -> str:
    tower = odd.rng.choice(model.towers)
    given = changed(odd.pixels() if tower == "image" else odd.texts())
    try:
        found = (model.encode_image if tower == "image" else model.encode_text)(given)
    except ClipqError:
        return f"{name}{tower}: refused"
    except Exception as error:
        return f"BUG {name}{tower}: {type(error).__name__} for {_described(given)}: {str(error)[:120]}"
    right = is_right(found) and found.ndim == 2
    return f"{name}{tower}: embedded" if right else f"BUG {name}{tower}: {_described(found)} for {_described(given)}"


def _as_arrays(given: Any) -> Any:
    """The same input without torch: numpy has no bfloat16."""
    if isinstance(given, (list, tuple)):
        return type(given)(_as_arrays(one) for one in given)
    if not isinstance(given, torch.Tensor):
        return given
    return (given.detach().float() if given.dtype == torch.bfloat16 else given.detach()).numpy()


def outcome_of_module(subject: Subject, odd: Odd) -> str:
    """Whether the quantized module takes and refuses what the float one does."""
    host, tower = subject.model.host, odd.rng.choice(subject.model.towers)
    given = odd._near_pixels() if tower == "image" else odd._near_ids()
    call = host.encode_image if tower == "image" else host.encode_text
    as_float = given.float() if given.is_floating_point() else given  # other floats are cast, which loses nothing here
    found = [_tried(call, subject.float_module, as_float), _tried(call, subject.model.module, given)]
    if isinstance(found[0], str) and not isinstance(found[1], str):
        return f"BUG module {tower}: int8 takes {_described(given)}, fp32 says {found[0]}"
    if not isinstance(found[0], str) and not isinstance(found[1], str) and found[0].shape != found[1].shape:
        return f"BUG module {tower}: {list(found[1].shape)} for {list(found[0].shape)}, {_described(given)}"
    return f"module {tower}: {'refused' if isinstance(found[1], str) else 'embedded'}"


def _tried(call: Callable, module: nn.Module, given: torch.Tensor) -> torch.Tensor | str:
    try:
        with torch.no_grad():
            return call(module, given)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"


def _described(given: Any) -> str:
    if isinstance(given, torch.Tensor):
        ends = [given.min().item(), given.max().item()] if given.numel() and not given.is_complex() else []
        return f"tensor {list(given.shape)} {given.dtype} {ends}"
    return repr(given)[:100] if not isinstance(given, np.ndarray) else f"array {given.shape} {given.dtype}"


OUTCOMES = (outcome_of_model, outcome_of_model, outcome_of_module, outcome_of_runtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.exit(bool(run(args.count, args.seed)))


def run(count: int, seed: int) -> int:
    """Try `count` inputs; print what came of them. Returns how many should not have been."""
    warnings.simplefilter("ignore")
    rng, known, outcomes, bugs = random.Random(seed), subjects(), Counter(), Counter()
    torch.manual_seed(seed)
    for _ in range(count):
        subject = rng.choice(known)
        odd = Odd(rng, subject)
        found = rng.choice(OUTCOMES)(subject, odd)
        if found.startswith("BUG"):
            bugs[f"{subject.name}: {found}"] += 1
            found = "BUG"
        outcomes[found] += 1
    for text, number in bugs.most_common(40):
        print(f"{number} x {text}")
    print(", ".join(f"{name} {number}" for name, number in sorted(outcomes.items())))
    return outcomes["BUG"]


if __name__ == "__main__":
    main()
