"""`save` and `push_to_hub`: a model as one file, or as a folder with what other libraries look for and a model card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..arithmetic.schemes import QuantSpec, Scheme
from ..errors import CheckpointError
from ..models import Model
from ..version import VERSION
from ..zoo import hub
from .cards import model_card
from .checkpoints import write
from .header import MODEL_FILE


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
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{path} exists already; give another folder, or a file name ending in .safetensors.")
    try:
        _fill_beside(model, path, results or {})
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}. Make room, or write somewhere else.") from error
    return path


def _fill_beside(model: Model, path: Path, results: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, text in _companions(model, results).items():
            (beside / name).write_text(text, encoding="utf-8")
        write(model, beside / MODEL_FILE, results)
        beside.chmod(0o755)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _companions(model: Model, results: Mapping[str, Any]) -> dict[str, str]:
    files = {
        "README.md": model_card(model, results),
        "config.json": _json({**_host_config(model), "quantization_config": quantization_config(model)}),
    }
    if model.host.name == "open_clip":
        preprocessing = {k: v for k, v in model.preprocessing.items() if k != "kind"}
        config = {k: v for k, v in model.config.items() if k != "arch"}
        files["open_clip_config.json"] = _json({"model_cfg": config, "preprocess_cfg": preprocessing})
    if model.preprocessing:
        files["preprocessor_config.json"] = _json(model.preprocessing)
    return {**files, **(model.tokenizer_spec.files if model.tokenizer_spec else {})}


def _host_config(model: Model) -> dict[str, Any]:
    if model.host.name == "transformers":
        return {k: v for k, v in model.config.items() if k != "class"}
    return {"architecture": model.config.get("arch"), "library": model.host.name}


def quantization_config(model: Model) -> dict[str, Any]:
    """The recipe in the shape of compressed-tensors' `quantization_config` (one group for each quantized tower)."""
    groups = {
        f"group_{i}": _group(model, tower, scheme)
        for i, (tower, scheme) in enumerate(model.recipe.schemes.items())
        if tower in model.towers and not scheme.is_float
    }
    return {
        "quant_method": "compressed-tensors",
        "format": _format(groups),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "clipq_version": VERSION,
    }


def _format(groups: Mapping[str, Any]) -> str:
    recipes = {json.dumps({**group, "targets": None}, sort_keys=True) for group in groups.values()}
    return ("dense", "int-quantized", "mixed-precision")[min(len(recipes), 2)]


def _group(model: Model, tower: str, scheme: Scheme) -> dict[str, Any]:
    targets = [name for name in model.recipe.modules if model.host.tower_of(model.module, name) == tower]
    return {
        "targets": targets,
        "weights": _arguments(scheme.weights, dynamic=False),
        "input_activations": _arguments(scheme.activations, dynamic=True) if scheme.activations else None,
        "output_activations": None,
    }


def _arguments(spec: QuantSpec, dynamic: bool) -> dict[str, Any]:
    return {
        "num_bits": spec.bits,
        "type": "int",
        "symmetric": spec.symmetric,
        "strategy": spec.granularity,
        "group_size": spec.group_size,
        "dynamic": dynamic,
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
