"""`save` and `push_to_hub`: a model as one file, or as a folder with what other libraries look for and a model card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..arithmetic.schemes import Scheme
from ..arithmetic.specs import QuantSpec
from ..errors import CheckpointError
from ..hosts.open_clip_text import NOT_OPEN_CLIPS
from ..hosts.transformers import own_config
from ..models import Model
from ..resources import atomic_path, json_text, output_folder
from ..version import VERSION
from ..zoo import hub
from .cards import model_card
from .checkpoints import write
from .header import GUARDED_FILE, MODEL_FILE

_MARK = "clipq_version"
_QUANTIZATION = "quantization_config"
_TOWER_CONFIGS = ("vision_config", "text_config")
QUANT_METHOD = "clipq"
_OTHER_WEIGHTS = (MODEL_FILE, f"{MODEL_FILE}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def save(model: Model | nn.Module, path: str | os.PathLike[str], *, results: Mapping[str, Any] | None = None) -> Path:
    """Write `model` to `path`: one file if that ends in `.safetensors`, else a folder as the hub expects it.

    `model`: a `clipq.Model`, or a module of a host library. `results`: measured results to keep in the header, as
    JSON values. Returns the path. The file appears complete or not at all; a folder must not exist yet or be empty.
    Raises `ClipqError` if the architecture's configuration cannot be told.
    """
    path = Path(path)
    wrapped = model if isinstance(model, Model) else Model(model)
    if path.suffix == ".safetensors":
        write(wrapped, path, results)
        return path
    return save_folder(wrapped, path, results)


def push_to_hub(
    model: Model | nn.Module,
    repo_id: str,
    *,
    results: Mapping[str, Any] | None = None,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload the folder that `save` would write to the hub repository `repo_id`; returns the commit's URL.

    `token`, `private` and `endpoint` (another hub) are huggingface_hub's. Raises `UploadError` if the hub refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = save(model, Path(folder, "model"), results=results)
        return hub.push(saved, repo_id, token=token, private=private, endpoint=endpoint)


def save_folder(model: Model, path: Path, results: Mapping[str, Any] | None = None) -> Path:
    """Write `model` as the folder `path`, which must not exist yet or be empty; it appears complete or not at all."""
    with output_folder(path) as folder:
        for name, text in _companions(model, results or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        write(model, folder / (GUARDED_FILE if _is_guarded(model) else MODEL_FILE), results)
    return path


def save_into(model: Model, folder: Path) -> None:
    """Write a quantized model of transformers (config.json and tensors) into `folder`, among whatever is in there.

    Raises `CheckpointError` if it has a model's float weights, which transformers would read as those of this one.
    """
    if there := [name for name in _OTHER_WEIGHTS if (folder / name).exists()]:
        raise CheckpointError(
            f"{folder} holds {there[0]}, the weights of another model; give another folder, or remove them first."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "config.json") as temporary:
            temporary.write_text(json_text(_config(model)), encoding="utf-8")
            write(model, folder / GUARDED_FILE)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error}. Make room, or write somewhere else.") from error


def _companions(model: Model, results: Mapping[str, Any]) -> dict[str, str]:
    files = {"README.md": model_card(model, results), "config.json": json_text(_config(model))}
    if model.host.name == "open_clip":
        preprocessing = {k: v for k, v in model.preprocessing.items() if k != "kind"}
        config = {k: v for k, v in model.config.items() if k not in NOT_OPEN_CLIPS}
        files["open_clip_config.json"] = json_text({"model_cfg": config, "preprocess_cfg": preprocessing})
    if model.preprocessing:
        files["preprocessor_config.json"] = json_text(model.preprocessing)
    return {**files, **(model.tokenizer_spec.files if model.tokenizer_spec else {})}


def _config(model: Model) -> dict[str, Any]:
    """What config.json says: the host's configuration, who wrote it, and how it is quantized.

    A float model of transformers is a plain folder of transformers, which reads it as it is.
    """
    config, quantization = {**_host_config(model), _MARK: VERSION}, quantization_config(model)
    if model.host.name != "transformers":
        return {**config, _QUANTIZATION: quantization}
    return _read_by_clipq(config, quantization) if _is_guarded(model) else config


def _is_guarded(model: Model) -> bool:
    """Whether transformers would take a file of it for one that it can read."""
    return model.host.name == "transformers" and bool(model.recipe.modules)


def _host_config(model: Model) -> dict[str, Any]:
    if model.host.name == "transformers":
        return own_config(model.config)
    return {"architecture": model.config.get("arch"), "library": model.host.name}


def _read_by_clipq(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `quantization` wherever a class of transformers looks: for one tower, in the tower's own part.

    Its `quant_method` is clipq's own (`clipq.plugins`). Where clipq is not imported, transformers skips a method that
    it does not know, and then finds no file of weights (`GUARDED_FILE`).
    """
    quantization = {"quant_method": QUANT_METHOD, **quantization}
    towers = {key: {**part, _QUANTIZATION: quantization} for key, part in config.items() if key in _TOWER_CONFIGS}
    return {**config, **towers, _QUANTIZATION: quantization}


def file_in(settings: Mapping[str, Any]) -> str:
    """The name of the model file beside the config.json that says `settings`."""
    label = settings.get(_QUANTIZATION) or {}
    return GUARDED_FILE if label.get("quant_method") == QUANT_METHOD else MODEL_FILE


def is_clipq_config(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a folder that `save` wrote; clipq 0.2 left its mark in the quantization_config."""
    return _MARK in settings or _MARK in (settings.get(_QUANTIZATION) or {})


def quantization_config(model: Model) -> dict[str, Any]:
    """The recipe as config.json tells it: one group for each quantized tower, or each scheme in a mixed one, in the
    vocabulary of compressed-tensors.

    It is no `quant_method` of compressed-tensors or another library: the tensors are not all of a kind that these read.
    """
    alike: dict[tuple[str, Scheme], list[str]] = {}
    for name in model.recipe.modules:
        tower = model.host.tower_of(model.module, name)
        alike.setdefault((tower, model.recipe.at(tower, name)), []).append(name)
    towers = list(model.recipe.schemes)
    parts = sorted(alike.items(), key=lambda one: towers.index(one[0][0]))
    groups = {f"group_{i}": _group(targets, scheme) for i, ((_, scheme), targets) in enumerate(parts)}
    return {"config_groups": groups, _MARK: VERSION, "read_by": "clipq.load"}


def _group(targets: list[str], scheme: Scheme) -> dict[str, Any]:
    return {
        "targets": targets,
        "weights": _arguments(scheme.weights, dynamic=False),
        "input_activations": _arguments(scheme.activations, scheme.activations.dynamic) if scheme.activations else None,
    }


def _arguments(spec: QuantSpec, dynamic: bool) -> dict[str, Any]:
    return {
        "num_bits": spec.bits,
        "type": spec.codebook or spec.kind,
        "symmetric": spec.symmetric,
        "strategy": spec.granularity,
        "group_size": spec.group_size,
        "dynamic": dynamic,
    }
