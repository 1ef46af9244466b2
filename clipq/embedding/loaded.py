"""A process's models: each is loaded once, by `clipq.runtime` where that reads its file, else by `clipq.load`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arithmetic.precisions import Precisions
from ..errors import CheckpointError, ClipqError
from ..inputs.places import stamp_of

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from ..models import Model
    from ..runtime import RuntimeModel
    from ..spaces.space import Space

_LEAN = "int8"  # in clipq.runtime a name of the zoo is its int8 model; clipq.load takes a file as it is with it


@dataclass(frozen=True)
class Loading:
    """The arguments of `clipq.load`. stamp: of the file or files as they are to be, see `of`."""

    name_or_path: str | PathLike[str]
    precision: Precisions = _LEAN
    pretrained: str | None = None
    device: str = "cpu"
    cache_dir: str | PathLike[str] | None = None
    stamp: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name_or_path: str | PathLike[str], *rest: Any) -> Loading:
        """With the stamp of what is there now; a file that takes its place is another model."""
        path = Path(name_or_path)
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path] * path.is_file()
        return cls(name_or_path, *rest, stamp=tuple(map(stamp_of, files)))

    def check(self) -> None:
        """Raise `CheckpointError` if another file has taken the place of the one that this is of."""
        path = Path(self.name_or_path)
        if not path.is_dir() and self != Loading.of(*(getattr(self, one.name) for one in fields(self)[:-1])):
            raise CheckpointError(
                f"{path} was changed since it was first used here, and what is embedded has to be of one model. Begin "
                "anew: with a new Embedder, or the same command."
            )

    @property
    def may_be_lean(self) -> bool:
        return (self.precision, self.pretrained, self.device, self.cache_dir) == (_LEAN, None, "cpu", None)


class Lean:
    """One tower of a `RuntimeModel`, with those names of `clipq.Model` that reading and encoding rows take."""

    device = "cpu"

    def __init__(self, model: RuntimeModel):
        self.model, self.towers = model, model.towers
        self.preprocessing = model.config["preprocessing"]

    @property
    def preprocess(self) -> Callable[[Any], torch.Tensor]:
        """PIL image to float32 [3, height, width]."""
        import torch

        pixels = self.model.preprocess
        return lambda image: torch.from_numpy(pixels(image))

    def encode_image(self, pixels: torch.Tensor | list, normalize: bool) -> torch.Tensor:
        """float32 [batch, width] of preprocessed pictures, or of no pictures at all."""
        return _tensor(self.model.encode_image(pixels.numpy() if len(pixels) else [], normalize))

    def space(self, tower: str, decode: str, normalized: bool) -> Space:
        return self.model.space(tower, decode, normalized)

    def encode_text(self, texts: Sequence[str], normalize: bool) -> torch.Tensor:
        """float32 [batch, width]"""
        return _tensor(self.model.encode_text(texts, normalize))


def _tensor(found: Any) -> torch.Tensor:
    import torch

    return torch.from_numpy(found)


_lock = threading.Lock()
_models: dict[str, Any] = {}


def lean_or_whole(loading: Loading, tower: str, threads: int | None) -> Lean | Model:
    """What encodes with this tower in this process, on `threads` threads (None: as many as there are)."""
    found = _once(tower, loading, lambda: _lean(loading, tower))
    if found is None:
        found = whole_model(loading)
        _use_threads(threads)
    elif threads is not None:
        found.model.threads = threads
    return found


def whole_model(loading: Loading) -> Model:
    """The model of `clipq.load`."""
    from ..loading.load import load

    options = {key: getattr(loading, key) for key in ("precision", "pretrained", "device", "cache_dir")}
    return _once("all", loading, lambda: load(loading.name_or_path, **options))


def _once(part: str, loading: Loading, load: Callable[[], Any]) -> Any:
    key = f"{part} of {loading}"
    with _lock:
        if key not in _models:
            found = load()
            loading.check()
            _models[key] = found
        return _models[key]


def _lean(loading: Loading, tower: str) -> Lean | None:
    """None where `clipq.runtime` does not read the file or the settings of its inputs."""
    if not loading.may_be_lean:
        return None
    from ..runtime import load

    try:
        model = load(loading.name_or_path, towers=tower)
        _ = model.preprocess if tower == "image" else model.tokenizer
    except ClipqError:  # clipq.load says what is wrong, if anything is
        return None
    return Lean(model)


def _use_threads(threads: int | None) -> None:
    import torch

    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
