"""clipq itself, and what torch offers: eager, compiled, bf16, torchao."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from clipq.machine import cpu_flags

from .contestant import Contestant, Encode, Open, Settings, no_native_bf16, no_vnni
from .workspace import Workspace, plain_module

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from clipq.models import Model


def _only(name: str, opened: Callable[[Workspace, str], Encode]) -> Open:
    """The settings of a contestant that has one, for every batch size."""
    return partial(_one_setting, name, opened)


def _one_setting(
    name: str, opened: Callable[[Workspace, str], Encode], workspace: Workspace, tower: str, batch: int
) -> Settings:
    return {name: partial(opened, workspace, tower)}


# A process loads each model once and both towers share it, as they do for its users: memory is compared.
@lru_cache(maxsize=1)
def _clipq_model(workspace: Workspace) -> Model:
    import clipq

    return clipq.load(workspace.file("int8.safetensors"))


@lru_cache(maxsize=1)
def _fp32_module(workspace: Workspace) -> nn.Module:
    return plain_module(workspace)


@lru_cache(maxsize=1)
def _bf16_module(workspace: Workspace) -> nn.Module:
    return plain_module(workspace).bfloat16()


def open_clipq(workspace: Workspace, tower: str) -> Encode:
    """clipq as its users call it."""
    import torch

    torch.set_num_threads(workspace.threads)
    model = _clipq_model(workspace)
    call = model.encode_image if tower == "image" else model.encode_text
    return lambda inputs: call(torch.from_numpy(inputs)).numpy()


def open_eager(workspace: Workspace, tower: str) -> Encode:
    import torch

    return _encoder(workspace, _fp32_module(workspace), tower, torch.float32)


def open_bf16(workspace: Workspace, tower: str) -> Encode:
    import torch

    return _encoder(workspace, _bf16_module(workspace), tower, torch.bfloat16)


def open_compiled(workspace: Workspace, tower: str) -> Encode:
    import torch

    return _encoder(workspace, _fp32_module(workspace), tower, torch.float32, COMPILING["freezing"])


def torchao_settings(workspace: Workspace, tower: str, batch: int) -> Settings:
    """torchao's documented way (`quantize_`, then `torch.compile` with max-autotune), and inductor's for inference."""
    return {name: partial(open_torchao, workspace, tower, name) for name in ("max-autotune", "freezing")}


def open_torchao(workspace: Workspace, tower: str, setting: str) -> Encode:
    """torchao reaches only `nn.Linear`; attention is rewritten with them first, or it would stay fp32."""
    import torch
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    module = plain_module(workspace)
    with_linear_attention(module)
    # Its recommended inductor settings are for GPUs, and change torch's matmul precision for everyone else in the run.
    config = Int8DynamicActivationInt8WeightConfig(reduce_range=no_vnni(), set_inductor_config=False)
    quantize_(module, config)
    return _encoder(workspace, module, tower, torch.float32, COMPILING[setting])


COMPILING: dict[str, dict[str, Any]] = {
    "max-autotune": {"mode": "max-autotune"},
    "freezing": {"options": {"freezing": True}},
}
"""Arguments of `torch.compile`. Freezing folds the weights into the graph in the layout the kernels want."""


def no_fast_int8_of_torch() -> str | None:
    """Whether torch's own int8 product, which torchao calls, would be its fallback here."""
    fast = {"avx512_vnni", "amx_int8"}
    return None if fast & cpu_flags() else "torch's int8 product needs AVX512-VNNI or AMX (--all runs it anyway)"


def _encoder(
    workspace: Workspace, module: nn.Module, tower: str, dtype: torch.dtype, compiled: dict[str, Any] | None = None
) -> Encode:
    """A call of open_clip's own encode_image or encode_text; compiled: by `torch.compile` with these arguments."""
    import torch

    torch.set_num_threads(workspace.threads)
    call = module.encode_image if tower == "image" else module.encode_text
    if compiled:
        torch.compiler.reset()  # each batch size is compiled for itself: what earlier ones compiled is forgotten
        call = torch.compile(call, dynamic=False, **compiled)

    @torch.inference_mode()
    def encode(inputs: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(inputs)
        return call(tensor.to(dtype) if tower == "image" else tensor).float().numpy()

    return encode


def with_linear_attention(module: nn.Module) -> None:
    """Replace every `nn.MultiheadAttention` by the same arithmetic made of two `nn.Linear`."""
    from torch import nn

    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.MultiheadAttention and child.batch_first and child.in_proj_weight is not None:
                setattr(part, name, _linear_attention(child))


def _linear_attention(attention: nn.MultiheadAttention) -> nn.Module:
    import torch.nn.functional as F
    from torch import Tensor, nn

    class LinearAttention(nn.Module):
        def __init__(self):
            super().__init__()
            width = attention.embed_dim
            self.heads = attention.num_heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
            self.out.weight, self.out.bias = attention.out_proj.weight, attention.out_proj.bias

        def forward(
            self, q: Tensor, k: Tensor, v: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
        ) -> tuple[Tensor, None]:
            batch, tokens, width = q.shape  # open_clip's blocks pass one tensor three times: self-attention
            qkv = self.qkv(q).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=attn_mask)
            return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width)), None

    return LinearAttention().eval()


_TORCH = ("torch", "open_clip_torch")
_MODULES = ("torch", "open_clip")

CLIPQ = Contestant("clipq int8", "int8", _TORCH, (*_MODULES, "clipq"), _only("encode", open_clipq))
EAGER = Contestant(
    "torch fp32", "fp32", _TORCH, _MODULES, _only("eager", open_eager), about="open_clip's own model, eager"
)
OTHERS = (
    Contestant(
        "torch fp32 compiled",
        "fp32",
        _TORCH,
        _MODULES,
        _only("torch.compile", open_compiled),
        about="torch.compile, static shapes, freezing",
        flag="compile",
        compiles=True,
    ),
    Contestant(
        "torch bf16",
        "bf16",
        _TORCH,
        _MODULES,
        _only("eager", open_bf16),
        obstacle=no_native_bf16,
        about="open_clip's own model converted to bfloat16, eager",
    ),
    Contestant(
        "torchao dynamic int8",
        "int8",
        (*_TORCH, "torchao"),
        (*_MODULES, "torchao"),
        torchao_settings,
        obstacle=no_fast_int8_of_torch,
        about="quantize_ with Int8DynamicActivationInt8WeightConfig, nn.MultiheadAttention rewritten with nn.Linear, "
        "torch.compile with static shapes, max-autotune or freezing; 7-bit ranges without VNNI",
        compiles=True,
    ),
)
