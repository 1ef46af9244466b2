"""How files are called and what lies beside them: plainly, as Immich reads them, or as transformers.js does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ExportError, unknown_name
from ..hosts.open_clip_text import NOT_OPEN_CLIPS
from ..hosts.transformers import own_config
from ..inputs.portable import image_processor, tokenizer_files
from ..models import Model
from ..resources import json_text
from .copies import INPUTS, OUTPUTS

Files = dict[str, str]

_SAME = 1 - 1e-4  # the cosine of one text's two embeddings


@dataclass(frozen=True)
class Layout:
    """`graphs`: the stem of each tower's graph, "{suffix}" standing for its precision; `inputs` and `outputs`: their
    names; `ids`: the integer type of token ids; `normalize`: whether embeddings have length 1; `companions`: the text
    files beside, by path. `only`: the target, where just one has such files.
    """

    about: str
    graphs: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    companions: Callable[[Model, Sequence[str]], Files]
    ids: torch.dtype = torch.int64
    normalize: bool = False
    only: str | None = None

    def stem(self, model: Model, tower: str) -> str:
        return self.graphs[tower].format(suffix=_suffix(model, tower))


def layout_named(name: str, target: str) -> Layout:
    """Raises `UnknownNameError`, or `ExportError` for a layout of another target."""
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    layout = LAYOUTS[name]
    if layout.only not in (None, target):
        raise ExportError(f"layout={name!r} is for to={layout.only!r}; {target!r} has 'plain' and 'together'.")
    return layout


def _suffix(model: Model, tower: str) -> str:
    """What transformers.js calls a precision: https://huggingface.co/docs/transformers.js/guides/dtypes."""
    scheme = model.recipe.schemes[tower]
    if scheme.is_float:
        return "_fp16" if scheme.fallback == "fp16" else ""
    return "_q4" if scheme.weights.bits == 4 else "_quantized"


def hugging_face(model: Model, towers: Sequence[str]) -> Files:
    """preprocessor_config.json and the tokenizer's files, as far as the model came with them.

    Raises `ExportError` for a tokenizer that these files cannot say.
    """
    files: Files = {}
    if "image" in towers and model.preprocessing:
        files["preprocessor_config.json"] = json_text(image_processor(model.preprocessing))
    if "text" in towers and model.tokenizer_spec is not None:
        files |= _tokenizer(model)
    return files


def _tokenizer(model: Model) -> Files:
    """Raises `ExportError` where another padding would change embeddings."""
    if model.tokenizer_spec.settings["kind"] == "open_clip":
        ids = model.tokenizer(["a photo of a cat", "hello, world!"])
        end = ids.max()
        after = ids.argmax(-1, keepdim=True) < torch.arange(ids.shape[1])
        plain, padded = (model.encode_text(one, normalize=True) for one in (ids, torch.where(after, end, ids)))
        if (plain * padded).sum(-1).min() < _SAME:
            raise ExportError(
                "this text tower sees what texts are padded with, and no tokenizer.json pads as open_clip's tokenizer "
                "does; export the image tower alone: towers=('image',)."
            )
    return tokenizer_files(model.tokenizer_spec)


def _transformers_js(model: Model, towers: Sequence[str]) -> Files:
    return {**hugging_face(model, towers), "config.json": json_text(_config(model))}


def _config(model: Model) -> dict[str, Any]:
    """What chooses the class in transformers.js: the model's own configuration, or for others that of a CLIP."""
    if model.host.name == "transformers":
        return own_config(model.config)
    shape = model.host.pixel_shape(model.module)
    vision = {"model_type": "clip_vision_model", "image_size": shape[-1]}
    text = {"model_type": "clip_text_model", "max_position_embeddings": model.host.context_length(model.module)}
    return {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": vision, "text_config": text}


def _immich(model: Model, towers: Sequence[str]) -> Files:
    """config.json with open_clip's model_cfg, visual/preprocess_cfg.json, and the tokenizer in textual/."""
    if model.host.name != "open_clip" or not model.preprocessing or model.tokenizer_spec is None:
        raise ExportError(
            "layout='immich' is for models of open_clip that came with preprocessing and a tokenizer; "
            "use layout='plain', or load the model by name with clipq.load."
        )
    settings = {k: v for k, v in model.preprocessing.items() if k != "kind"}
    config = {k: v for k, v in model.config.items() if k not in NOT_OPEN_CLIPS}
    files = {"config.json": json_text(config), "visual/preprocess_cfg.json": json_text(settings)}
    return {**files, **{f"textual/{name}": body for name, body in _tokenizer(model).items()}}


LAYOUTS: Mapping[str, Layout] = {
    "plain": Layout("image and text in one folder", {"image": "image", "text": "text"}, INPUTS, OUTPUTS, hugging_face),
    "together": Layout("both towers in one graph", {"image": "model", "text": "model"}, INPUTS, OUTPUTS, hugging_face),
    "immich": Layout(
        "as Immich's machine learning reads it",
        {"image": "visual/model", "text": "textual/model"},
        {"image": "image", "text": "text"},
        OUTPUTS,  # it takes the first output, whatever its name
        _immich,
        ids=torch.int32,
        normalize=True,
        only="onnx",
    ),
    "transformers.js": Layout(
        "as transformers.js reads it",
        {"image": "onnx/vision_model{suffix}", "text": "onnx/text_model{suffix}"},
        INPUTS,
        OUTPUTS,
        _transformers_js,
        only="onnx",
    ),
}
