"""`save_pretrained` of a quantized model of transformers: the class that has it, in place of the model's own.

Quantized modules refuse to be saved as if they were float ones (`modules.save_guard`). Who can write them so that they
are read back as they were is above this room, and puts itself into `save_guard`; without one, the refusal holds.
"""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import output_capturing

from ...errors import CheckpointError
from ...modules import save_guard
from ...modules.layers import QuantizedModule

_WITHOUT_EFFECT = frozenset(
    ("max_shard_size", "safe_serialization", "save_original_format", "save_peft_format", "token")
)
_MADE: dict[type, type] = {}


class Saved:
    """Mixed into a class of transformers."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Any = None,
        **options: Any,
    ) -> None:
        """Write the folder `save_directory`, or into it: what `from_pretrained` (with clipq) and `clipq.load` read.

        Takes transformers' arguments. Raises `CheckpointError` for those by which the file would be another one:
        `state_dict`, `variant`, `push_to_hub` (the method of that name works), `distributed_checkpoint`.
        """
        writer = save_guard.writer()
        if writer is None or not any(isinstance(part, QuantizedModule) for part in self.modules()):
            super().save_pretrained(save_directory, is_main_process, state_dict, **options)
            return
        wrong = [name for name, value in options.items() if value and name not in _WITHOUT_EFFECT]
        if wrong := [*wrong, *(["state_dict"] if state_dict is not None else [])]:
            raise CheckpointError(
                f"save_pretrained({', '.join(f'{name}=...' for name in wrong)}) is not for a quantized model, whose "
                "one file is written as it is; leave that out. module.push_to_hub and clipq.push_to_hub publish it."
            )
        if is_main_process:
            writer(self, save_directory)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickles and copies: the class is made anew, from the one it stands in place of."""
        _, _, *state = super().__reduce_ex__(protocol)
        return (_new, (type(self).__mro__[2],), *state)


def install(module: nn.Module) -> None:
    """Give a quantized model of transformers that class. Doing it again changes nothing."""
    fits = isinstance(module, PreTrainedModel) and not isinstance(module, Saved)
    if fits and any(isinstance(part, QuantizedModule) for part in module.modules()):
        module.__class__ = saved(type(module))


def saved(kind: type) -> type:
    """The subclass of a model's class, of the same name, that writes itself."""
    if kind not in _MADE:
        names = {"__module__": __name__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _MADE[kind] = made = type(kind.__name__, (Saved, kind), names)
        if recorded := getattr(kind, "_can_record_outputs", None):  # transformers looks for it by the name of the class
            dict.__setitem__(output_capturing._CAN_RECORD_REGISTRY, str(made), recorded)
    return _MADE[kind]


def _new(kind: type) -> nn.Module:
    return nn.Module.__new__(saved(kind))
