"""A model's towers in the native library from pixels or ids to embeddings, as the runtime without torch runs them.

`clipq.Model` and `clipq.runtime` thereby compute the same numbers: one way, not two. Where anybody wants what is inside
(a hook, a gradient, a tracer), where a module has been replaced, or where the library lacks a part, there is no whole
tower, and the host's own call computes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.ops import REAL
from ..modules.state import Slot, slots
from ..native.images import ImageTower
from ..native.tensors import Tensors
from ..native.texts import TextTower
from ..towers.calls import Inside, WholeTower
from ..towers.rows import Tower
from ..towers.transformer import Sequences
from .base import Host
from .descriptions import describe

_KINDS = {"image": ImageTower, "text": TextTower}
_Native = ImageTower | TextTower


class WholeTowers:
    """The towers of one model, put together when first asked for and again once its modules change."""

    def __init__(self, module: nn.Module, host: Host):
        self._module, self._host = module, host
        self._views: dict[str, _View] = {}

    def image(self, pixels: Tensor) -> Tensor | None:
        """float32 [batch, out] of pixels in the model's own size; None where the host has to compute."""
        native = self._usable("image", pixels)
        if native is None or tuple(pixels.shape[1:]) != native.shape:
            return None
        return torch.from_numpy(native(pixels.float().contiguous().numpy(), torch.get_num_threads()))

    def text(self, ids: Tensor) -> Tensor | None:
        """float32 [batch, out] of token ids [batch, context], all of the vocabulary; None as for `image`."""
        native = self._usable("text", ids)
        if native is None or ids.shape[1] != native.context:
            return None
        return torch.from_numpy(native(ids.to(torch.int64).contiguous().numpy(), torch.get_num_threads()))

    def _usable(self, tower: str, inputs: Tensor) -> _Native | None:
        if torch.compiler.is_compiling() or type(inputs) not in REAL or not inputs.is_cpu or inputs.numel() == 0:
            return None
        whole = self._host.whole(self._module, tower)
        found = whole.usable() if isinstance(whole, WholeTower) else None
        if found is None or not found.stack.fits(torch.empty(0)):
            return None
        view = self._views.get(tower)
        if view is None or not view.is_of(found):
            view = self._views[tower] = _View(self._module, self._host, tower, found, whole)
        return None if view.inside.wanted() else view.native


class _View:
    """One tower as it was when it was put together; its blocks are those that the host's own call runs too."""

    def __init__(self, module: nn.Module, host: Host, tower: str, found: Tower, whole: WholeTower):
        self._found, self.inside = found, Inside([module], whole.is_idle)
        self._slots, self._used = slots(module), list[tuple[Slot, Tensor, object]]()
        described = describe(module, host, tower)
        self.native: _Native | None = None
        if "undescribed" not in described:
            tensors = Tensors(self._tensor, f"the {tower} tower")
            self.native = _KINDS[tower](tensors, described, self._blocks)
        del self._slots

    def is_of(self, found: Tower) -> bool:
        """Whether nothing that was read has changed since."""
        if found is not self._found or not self.inside.unchanged():
            return False
        return all(slot.tensor is tensor and _state(slot, tensor) == state for slot, tensor, state in self._used)

    def _tensor(self, name: str) -> np.ndarray | None:
        slot = self._slots.get(name)
        if slot is None:
            return None
        tensor = slot.tensor
        self._used.append((slot, tensor, _state(slot, tensor)))
        detached = tensor.detach()
        return (detached.float() if tensor.is_floating_point() else detached).numpy()

    def _blocks(
        self, threads: int, rows: np.ndarray, offsets: np.ndarray, causal: bool, keep: np.ndarray | None
    ) -> np.ndarray:
        sequences = Sequences(torch.from_numpy(offsets), 0, True)  # of which only the offsets are read
        kept = None if keep is None else torch.from_numpy(keep)
        return self._found.stack(torch.from_numpy(rows), sequences, causal, kept).numpy()


def _state(slot: Slot, tensor: Tensor) -> tuple[int, object]:
    """What changes where a tensor is written to, as far as torch counts that, or a norm's constant."""
    return 0 if tensor.is_inference() else tensor._version, vars(slot.module).get("eps")
