"""`QAttention`: int8 projections for the attentions whose query, key and value share one raw `in_proj_weight`.

That is `nn.MultiheadAttention` (open_clip up to 3.x, SigLIP's pooling head) and open_clip's own `Attention` (its custom
blocks, and every block from 4.x on). A swap of `nn.Linear`s cannot reach that parameter. Softmax and the two products
around it stay float (`scaled_dot_product_attention` keeps its statistics in float32 whatever the inputs).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arithmetic.schemes import Scheme
from ..errors import QuantizationError
from .layers import QLinear
from .tracing import fx_leaf


class QAttention(nn.Module):
    """`in_proj` [3 width, width] and `out_proj` as `QLinear`s; what else the host's attention has is taken over."""

    def __init__(self, attention: nn.Module, scheme: Scheme, name: str = "attention"):
        super().__init__()
        self.num_heads = attention.num_heads
        self.in_proj = QLinear(attention.in_proj_weight, attention.in_proj_bias, scheme, f"{name}.in_proj_weight")
        self.out_proj = QLinear.from_float(attention.out_proj, scheme, f"{name}.out_proj")

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value as [batch, heads, tokens, width / heads]."""
        of_query = self.in_proj(query)
        of_key = of_query if key is query else self.in_proj(key)
        of_value = of_key if value is key else self.in_proj(value)
        parts = (whole.chunk(3, dim=-1)[i] for i, whole in enumerate((of_query, of_key, of_value)))
        return tuple(x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in parts)

    def join(self, heads: Tensor) -> Tensor:
        """[batch, heads, tokens, width / heads] back to [batch, tokens, width]."""
        return heads.transpose(1, 2).flatten(2)


class QMultiheadAttention(QAttention):
    """Stands in for `nn.MultiheadAttention`, for inference; returns (output, None) as that does without weights."""

    def __init__(self, attention: nn.MultiheadAttention, scheme: Scheme, name: str = "attention"):
        super().__init__(attention, scheme, name)
        self.batch_first = attention.batch_first

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return (
            isinstance(module, nn.MultiheadAttention)
            and module.in_proj_weight is not None
            and module.bias_k is None
            and not module.add_zero_attn
        )

    @fx_leaf
    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """As `nn.MultiheadAttention.forward`, but attention weights are never returned."""
        if is_causal and attn_mask is None:
            raise QuantizationError("is_causal=True is only a hint: give the causal mask as attn_mask too.")
        if query.ndim == 2:  # one sequence without a batch
            axis = 0 if self.batch_first else 1
            batched = (x.unsqueeze(axis) for x in (query, key, value))
            padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
            return self.forward(*batched, padding, attn_mask=attn_mask)[0].squeeze(axis), None
        same = query is key and key is value
        if not self.batch_first:
            query = query.transpose(0, 1)
            key, value = (query, query) if same else (key.transpose(0, 1), value.transpose(0, 1))
        q, k, v = self.project(query, key, value)
        mask = _merge_masks(attn_mask, key_padding_mask, q)
        y = self.out_proj(self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return (y if self.batch_first else y.transpose(0, 1)), None


def _merge_masks(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
    """One additive mask for all heads; in `nn.MultiheadAttention` a true boolean means "do not attend"."""
    mask = None if attn_mask is None else _additive(attn_mask, q.dtype)
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(q.shape[0], -1, *mask.shape[1:])
    if key_padding_mask is None:
        return mask
    padding = _additive(key_padding_mask, q.dtype)[:, None, None, :]
    return padding if mask is None else mask + padding


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
    return mask.to(dtype)


class QOpenClipAttention(QAttention):
    """Stands in for open_clip's `Attention` (3.x: `attn(x, attn_mask=)`; 4.x: `attn(q, k_x=, v_x=, attn_mask=)`)."""

    def __init__(self, attention: nn.Module, scheme: Scheme, name: str = "attention"):
        super().__init__(attention, scheme, name)
        for part in ("ln_q", "ln_k", "ln_inner"):
            setattr(self, part, getattr(attention, part, nn.Identity()))
        self.logit_scale = getattr(attention, "logit_scale", None)
        self.logit_scale_max = getattr(attention, "logit_scale_max", None)
        self.head_scale = getattr(attention, "head_scale", None)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return (
            type(module).__name__ == "Attention" and hasattr(module, "in_proj_weight") and hasattr(module, "num_heads")
        )

    @fx_leaf
    def forward(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """[batch, tokens, width] to the same; `attn_mask` additive or boolean (true: do not attend)."""
        q, k, v = self.project(q_x, q_x if k_x is None else k_x, q_x if v_x is None else v_x)
        scale = None
        if self.logit_scale is not None:  # scaled cosine attention (Swin Transformer V2, arXiv:2111.09883)
            q, k, scale = F.normalize(q, dim=-1), F.normalize(k, dim=-1), 1.0
            q = q * self.logit_scale.clamp(max=self.logit_scale_max).exp()
        else:
            q, k = self.ln_q(q), self.ln_k(k)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=_merge_masks(attn_mask, None, q), scale=scale)
        if self.head_scale is not None:
            heads = heads * self.head_scale
        return self.out_proj(self.ln_inner(self.join(heads)))
