"""A block's modules as the tensors that the native library packs, where it computes exactly what they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor, nn

from ..kernels.cpu import NativeLinear
from ..modules.layers import QLinear
from ..native import blocks as native
from .blocks import HOST_LIBRARIES, library_of
from .transformer import Block, LayerScale

_ACTIVATIONS = {
    "GELUActivation": "gelu",
    "QuickGELU": "quick_gelu",
    "QuickGELUActivation": "quick_gelu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "SiLU": "silu",
    "SiLUActivation": "silu",
}
_NORMS = {"LayerNorm": "layer", "LayerNormFp32": "layer", "RMSNorm": "rms", "RmsNorm": "rms"}
_NORMED = ("ln_1", "ln_2", "q_norm", "k_norm", "attn_norm", "mlp_norm")


def modules_of(block: Block) -> list[nn.Module]:
    """The modules whose tensors and settings a packed block holds."""
    parts = (*block.linears, *(getattr(block, role) for role in _NORMED), block.act, block.ls_1, block.ls_2)
    held = [part.block if isinstance(part, LayerScale) else part for part in parts]
    return [part for part in dict.fromkeys(held) if isinstance(part, nn.Module)]


def block_weights(block: Block) -> native.Block | None:
    """The tensors of a block, or None if it is not one that the library computes exactly as its modules do."""
    act, scales = activation(block.act), [_layer_scale(part) for part in (block.ls_1, block.ls_2)]
    norms = {role: _norm(getattr(block, role)) for role in _NORMED}
    odd = act is None or any(found is False for found in (*norms.values(), *scales))
    if odd or not _run_alike(block.linears) or not (_share_range(block.qkv) and _share_range(block.fc1)):
        return None
    if len({linear.attention for linear in block.qkv}) > 1:
        return None
    return native.Block(
        heads=block.heads,
        qkv=as_matrix(*block.qkv),
        out_proj=as_matrix(block.out_proj),
        fc1=as_matrix(*block.fc1),
        activation=act,
        fc2=as_matrix(block.fc2),
        ls_1=scales[0],
        ls_2=scales[1],
        gated=block.gated,
        rotation=block.rotation,
        attention=block.qkv[0].attention,
        **norms,
    )


def _run_alike(linears: Sequence[object]) -> bool:
    """Whether all are int8 linears that the native kernel runs on one instruction set, quantizing rows in one way."""
    if not all(isinstance(linear, QLinear) for linear in linears):
        return False
    weights = [linear.kernel_weights(linear.bias, linear.activations) for linear in linears]
    fits = all(NativeLinear.fits(one) and NativeLinear.obstacle(one.device) is None for one in weights)
    forced = {linear.forced_kernel for linear in linears}
    allowed = len(forced) == 1 and (forced.pop() or NativeLinear.name).partition("/")[0] == NativeLinear.name
    kinds = {one.activations.symmetric for one in weights} if fits else set()
    return fits and allowed and len(kinds) == 1


def _share_range(linears: Sequence[QLinear]) -> bool:
    """Whether linears that are one product quantize their inputs by one range, if it is a static one."""
    return len({linear.kernel_weights(linear.bias, linear.activations).static_range() for linear in linears}) == 1


def activation(act: object) -> str | None:
    """The native name of an activation module; None for one that the library does not have."""
    if type(act) is nn.GELU:
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return _ACTIVATIONS.get(_known_name(act))


def _known_name(part: object) -> str:
    """The name of a class of torch or of a host, empty for other classes."""
    return type(part).__name__ if library_of(part) in HOST_LIBRARIES else ""


def is_norm(part: object) -> bool:
    """Whether `part` is a LayerNorm over the last axis, with weight and bias: torch's, a host's or the exact one."""
    return norm_kind(part) == "layer" and part.bias is not None


def norm_kind(part: object) -> str | None:
    """The native name of a norm over the last axis that has a weight; None for what else it may be."""
    kind = next(kind for kind in type(part).__mro__ if not kind.__module__.startswith("clipq."))
    name = _NORMS.get(kind.__name__) if kind.__module__.partition(".")[0] in HOST_LIBRARIES else None
    if name is None or part.weight is None or part.eps is None or len(part.normalized_shape) != 1:
        return None
    return name if name == "rms" or issubclass(kind, nn.LayerNorm) else None


def as_norm(part: object) -> native.Norm | None:
    """A LayerNorm with weight and bias, or None."""
    return _norm(part) if is_norm(part) else None


def _norm(part: object) -> native.Norm | None | bool:
    """The tensors of a norm, None without one, False for something else."""
    if part is None:
        return None
    kind = norm_kind(part)
    if kind is None:
        return False
    bias = getattr(part, "bias", None)
    return native.Norm(as_floats(part.weight), None if bias is None else as_floats(bias), part.eps, kind)


def _layer_scale(part: object) -> numpy.ndarray | None | bool:
    """The factors [width] of a layer scale, None without one, False for something else."""
    if part is None:
        return None
    if isinstance(part, LayerScale):
        return as_floats(part.gamma)
    scale = getattr(part, "gamma", getattr(part, "lambda1", False))
    return as_floats(scale) if isinstance(scale, Tensor) and _known_name(part).endswith("LayerScale") else False


def as_matrix(*linears: QLinear) -> native.Matrix:
    weights = [linear.kernel_weights(linear.bias, linear.activations) for linear in linears]
    biases = [torch.zeros(linear.out_features) if linear.bias is None else linear.bias.float() for linear in linears]
    scales = torch.cat([one.row_scale() for one in weights])
    integers = torch.cat([one.integers for one in weights])
    symmetric = linears[0].activations.symmetric
    return native.Matrix(
        integers.numpy(), scales.numpy(), as_floats(torch.cat(biases)), *weights[0].static_range(), symmetric
    )


def as_floats(tensor: Tensor) -> numpy.ndarray:
    """A tensor on the CPU as float32 for the native library."""
    return tensor.detach().float().contiguous().numpy()
