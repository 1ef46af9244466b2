"""Where the parts of hosts' attention pools are."""

from __future__ import annotations

from torch import nn

from ...modules.attention import QMultiheadAttention
from ...modules.layers import QLinear
from ...towers.pools import FloatRows, PoolMlp, QRows, Rows


def whole(linear: object) -> Rows | None:
    """All rows of a linear; None for another module."""
    if isinstance(linear, QLinear):
        return QRows(linear)
    is_linear = type(linear) in (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return FloatRows(linear, ("weight",), "bias") if is_linear else None


def of_attention(attention: object) -> tuple[Rows, Rows, Rows] | None:
    """Query; key and value; output projection: of an `nn.MultiheadAttention`, which may be int8."""
    if isinstance(attention, QMultiheadAttention):
        inner, width = attention.in_proj, attention.in_proj.out_features // 3
        return QRows(inner, slice(width)), QRows(inner, slice(width, None)), QRows(attention.out_proj)
    plain = type(attention) is nn.MultiheadAttention and attention.bias_k is None and not attention.add_zero_attn
    if not plain or not attention.batch_first:
        return None
    q, kv = slice(attention.embed_dim), slice(attention.embed_dim, None)
    if attention.in_proj_weight is None:
        separate = ("k_proj_weight", "v_proj_weight")
        query = FloatRows(attention, ("q_proj_weight",), "in_proj_bias", bias_rows=q)
        others = FloatRows(attention, separate, "in_proj_bias", bias_rows=kv)
    else:
        query, others = (FloatRows(attention, ("in_proj_weight",), "in_proj_bias", part, part) for part in (q, kv))
    return query, others, whole(attention.out_proj)


def mlp_of(norm: nn.Module, fc1: object, act: nn.Module, fc2: object) -> PoolMlp | None:
    """Of int8 linears; None for others."""
    if not (isinstance(fc1, QLinear) and isinstance(fc2, QLinear)):
        return None
    return PoolMlp(None if type(norm) is nn.Identity else norm, QRows(fc1), act, QRows(fc2))
