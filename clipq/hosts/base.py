"""What clipq must know of a library whose models it quantizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..towers.blocks import BlockTable
from ..towers.calls import WholeTower
from ..towers.rows import Tower


class Host(ABC):
    """One library: where its towers and blocks are, how they are called, how a model is rebuilt from its config."""

    name: str
    blocks: BlockTable

    @abstractmethod
    def recognises(self, module: nn.Module) -> bool:
        """Whether `module` is a model of this library."""

    @abstractmethod
    def towers(self, module: nn.Module) -> tuple[str, ...]:
        """The towers of `module`: ("image", "text") or one of them."""

    @abstractmethod
    def tower_of(self, module: nn.Module, name: str) -> str | None:
        """The tower to which the tensor or submodule called `name` belongs; None for what is in neither."""

    @abstractmethod
    def kept_float(self, module: nn.Module, name: str) -> str | None:
        """Why the matrix weight or submodule called `name` stays float, or None if it is to be quantized."""

    @abstractmethod
    def encode_image(self, module: nn.Module, pixels: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, width], not normalized."""

    @abstractmethod
    def encode_text(self, module: nn.Module, tokens: Tensor) -> Tensor:
        """[batch, context] token ids to [batch, width], not normalized."""

    @abstractmethod
    def whole(self, module: nn.Module, tower: str) -> nn.Module | None:
        """The module whose call is the call of the "image" or "text" tower; None where it is not one module's."""

    def tower(self, module: nn.Module, name: str) -> Tower | None:
        """What a call of the "image" or "text" tower runs over rows now; None where the host's own forward runs."""
        whole = self.whole(module, name)
        return whole.usable() if isinstance(whole, WholeTower) else None

    @abstractmethod
    def config(self, module: nn.Module) -> dict[str, Any]:
        """Everything needed to build the architecture again, as JSON values; `ClipqError` if it cannot be told."""

    @abstractmethod
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The architecture with its parameters on the meta device and its buffers in place."""

    @abstractmethod
    def preprocessing(self, module: nn.Module) -> dict[str, Any] | None:
        """The image preprocessing that `module` itself knows of, as `clipq.inputs.preprocessing` reads it, or None."""

    def prepare(self, module: nn.Module) -> None:  # noqa: B027 (most hosts have nothing to undo)
        """Undo, in place, what the host did to `module` for a precision of its own."""

    def finished(self, module: nn.Module) -> None:  # noqa: B027
        """What else the host's own functions need of `module` once it is quantized, in place."""

    def pixel_shape(self, module: nn.Module) -> tuple[int, int, int] | None:
        """[channels, height, width] that the image tower takes, or None if it cannot be told."""
        return None

    def any_size(self, module: nn.Module) -> bool:
        """Whether the image tower takes other sizes than that of `pixel_shape`; which ones, its own forward says."""
        return True

    def context_length(self, module: nn.Module) -> int | None:
        """How many tokens the text tower reads, or None where there is no text tower."""
        return None

    def vocabulary(self, module: nn.Module) -> int | None:
        """How many token ids the text tower knows, from 0 on, or None where that cannot be told."""
        return None


def host_class(module: object) -> type:
    """The class that the host gave `module`, whatever clipq made of it (`hosts/calls`)."""
    return next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("clipq."))


def is_class(module: nn.Module | None, *names: str) -> bool:
    """Whether `module` is of one of the host's classes called `names` ("open_clip.model.CLIP"), and of no subclass."""
    kind = host_class(module)
    return f"{kind.__module__}.{kind.__qualname__}" in names


def build_skeleton(make: Callable[[], nn.Module]) -> nn.Module:
    """The model that `make` builds, for inference, its parameters on the meta device; buffers (masks, ids) are real.

    An architecture that runs a part of itself while it is built (a convolutional stem measuring its output), or that
    computes buffers from parameters, cannot be built on the meta device; it is built for real.
    """
    from accelerate import init_empty_weights

    with torch.no_grad():
        try:
            with init_empty_weights(include_buffers=False):
                model = make()
            if not any(buffer.is_meta for buffer in _computed_buffers(model)):
                return model.eval()
        except RuntimeError:
            pass
        return make().eval()


def _computed_buffers(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            if (buffer := module._buffers.get(name)) is not None:
                yield buffer
