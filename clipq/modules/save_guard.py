"""Saving quantized modules with a library that would not read them back as they were is refused.

transformers, timm (for another number of classes) and huggingface_hub's mixin, when they load such a file, look for the
names of the float weights, find none of them, and go on with newly initialised ones, which at most a log says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import CheckpointError

_SAVING = {
    ("transformers.modeling_utils", "save_pretrained"): "self",
    ("huggingface_hub.hub_mixin", "save_pretrained"): "self",
    ("timm.models._hub", "save_for_hf"): "model",
}
"""Module and name of each function that is refused, and which of its arguments is the model."""


Writer = Callable[[Any, str | os.PathLike[str]], None]
"""Writes a model of transformers into a folder, so that both transformers (with clipq imported) and clipq read it."""
_writers: list[Writer] = []


def write_with(writer: Writer) -> None:
    """Let models of transformers that are quantized themselves be saved by `writer` instead of refused."""
    _writers[:] = [writer]


def writer() -> Writer | None:
    """The one given to `write_with`, if any."""
    return _writers[0] if _writers else None


def refuse_foreign_saving() -> None:
    """Raise `CheckpointError` if one of those libraries' functions that save a model is among the callers.

    Quantized modules call this when they are asked for their state dict. Whoever saves asks for that, and a model
    around a quantized one (LLaVA around its vision tower, a pipeline, a SentenceTransformer) was never seen by
    `quantize`, so nothing can be left on it. The state dict must stay what it is for `torch.save` and copies, so the
    one thing that tells them apart is the caller. No function is replaced, and nothing has to survive a copy or a
    pickle.
    A state dict that was made before and is given as `save_pretrained(..., state_dict=)` goes unseen.
    """
    frame = sys._getframe(1)
    while frame is not None:
        saving = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if saving in _SAVING:
            raise refusal(type(frame.f_locals[_SAVING[saving]]).__name__, saving[1])
        frame = frame.f_back


def refusal(kind: str, function: str) -> CheckpointError:
    """The error for saving a module of the class called `kind` with a host's `function`."""
    return CheckpointError(
        f"{function} cannot save the quantized weights in this {kind}: they would not be found when it is loaded, and "
        "new ones initialised instead. Use clipq.save(module, path) and clipq.load(path) for the module that was "
        "quantized."
    )
