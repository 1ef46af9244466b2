"""transformers' `save_pretrained` of a model that holds int8 modules is refused: what it writes cannot be read back.

`from_pretrained` would look for the names of the float weights, find none of them, and initialise them anew, which only
a log says.
"""

from __future__ import annotations

import sys

from ..errors import CheckpointError


def refuse_save_pretrained() -> None:
    """Raise `CheckpointError` if transformers' `PreTrainedModel.save_pretrained` is among the callers.

    Int8 modules call this when they are asked for their state dict. Whoever saves asks for that, and a model around a
    quantized one (LLaVA around its vision tower, a pipeline, a SentenceTransformer) was never seen by `quantize`, so
    nothing can be left on it. The state dict must stay what it is for `torch.save` and copies, so the one thing that
    tells them apart is the caller. Nothing of transformers is replaced, and nothing has to survive a copy or a pickle.
    A state dict that was made before and is given as `save_pretrained(..., state_dict=)` goes unseen.
    """
    frame = sys._getframe(1)
    while frame is not None:
        of_transformers = frame.f_globals.get("__name__") == "transformers.modeling_utils"
        if frame.f_code.co_name == "save_pretrained" and of_transformers:
            raise refusal(type(frame.f_locals["self"]).__name__)
        frame = frame.f_back


def refusal(kind: str) -> CheckpointError:
    """The error for saving a module of the class called `kind` with transformers."""
    return CheckpointError(
        f"{kind}.save_pretrained cannot save int8 weights: from_pretrained would not find them and would initialise "
        "new ones instead. Use clipq.save(module, path) and clipq.load(path), with the module that was quantized."
    )
