"""The tensors of a model under their names on disk: the host's own, with the suffixes of compressed-tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..arithmetic.specs import QuantSpec
from .layers import EXACT, QLinear, QuantizedModule

PACKED = "_packed"  # how compressed-tensors calls a weight of which several integers share a byte


@dataclass(frozen=True)
class Slot:
    """Where a tensor of the file belongs: an attribute of a module."""

    module: nn.Module
    attribute: str
    is_parameter: bool

    @property
    def tensor(self) -> Tensor:
        return getattr(self.module, self.attribute)

    @property
    def is_quantized(self) -> bool:
        return self.attribute == "qweight"

    @property
    def is_extra(self) -> bool:
        """Whether quantization added it: a scale, a zero point, a codebook."""
        return isinstance(self.module, QuantizedModule) and self.attribute in EXACT

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the weight itself, however it is stored."""
        return self.module.weight_shape if self.is_quantized else tuple(self.tensor.shape)

    def assign(self, tensor: Tensor) -> None:
        value = nn.Parameter(tensor, requires_grad=False) if self.is_parameter else tensor
        setattr(self.module, self.attribute, value)
        if isinstance(self.module, QLinear):
            self.module.drop_kernel()  # it was packed from the old tensor


def slots(model: nn.Module) -> dict[str, Slot]:
    """Every parameter and persistent buffer of `model`, by its name on disk.

    `fc1.qweight` is `fc1.weight`; the fused projection's `attn.in_proj.qweight` is the host's `attn.in_proj_weight`.
    """
    found = {}
    for path, module in model.named_modules():
        for attribute, tensor in _own_tensors(module):
            found[_disk_name(path, module, attribute)] = Slot(module, attribute, isinstance(tensor, nn.Parameter))
    return found


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    buffers = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
    return [(name, tensor) for name, tensor in {**module._parameters, **buffers}.items() if tensor is not None]


def _disk_name(path: str, module: nn.Module, attribute: str) -> str:
    if isinstance(module, QuantizedModule):
        attribute = _stored_as(module.spec, attribute)
        if path.rpartition(".")[2] == "in_proj":
            return f"{path}_{attribute}"
    return f"{path}.{attribute}" if path else attribute


def _stored_as(spec: QuantSpec, attribute: str) -> str:
    if attribute == "qweight":
        return f"weight{PACKED}" if spec.is_packed else "weight"
    return "weight_codebook" if attribute == "weight_scale" and spec.stores_values else attribute


def weights(model: nn.Module) -> dict[str, Slot]:
    """As `slots`, under the names that the weights have in the host's float model, and nothing else."""
    found = {name: slot for name, slot in slots(model).items() if not slot.is_extra}
    return {name.removesuffix(PACKED) if slot.is_quantized else name: slot for name, slot in found.items()}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name in the float model; the same before and after quantizing."""
    return {name: slot.shape for name, slot in weights(model).items()}
