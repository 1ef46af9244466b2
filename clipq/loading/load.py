"""`load`: from a name or a path to a `Model` in the precision asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..arithmetic.precisions import PRECISIONS, TOWERS, Precisions, auto_towers, per_tower, without_auto
from ..arithmetic.schemes import Scheme
from ..device import usable_device
from ..errors import CheckpointError, DownloadError, SchemeError
from ..files.checkpoints import read, write
from ..files.header import EXPORT_REPORT, DamagedError, has_mark, locate, model_file, read_header
from ..files.saving import file_in, is_clipq_config
from ..methods.quantization import quantize
from ..methods.recipes import Recipe
from ..models import Model
from ..zoo import hub, registry
from ..zoo.registry import Entry
from .sources import load_open_clip, load_transformers
from .worth import measure

_DEFAULT = "int8"
_GRAPHS = (".onnx", ".xml", ".mnn")


def load(
    name_or_path: str | os.PathLike[str],
    precision: Precisions = _DEFAULT,
    *,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
    cache_dir: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a CLIP-like model in `precision` onto `device`.

    `name_or_path`, in the order in which it is looked for:
    - a clipq file or folder (its own precision holds if it is quantized);
    - a folder of open_clip ("local-dir:PATH" or PATH) or of transformers;
    - with `pretrained`: an open_clip architecture; `pretrained` is one of its tags or a file of weights;
    - a zoo name: "ViT-B-32", "ViT-B-32/openai", "clipq-tiny" (`clipq.list_models()`);
    - "ARCH/TAG" of open_clip, or open_clip's "hf-hub:ORG/NAME";
    - "ORG/NAME" on the hub: what clipq.push_to_hub made, or a transformers model.

    `precision`: a name ("int8", "int8-weight-only", "fp32", "fp16", "bf16"), a `Scheme`, or one for each tower,
    {"image": ..., "text": ...}. "auto" is fp32, bf16 or int8 for each tower, by a measurement of two seconds at its
    first use on a device, or what the file holds if that is quantized; a line on stderr says what was chosen and why.
    Raises a `ClipqError`: `UnknownNameError`, `CheckpointError`, `DownloadError`.
    """
    auto_towers(precision)  # a wrong name is found before anything is read
    device = usable_device(device)
    path = Path(name_or_path)
    _refuse_export(path)
    if _is_clipq(path):
        return _from_file(path, precision, device)
    if pretrained is None and registry.is_known(str(name_or_path)):
        precision = settled(path, precision, device, say=True)
        return _from_zoo(registry.find(str(name_or_path)), precision, per_tower(precision), device, cache_dir)
    name = str(name_or_path)
    transformers = _is_transformers(path, name)
    if transformers and not path.is_dir() and (file := _published_file(name, cache_dir)):
        try:
            return _from_file(file, precision, device)
        except DamagedError:
            hub.discard_damaged(file)
        return _from_file(hub.download(name, file.name, cache_dir=cache_dir), precision, device)
    precision = settled(path, precision, device, say=True)
    find = load_transformers if transformers else load_open_clip
    model = find(name, pretrained=pretrained, cache_dir=cache_dir)
    model.module.to(device)
    return _to_precision(model, precision)


def settled(
    name_or_path: str | os.PathLike[str],
    precision: Precisions,
    device: str | torch.device = "cpu",
    say: bool = False,
) -> Precisions:
    """`precision` with what `load` makes of it in place of "auto", so that it means the same in another process.

    `say`: print to stderr what was chosen, and why.
    """
    towers = auto_towers(precision)
    if not towers:
        return precision
    path = Path(name_or_path)
    if held := _held(path) if _is_clipq(path) else None:
        answers, why = held, f"{path} is quantized already."
    else:
        worth = measure(device, towers)
        answers, why = worth.choice, worth.advice
    chosen = without_auto(precision, answers)
    if say:
        print(f"clipq: precision 'auto' is {_in_words(chosen, answers)}: {why}", file=sys.stderr)
    return chosen


def _in_words(precision: Precisions, towers: Iterable[str]) -> str:
    names = {tower: per_tower(precision)[tower].name for tower in towers}
    same = set(names) == set(TOWERS) and len(set(names.values())) == 1
    return names[TOWERS[0]] if same else ", ".join(map("=".join, names.items()))


def _held(path: Path) -> dict[str, Scheme]:
    """The schemes of a quantized clipq file; empty for a float one, which any precision can be made of."""
    try:
        schemes = Recipe.from_dict(read_header(path).config["recipe"]).schemes
    except (KeyError, TypeError, AttributeError, SchemeError) as error:
        raise CheckpointError(f"{path}: its recipe cannot be understood ({error}).") from error
    return {} if all(scheme.is_float for scheme in schemes.values()) else schemes


def _is_clipq(path: Path) -> bool:
    """A file is taken for clipq's by its suffix; a folder by its model file having clipq's mark in the header."""
    if path.is_dir():
        file = model_file(path)
        return file.is_file() and has_mark(file)
    return path.suffix == ".safetensors"


def _refuse_export(path: Path) -> None:
    """Raise `CheckpointError` for what is for another runtime: `clipq.export` has no way back."""
    if (path.suffix in _GRAPHS and path.is_file()) or (path / EXPORT_REPORT).is_file():
        raise CheckpointError(
            f"{path} is a model for another runtime, which clipq writes and does not read: docs/exports.md says how to "
            "run it. Load the model that it was exported from."
        )


def _is_transformers(path: Path, name: str) -> bool:
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / "open_clip_config.json").is_file()
    from open_clip import list_models

    org, slash, _ = name.partition("/")
    return bool(slash) and ":" not in org and org not in list_models()


def _from_file(path: Path, precision: Precisions, device: torch.device) -> Model:
    model = read(locate(path), device)
    precision = settled(path, precision, device, say=True)
    if all(scheme.is_float for scheme in model.recipe.schemes.values()):
        return _to_precision(model, precision)
    wanted, held = (_as_stored(schemes) for schemes in (per_tower(precision), model.recipe.schemes))
    if precision != _DEFAULT and wanted != {**wanted, **held}:
        raise SchemeError(
            f"{path} holds {model.precision_name}; {precision!r} cannot be made of it. "
            "Leave out precision, or load the float model it was made from."
        )
    return model


def _as_stored(schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """Without how numbers are multiplied: a precision's name may mean more of that than when a file was saved."""
    return {tower: replace(scheme, attention="float") for tower, scheme in schemes.items()}


def _to_precision(model: Model, precision: Precisions) -> Model:
    wanted = {tower: scheme for tower, scheme in per_tower(precision).items() if tower in model.towers}
    return model if wanted == model.recipe.schemes else quantize(model, precision)


def _from_zoo(
    entry: Entry,
    precision: Precisions,
    schemes: dict[str, Scheme],
    device: torch.device,
    cache_dir: str | os.PathLike[str] | None,
) -> Model:
    name = precision if isinstance(precision, str) else None
    artefact = registry.artefact(entry, name) if name else None
    if artefact is not None and artefact.published:
        return read(registry.fetch(artefact, cache_dir), device)
    base = _embedded_base(entry, cache_dir)
    if base is not None:
        return _to_precision(read(base, device), precision)

    def make() -> Model:
        return load_open_clip(entry.arch, pretrained=entry.tag, cache_dir=cache_dir, entry=entry)

    if all(scheme.is_float for scheme in schemes.values()):
        model = make()
        model.module.to(device)
        return _to_precision(model, precision)
    path = _built(entry, precision, schemes, make, cache_dir)
    try:
        return read(path, device)
    except CheckpointError as error:
        _discard(path, error)
    return read(_built(entry, precision, schemes, make, cache_dir), device)


def _discard(path: Path, error: CheckpointError) -> None:
    """Remove a file that was built on this machine and cannot be read any more."""
    print(f"clipq: the cached file is damaged; it is removed and made again ({error})", file=sys.stderr)
    try:
        path.unlink(missing_ok=True)
    except OSError as failed:
        raise CheckpointError(f"{error} It cannot be removed ({failed.strerror}); remove it.") from error


def _embedded_base(entry: Entry, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """The embedded float file of an embedded model: its base weights."""
    floats = [
        a for a in entry.artefacts if a.embedded and a.precision in PRECISIONS and PRECISIONS[a.precision].is_float
    ]
    return registry.fetch(floats[0], cache_dir) if floats else None


def _built(
    entry: Entry,
    precision: Precisions,
    schemes: dict[str, Scheme],
    make: Callable[[], Model],
    cache_dir: str | os.PathLike[str] | None,
) -> Path:
    """The file quantized on this machine from the base weights; made, and said so, at the first use."""
    key = precision if isinstance(precision, str) else repr(sorted((k, s.to_dict()) for k, s in schemes.items()))
    path = registry.built_path(entry, key, cache_dir)
    if path.exists():
        return path
    print(
        f"clipq: no published {key} file of {entry.name}; quantizing its base weights, cached at {path}",
        file=sys.stderr,
    )
    model = quantize(make(), precision)
    try:
        write(model, path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Give cache_dir= a folder that can be written.") from error
    return path


def _published_file(repo: str, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """The file of a hub repository that clipq.push_to_hub made; None for any other one."""
    try:
        settings = json.loads(hub.download(repo, "config.json", cache_dir=cache_dir).read_text("utf-8"))
        ours = is_clipq_config(settings)
    except (DownloadError, ValueError, TypeError, AttributeError):
        return None
    file = hub.download(repo, file_in(settings), cache_dir=cache_dir) if ours else None
    return file if file and has_mark(file) else None  # a configuration outlives the weights it was written with
