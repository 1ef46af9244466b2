"""`write` and `read`: one self-describing `.safetensors` file. Strict, sealed with hashes, bit-equal, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ClipqError
from ..hosts import Host, host_named
from ..hosts.descriptions import describe
from ..hosts.open_clip_text import with_text_config
from ..inputs.preprocessing import check_preprocessing
from ..inputs.tokenizer_files import TokenizerSpec, check_tokenizer, unpack_files
from ..methods.finishing import finish
from ..methods.recipes import Recipe
from ..methods.replacing import rebuild
from ..models import Model
from ..modules.raw import DTYPES
from ..modules.state import PACKED, Slot, shapes, slots
from ..resources import atomic_path
from ..version import VERSION
from ..zoo.offline import no_network
from .header import (
    CONFIG_KEY,
    DATA_HASH_KEY,
    FORMAT_VERSION,
    HEADER_HASH_KEY,
    NO_HASH,
    VERSION_KEY,
    Header,
    check_data,
    read_header,
    seal,
)
from .limits import Limits, check_numbers, limited
from .spaces import KEY, TOKENIZER, described_spaces

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def write(model: Model, path: Path, results: Mapping[str, Any] | None = None) -> None:
    """Write the single file, sealed with its hashes. Raises `CheckpointError` if it could not be written, or read."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described = description(model, results)
    _check_settings(path, described, model.host.context_length(model.module) or None)
    metadata = {
        "format": "pt",
        VERSION_KEY: str(FORMAT_VERSION),
        CONFIG_KEY: _to_json(path, described),
        DATA_HASH_KEY: NO_HASH,
        HEADER_HASH_KEY: NO_HASH,
    }
    try:
        with atomic_path(path) as temporary:
            save_file(_tensors(model), temporary, metadata)
            seal(temporary)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}. Make room, or write somewhere else.") from error


def _to_json(path: Path, values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be written: results, source and configurations are kept as JSON, and {error}."
        ) from error


def description(model: Model, results: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything but the tensors that is needed to rebuild `model`, as JSON values."""
    tokenizer = model.tokenizer_spec
    return {
        "clipq": VERSION,
        "host": model.host.name,
        "config": with_text_config(model.module, model.config),
        "preprocessing": model.preprocessing,
        "tokenizer": None if tokenizer is None else tokenizer.settings,
        "recipe": model.recipe.to_dict(),
        "source": dict(model.source),
        "results": dict(results or {}),
        KEY: described_spaces(model),
        "towers": {tower: describe(model.module, model.host, tower) for tower in model.towers},
        **_parameters(model.module),
    }


def _parameters(module: nn.Module) -> dict[str, int]:
    """How many weights there are, where the shapes of the tensors do not say it: several lie in a byte of some."""
    if not any(name.endswith(PACKED) for name in slots(module)):
        return {}
    return {"parameters": sum(prod(shape) for shape in shapes(module).values())}


def _tensors(model: Model) -> dict[str, Tensor]:
    tensors = {name: slot.tensor.detach().cpu().contiguous() for name, slot in slots(model.module).items()}
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and owners.setdefault(tensor.data_ptr(), name) != name:
            tensors[name] = tensor.clone()  # tied weights: safetensors refuses shared memory
    if model.tokenizer_spec is not None and model.tokenizer_spec.files:
        tensors[TOKENIZER] = torch.frombuffer(bytearray(model.tokenizer_spec.pack()), dtype=torch.uint8)
    return tensors


def read(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """The model in a file (or folder) that `save` wrote, on `device`. Embeddings are bit-equal to those before saving.

    Raises `CheckpointError` naming the file and the tensor for anything that is not exactly as written.
    """
    header = checked_header(path)
    config = header.config
    module, host, recipe = _skeleton(header, config)
    with border(header):
        length, shape = host.context_length(module) or None, host.pixel_shape(module)  # 0: texts of any length
        if shape is not None and not all(type(side) is int and side > 0 for side in shape):
            raise CheckpointError(f"it takes images of {list(shape)}, which there are none of.")
    _check_settings(header.path, config, length)
    _compare(header, module)
    tensors = load_tensors(header, torch.device(device))
    files = _take_tokenizer(header, tensors)
    assign(header, module, tensors)
    move_buffers(module, torch.device(device))
    with border(header):
        finish(module, host, recipe)
    return _wrap(module, config, files)


def checked_header(path: str | os.PathLike[str]) -> Header:
    """The header of a file of which the numbers, the settings and the tensors' bytes have been checked too."""
    header = read_header(path)
    check_numbers(header)
    _check_settings(header.path, header.config, None)
    check_data(header)
    return header


def _check_settings(path: Path, config: Mapping[str, Any], context_length: int | None) -> None:
    try:
        check_preprocessing(config["preprocessing"])
        if config.get("tokenizer") is not None:
            check_tokenizer(config["tokenizer"], context_length)
    except ClipqError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def border(header: Header) -> Iterator[None]:
    """The border to libraries that are given a configuration from who knows where: their errors become ours."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{header.path}: its {header.config['host']} model cannot be built here: {error}"
        ) from error


def _skeleton(header: Header, config: Mapping[str, Any]) -> tuple[nn.Module, Host, Recipe]:
    with border(header), no_network(), limited(Limits.of(header)):
        host, recipe = host_named(config["host"]), Recipe.from_dict(config["recipe"])
        module = host.build(config["config"])
        if set(recipe.schemes) != set(host.towers(module)):
            raise CheckpointError(f"the recipe is for {sorted(recipe.schemes)}, not {sorted(host.towers(module))}.")
        rebuild(module, host, recipe)
    return module, host, recipe


def _wrap(module: nn.Module, config: Mapping[str, Any], files: dict[str, str]) -> Model:
    settings = config.get("tokenizer")
    return Model(
        module,
        config=config["config"],
        preprocessing=config["preprocessing"],
        tokenizer=None if settings is None else TokenizerSpec(settings, files),
        source=config["source"],
    )


def load_tensors(header: Header, device: torch.device, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors called `names` (default: all) of a checked file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(header.path, framework="pt", device=str(device)) as file:
            # Copied out of the mapped file: what happens to the file later is nothing to the model, and floats at
            # addresses that are no multiple of 64 are summed in another order, so embeddings would differ in a bit.
            return {name: file.get_tensor(name).clone() for name in (header.tensors if names is None else names)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{header.path} cannot be read: {error}") from error


def _take_tokenizer(header: Header, tensors: dict[str, Tensor]) -> dict[str, str]:
    packed = tensors.pop(TOKENIZER, None)
    if packed is None:
        return {}
    try:
        if packed.dtype != torch.uint8:
            raise CheckpointError(f"its dtype is {packed.dtype}, not torch.uint8.")
        return unpack_files(packed.cpu().numpy().tobytes())
    except CheckpointError as error:
        raise CheckpointError(f"{header.path}: tensor {TOKENIZER!r}: {error}") from error


def _compare(header: Header, module: nn.Module) -> None:
    """Raise `CheckpointError` unless the file has every tensor of `module`, of its shape and dtype, and no other."""
    places = slots(module)
    needed = (TOKENIZER,) if (header.config.get("tokenizer") or {}).get("kind") == "transformers" else ()
    for name in (*needed, *places):
        if name not in header.tensors:
            raise CheckpointError(f"{header.path}: tensor {name!r} is missing.")
    for name, slot in places.items():
        compare_one(header, name, slot)
    if extra := sorted(set(header.tensors) - set(places) - {TOKENIZER}):
        raise CheckpointError(f"{header.path}: tensor {extra[0]!r} is not part of the model ({len(extra)} such).")


def compare_one(header: Header, name: str, slot: Slot) -> None:
    """Raise `CheckpointError` unless the file's tensor `name` has the shape and a dtype that `slot` takes."""
    expected, entry = slot.tensor, header.tensors[name]
    shape, dtype = list(entry["shape"]), DTYPES[entry["dtype"]]
    where = f"{header.path}: tensor {name!r} has"
    if shape != list(expected.shape):
        raise CheckpointError(f"{where} shape {shape}, the model needs {list(expected.shape)}.")
    if dtype not in _allowed(slot):
        raise CheckpointError(f"{where} dtype {dtype}, the model needs {expected.dtype}.")


def _allowed(slot: Slot) -> tuple[torch.dtype, ...]:
    """The dtypes that the tensor may have in a file."""
    if slot.is_extra and slot.attribute == "weight_scale":
        return (torch.float32, torch.float16) if slot.module.spec.has_half_scales else (torch.float32,)
    cast = slot.tensor.is_floating_point() and not slot.is_extra and not slot.is_quantized
    return _FLOATS if cast else (slot.tensor.dtype,)


def assign(header: Header, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors under the names that they have on disk into `module`. Raises `CheckpointError` for no numbers."""
    for name, slot in slots(module).items():
        if slot.is_extra and not tensors[name].isfinite().all():
            raise CheckpointError(f"{header.path}: tensor {name!r} has scales or zero points that are not finite.")
        if slot.attribute == "input_scale" and not (tensors[name] > 0).all():
            raise CheckpointError(f"{header.path}: tensor {name!r} has a scale that is not positive.")
        if slot.is_quantized and tensors[name].is_floating_point() and tensors[name].isnan().any():
            raise CheckpointError(f"{header.path}: tensor {name!r} has weights that are no numbers.")
        slot.assign(tensors[name])


def move_buffers(module: nn.Module, device: torch.device) -> None:
    """Buffers that are computed, not stored (masks, position ids), were made on the CPU."""
    for part in module.modules():
        for name in part._non_persistent_buffers_set:
            if part._buffers.get(name) is not None:
                part._buffers[name] = part._buffers[name].to(device)
