"""Which weight plays which part in the transformer blocks of each library, by the class name of the block."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..towers.blocks import BlockNames

_BLOCK = BlockNames(
    ln_1="norm1",
    attention="attn",
    qkv=("attn.qkv.weight",),
    q_norm="attn.q_norm",
    k_norm="attn.k_norm",
    attn_norm="attn.norm",
    out_proj="attn.proj.weight",
    ls_1="ls1",
    ln_2="norm2",
    fc1=("mlp.fc1.weight",),
    act="mlp.act",
    mlp_norm="mlp.norm",
    fc2="mlp.fc2.weight",
    ls_2="ls2",
    containers=frozenset(("Attention", "Mlp")),
)
_SEPARATE = ("q_proj.weight", "k_proj.weight", "v_proj.weight")


def _of_eva(block: nn.Module) -> str:
    return "halves" if getattr(block.attn, "rotate_half", False) else "pairs"


def _is_usual_eva(block: nn.Module) -> bool:
    """Whether its heads are as wide as the block, each has its own keys, and a packed gate stands before the values."""
    attention = block.attn
    own_keys = getattr(attention, "num_kv_heads", attention.num_heads) == attention.num_heads
    width = attention.head_dim * attention.num_heads == block.norm1.normalized_shape[0]
    return own_keys and width and not getattr(block.mlp, "gate_last", False)


def _of_evas(*mlps: BlockNames) -> tuple[BlockNames, ...]:
    """With one projection for queries, keys and values, and with three."""
    three = tuple(f"attn.{part}" for part in _SEPARATE)
    return tuple(replace(one, qkv=qkv) for one in mlps for qkv in (one.qkv, three))


_EVA = replace(
    _BLOCK,
    ls_1="gamma_1",
    ls_2="gamma_2",
    rotation=_of_eva,
    usual=_is_usual_eva,
    containers=frozenset(("EvaAttention", "AttentionRope", "Mlp")),
)
_EVA_GLU = replace(_EVA, halves=True, containers=frozenset(("EvaAttention", "AttentionRope", "GluMlp")))
_EVA_SWIGLU = replace(
    _EVA,
    fc1=("mlp.fc1_g.weight", "mlp.fc1_x.weight"),
    containers=frozenset(("EvaAttention", "AttentionRope", "SwiGLU")),
)
TIMM = {"Block": (_BLOCK,), "EvaBlock": _of_evas(_EVA_GLU, _EVA, _EVA_SWIGLU)}

_FAMILIES = ("CLIP", "Siglip", "Siglip2", "ViT", "DeiT", "Dinov2", "MetaClip2", "DINOv3ViT")
_MLPS = ("Dinov2SwiGLUFFN", "DINOv3ViTGatedMLP")
_CONTAINERS = frozenset((*(f"{family}{part}" for family in _FAMILIES for part in ("Attention", "MLP")), *_MLPS))


def _names(
    ln_1: str, attention: str, out_proj: str, ln_2: str, heads: str = "num_heads", scales: bool = False
) -> BlockNames:
    return BlockNames(
        ln_1=ln_1,
        attention=attention,
        qkv=tuple(f"{attention}.{part}" for part in _SEPARATE),
        out_proj=f"{attention}.{out_proj}.weight",
        ln_2=ln_2,
        fc1=("mlp.fc1.weight",),
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
_DINO_SWIGLU = replace(
    _DINO, fc1=("mlp.gate_proj.weight", "mlp.up_proj.weight"), act="mlp.act_fn", fc2="mlp.down_proj.weight"
)
_DINOV3 = replace(_DINO_SWIGLU, heads="num_heads", rotation=lambda block: "halves")
TRANSFORMERS = {
    "CLIPEncoderLayer": (_CLIP,),
    "MetaClip2EncoderLayer": (_CLIP,),
    "SiglipEncoderLayer": (_CLIP,),
    "Siglip2EncoderLayer": (_CLIP,),
    "ViTLayer": (_VIT,),
    "DeiTLayer": (_VIT,),
    "Dinov2Layer": (_DINO, _DINO_SWIGLU),
    "DINOv3ViTLayer": (_DINOV3, replace(_DINOV3, fc1=("mlp.up_proj.weight",))),
}


def _is_usual_open_clip(block: nn.Module) -> bool:
    """Whether the norm of the MLP, if there is one, follows the activation: before open_clip 3 it did not."""
    order = [name for name in block.mlp._modules if name in ("gelu", "ln")]
    return order in (["gelu"], ["gelu", "ln"])


_OPEN_CLIP = BlockNames(
    ln_1="ln_1",
    attention="attn",
    qkv=("attn.in_proj_weight",),
    q_norm="attn.ln_q",
    k_norm="attn.ln_k",
    attn_norm="attn.ln_inner",
    out_proj="attn.out_proj.weight",
    ls_1="ls_1",
    ln_2="ln_2",
    fc1=("mlp.c_fc.weight",),
    act="mlp.gelu",
    mlp_norm="mlp.ln",
    fc2="mlp.c_proj.weight",
    ls_2="ls_2",
    usual=_is_usual_open_clip,
    containers=frozenset(
        {"MultiheadAttention", "Attention", "QMultiheadAttention", "QOpenClipAttention", "Sequential"}
    ),
)
OPEN_CLIP = {"ResidualAttentionBlock": (_OPEN_CLIP,), "CustomResidualAttentionBlock": (_OPEN_CLIP,)}
ALL = {**OPEN_CLIP, **TIMM, **TRANSFORMERS}
"""An open_clip model may hold a timm trunk and a transformers text tower."""
