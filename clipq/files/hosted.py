"""Filling a model that transformers builds from a file of clipq: the whole model of the file, or one tower of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..arithmetic.schemes import Scheme
from ..errors import CheckpointError
from ..hosts import Host, find_host
from ..hosts.base import build_skeleton, host_class
from ..methods.finishing import finish
from ..methods.recipes import Recipe
from ..methods.replacing import rebuild
from ..modules.state import PACKED, slots, weights
from ..zoo.offline import no_network
from .checkpoints import assign, border, checked_header, compare_one, load_tensors, move_buffers
from .header import Header
from .limits import Limits, limited

_TOWERS = ("vision_config", "text_config")
_PARTS = ("", "vision_model.", "text_model.")
"""Where the weights of a class of one tower lie within those of a class of two."""
_FREE = frozenset(
    ("dtype", "torch_dtype", "architectures", "transformers_version", "_name_or_path", "name_or_path", "problem_type")
    + ("output_attentions", "output_hidden_states", "return_dict", "use_cache", "id2label", "label2id", "clipq_version")
    + ("quantization_config", "transformers_weights", "attn_implementation", "_attn_implementation")
)
"""What a user of `from_pretrained` may set, and what no embedding depends on."""


def hosted(path: str, kind: type[nn.Module], config: Any, device: torch.device) -> nn.Module:
    """The model of class `kind` and configuration `config` (both transformers') with the tensors of clipq's file.

    `kind`: the class that was saved, or one of a tower of it. Raises `CheckpointError`, naming the file and the tensor,
    for a file that is not exactly as it was written, is of another architecture, or lacks weights of `kind`.
    """
    header = checked_header(path)
    _check_config(header, kind, config)
    with border(header), no_network(), limited(Limits.of(header)):
        module = build_skeleton(lambda: kind(config))
        host = find_host(module)
        prefix = _prefix(header, module)
        recipe = _recipe_of_part(Recipe.from_dict(header.config["recipe"]), host, module, prefix)
        rebuild(module, host, recipe)
    for name, slot in slots(module).items():
        _find(header, module, prefix + name)
        compare_one(header, prefix + name, slot)
    if kind.__name__ == header.config["config"].get("class"):
        _check_nothing_else(header, module)
    tensors = load_tensors(header, device, [prefix + name for name in slots(module)])
    assign(header, module, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    move_buffers(module, device)
    with border(header):
        finish(module, host, recipe)
    return module


def _check_config(header: Header, kind: type[nn.Module], config: Any) -> None:
    """Raise `CheckpointError` if config.json tells of another architecture than the file itself."""
    values = header.config["config"]
    parts = [values, *(values[name] for name in _TOWERS if isinstance(values.get(name), Mapping))]
    stated = next((part for part in parts if part.get("model_type") == config.model_type), None)
    if header.config["host"] != "transformers" or stated is None:
        raise CheckpointError(
            f"{header.path} holds a {values.get('class') or header.config['host'] + ' model'}, of which "
            f"{kind.__name__} is no part; use that class, or clipq.load."
        )
    with border(header):
        own = type(config).from_dict({k: v for k, v in stated.items() if k not in _FREE}).to_dict()
    for name, ours, theirs in _differences(own, config.to_dict()):
        raise CheckpointError(
            f"{header.path} was written with {name}={ours!r}, and the configuration says {theirs!r}: its config.json "
            "was altered, or from_pretrained was given that. Get the folder again, or leave that out."
        )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Of settings that both know."""
    for key in ours.keys() & theirs.keys() - _FREE:
        one, other = ours[key], theirs[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{where}{key}.")
        elif one != other:
            yield f"{where}{key}", one, other


def _prefix(header: Header, module: nn.Module) -> str:
    """What the names of `module`'s weights begin with in the file."""
    needed = set(weights(module))
    there = {name.removesuffix(PACKED) for name in header.tensors}
    base = f"{module.base_model_prefix}." if module.base_model_prefix else ""
    for prefix in (*_PARTS, base):
        if all(prefix + name in there for name in needed):
            return prefix
    return ""


def _find(header: Header, module: nn.Module, name: str) -> None:
    if name not in header.tensors:
        raise CheckpointError(
            f"{header.path}: tensor {name!r} is missing, which {host_class(module).__name__} needs and "
            f"{header.config['config'].get('class')} may not have."
        )


def _check_nothing_else(header: Header, module: nn.Module) -> None:
    known = {*slots(module), "clipq.tokenizer"}
    if extra := sorted(set(header.tensors) - known):
        raise CheckpointError(f"{header.path}: tensor {extra[0]!r} is not part of the model ({len(extra)} such).")


def _recipe_of_part(recipe: Recipe, host: Host, module: nn.Module, prefix: str) -> Recipe:
    """What `recipe` says of `module`, whose names begin with `prefix` there.

    Schemes that name modules by patterns get their own names in place of these.
    """
    towers = host.towers(module)
    if not prefix and set(recipe.schemes) == set(towers):
        return recipe
    inside = {name for name, _ in module.named_modules() if name}
    kinds = {
        name.removeprefix(prefix): kind
        for name, kind in recipe.modules.items()
        if name.startswith(prefix) and name.removeprefix(prefix) in inside
    }
    schemes = {tower: _renamed(recipe.schemes[tower], host, module, tower, prefix) for tower in towers}
    calibration = {tower: shown for tower, shown in recipe.calibration.items() if tower in towers}
    return Recipe(schemes, kinds, calibration)


def _renamed(scheme: Scheme, host: Host, module: nn.Module, tower: str, prefix: str) -> Scheme:
    """`scheme` with an exception for each module that has one, by its name in `module`."""
    if not scheme.exceptions or not prefix:
        return scheme
    names = [name for name, part in module.named_modules() if name and not part._modules]
    own = {name: scheme.at(prefix + name) for name in names if host.tower_of(module, name) == tower}
    plain = replace(scheme, exceptions=())
    found = tuple((name, one) for name, one in own.items() if one is not scheme)
    return replace(plain, exceptions=found)
