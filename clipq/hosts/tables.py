"""Which weight plays which part in the transformer blocks of each library, by the class name of the block."""

from __future__ import annotations

from ..towers.blocks import BlockNames

TIMM = {
    "Block": BlockNames(
        ln_1="norm1",
        attention="attn",
        qkv=("attn.qkv.weight",),
        out_proj="attn.proj.weight",
        ls_1="ls1",
        ln_2="norm2",
        fc1="mlp.fc1.weight",
        act="mlp.act",
        fc2="mlp.fc2.weight",
        ls_2="ls2",
        containers=frozenset(("Attention", "Mlp")),
    )
}

_SEPARATE = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
_FAMILIES = ("CLIP", "Siglip", "Siglip2", "ViT", "DeiT", "Dinov2")
_CONTAINERS = frozenset(f"{family}{part}" for family in _FAMILIES for part in ("Attention", "MLP"))


def _names(
    ln_1: str, attention: str, out_proj: str, ln_2: str, heads: str = "num_heads", scales: bool = False
) -> BlockNames:
    return BlockNames(
        ln_1=ln_1,
        attention=attention,
        qkv=tuple(f"{attention}.{part}" for part in _SEPARATE),
        out_proj=f"{attention}.{out_proj}.weight",
        ln_2=ln_2,
        fc1="mlp.fc1.weight",
        act="mlp.activation_fn",
        fc2="mlp.fc2.weight",
        ls_1="layer_scale1" if scales else None,
        ls_2="layer_scale2" if scales else None,
        heads=heads,
        containers=_CONTAINERS,
    )


_CLIP = _names("layer_norm1", "self_attn", "out_proj", "layer_norm2")
_VIT = _names("layernorm_before", "attention", "o_proj", "layernorm_after", "num_attention_heads")
_DINO = _names("norm1", "attention", "o_proj", "norm2", "num_attention_heads", scales=True)
TRANSFORMERS = {
    "CLIPEncoderLayer": _CLIP,
    "SiglipEncoderLayer": _CLIP,
    "Siglip2EncoderLayer": _CLIP,
    "ViTLayer": _VIT,
    "DeiTLayer": _VIT,
    "Dinov2Layer": _DINO,
}

_OPEN_CLIP = BlockNames(
    ln_1="ln_1",
    attention="attn",
    qkv=("attn.in_proj_weight",),
    out_proj="attn.out_proj.weight",
    ls_1="ls_1",
    ln_2="ln_2",
    fc1="mlp.c_fc.weight",
    act="mlp.gelu",
    fc2="mlp.c_proj.weight",
    ls_2="ls_2",
    containers=frozenset(
        {"MultiheadAttention", "Attention", "QMultiheadAttention", "QOpenClipAttention", "Sequential"}
    ),
)
OPEN_CLIP = {"ResidualAttentionBlock": _OPEN_CLIP, "CustomResidualAttentionBlock": _OPEN_CLIP}
ALL = {**OPEN_CLIP, **TIMM, **TRANSFORMERS}
"""An open_clip model may hold a timm trunk and a transformers text tower."""
