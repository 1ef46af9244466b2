"""The quantized attentions against the hosts' own, carrying the dequantized weights; half precision and outliers."""

from __future__ import annotations

import copy
import math

import open_clip.transformer
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import QuantizationError
from clipq.modules.attention import QAttention, QMultiheadAttention, QOpenClipAttention

INT8, WEIGHT_ONLY = PRECISIONS["int8"], PRECISIONS["int8-weight-only"]
HALVES = [torch.float16, torch.bfloat16]
WIDTH, HEADS, BATCH, TOKENS, KEYS = 16, 2, 3, 5, 4
NO = float("-inf")


def randomized(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 4)
    return module.eval()


def as_dequantized(attention: nn.Module, quantized: QAttention) -> nn.Module:
    attention = copy.deepcopy(attention)
    attention.in_proj_weight = nn.Parameter(quantized.in_proj.weight, requires_grad=False)
    attention.out_proj.weight = nn.Parameter(quantized.out_proj.weight, requires_grad=False)
    return attention


def multihead(batch_first: bool = True, bias: bool = True) -> tuple[nn.Module, QMultiheadAttention]:
    attention = randomized(nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=batch_first))
    quantized = QMultiheadAttention(attention, WEIGHT_ONLY)
    return as_dequantized(attention, quantized), quantized


def causal(tokens: int, keys: int) -> Tensor:
    """True above the diagonal: do not attend."""
    return torch.ones(tokens, keys, dtype=torch.bool).triu(1)


def additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, NO)


def padding() -> Tensor:
    """[batch, keys], true at the end of each sequence: do not attend."""
    return torch.arange(KEYS) >= torch.tensor([KEYS, 2, 1])[:, None]


def per_head() -> Tensor:
    return torch.randn(BATCH * HEADS, TOKENS, KEYS)


MASKS = {
    "none": dict,
    "boolean": lambda: {"attn_mask": causal(TOKENS, KEYS)},
    "additive": lambda: {"attn_mask": torch.randn(TOKENS, KEYS)},
    "additive infinite": lambda: {"attn_mask": additive(causal(TOKENS, KEYS))},
    "per head": lambda: {"attn_mask": per_head()},
    "per head boolean": lambda: {"attn_mask": causal(TOKENS, KEYS) & (per_head() > 0)},
    "padding": lambda: {"key_padding_mask": padding()},
    "additive padding": lambda: {"key_padding_mask": additive(padding())},
    "boolean and padding": lambda: {"attn_mask": causal(TOKENS, KEYS), "key_padding_mask": padding()},
    "per head and padding": lambda: {"attn_mask": per_head(), "key_padding_mask": additive(padding())},
    "causal hint": lambda: {"attn_mask": causal(TOKENS, KEYS), "is_causal": True},
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_multihead_attention(masks: str, batch_first: bool, bias: bool) -> None:
    attention, quantized = multihead(batch_first, bias)
    query, key, value = torch.randn(BATCH, TOKENS, WIDTH), *torch.randn(2, BATCH, KEYS, WIDTH)
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    options = MASKS[masks]()
    for inputs in ((query, key, value), (query, key, key)):
        expected, _ = attention(*inputs, need_weights=False, **options)
        y, weights = quantized(*inputs, need_weights=False, **options)
        assert weights is None and y.shape == expected.shape
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", [None, causal(TOKENS, TOKENS), additive(causal(TOKENS, TOKENS))],
                         ids=["none", "boolean", "additive"])  # fmt: skip
def test_self_attention(batch_first: bool, mask: Tensor | None) -> None:
    attention, quantized = multihead(batch_first)
    x = torch.randn(BATCH, TOKENS, WIDTH) if batch_first else torch.randn(TOKENS, BATCH, WIDTH)
    expected, _ = attention(x, x, x, need_weights=False, attn_mask=mask)
    for y in (quantized(x, x, x, attn_mask=mask)[0], quantized(x, x.clone(), x.clone(), attn_mask=mask)[0]):
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_sequence_without_a_batch(batch_first: bool) -> None:
    attention, quantized = multihead(batch_first)
    query, key = torch.randn(TOKENS, WIDTH), torch.randn(KEYS, WIDTH)
    for options in ({}, {"attn_mask": torch.randn(HEADS, TOKENS, KEYS)}, {"key_padding_mask": padding()[1]}):
        expected, _ = attention(query, key, key, need_weights=False, **options)
        torch.testing.assert_close(quantized(query, key, key, **options)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_causal_hint_without_its_mask_is_refused() -> None:
    x = torch.randn(BATCH, TOKENS, WIDTH)
    with pytest.raises(QuantizationError, match="give the causal mask as attn_mask too"):
        multihead()[1](x, x, x, is_causal=True)


def test_which_multihead_attentions_fit() -> None:
    assert QMultiheadAttention.fits(nn.MultiheadAttention(8, 2))
    for options in ({"kdim": 4}, {"vdim": 4}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        assert not QMultiheadAttention.fits(nn.MultiheadAttention(8, 2, **options))
    assert not QMultiheadAttention.fits(nn.Linear(8, 8))
    assert QOpenClipAttention.fits(open_clip.transformer.Attention(8, 2))
    assert not QOpenClipAttention.fits(nn.MultiheadAttention(8, 2))


def open_clip_attention(**options: bool) -> tuple[nn.Module, QOpenClipAttention]:
    attention = randomized(open_clip.transformer.Attention(WIDTH, HEADS, **options))
    quantized = QOpenClipAttention(attention, WEIGHT_ONLY)
    return as_dequantized(attention, quantized), quantized


OPTIONS = [{}, {"qkv_bias": False}, {"qk_norm": True}, {"scale_heads": True}, {"inner_norm": True},
           {"qk_norm": True, "scale_heads": True, "inner_norm": True}]  # fmt: skip
OPEN_CLIP_MASKS = {
    "none": lambda: None,
    "boolean": lambda: causal(TOKENS, TOKENS),
    "additive": lambda: additive(causal(TOKENS, TOKENS)),
    "per head": lambda: torch.randn(BATCH * HEADS, TOKENS, TOKENS),
    "batched": lambda: torch.randn(BATCH, HEADS, TOKENS, TOKENS),
}


@pytest.mark.parametrize("mask", OPEN_CLIP_MASKS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
def test_open_clips_attention(options: dict, mask: str) -> None:
    attention, quantized = open_clip_attention(**options)
    x, mask = torch.randn(BATCH, TOKENS, WIDTH), OPEN_CLIP_MASKS[mask]()
    torch.testing.assert_close(quantized(x, attn_mask=mask), attention(x, attn_mask=mask), rtol=1e-4, atol=1e-5)


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)` in float64, which open_clip's own LayerNormFp32 is not made for."""
    return x if isinstance(norm, nn.Identity) else F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def written_out(attention: nn.Module, q_x: Tensor, k_x: Tensor, v_x: Tensor, mask: Tensor | float = 0.0) -> Tensor:
    """open_clip's attention step by step in float64, for the calls that version 3 cannot do itself."""
    attention = copy.deepcopy(attention).double()
    inputs = zip((q_x, k_x, v_x), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
    q, k, v = (F.linear(x.double(), w, b).unflatten(-1, (HEADS, -1)).transpose(1, 2) for x, w, b in inputs)
    if attention.scaled_cosine:
        q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
        scale = attention.logit_scale.clamp(max=math.log(100)).exp()
    else:
        q, k, scale = normed(attention.ln_q, q), normed(attention.ln_k, k), (WIDTH / HEADS) ** -0.5
    heads = (q @ k.transpose(-1, -2) * scale + mask).softmax(-1) @ v
    heads = heads * (1 if attention.head_scale is None else attention.head_scale)
    return attention.out_proj(normed(attention.ln_inner, heads.transpose(1, 2).flatten(2))).float()


@pytest.mark.parametrize("logit_scale", [math.log(10), math.log(300)], ids=["free", "clamped"])
@pytest.mark.parametrize("options", [{}, {"scale_heads": True, "inner_norm": True}], ids=["plain", "scaled"])
def test_scaled_cosine_attention(options: dict, logit_scale: float) -> None:
    # open_clip 3.x itself fails here (torch.bmm on four dimensions), so the formula is written out.
    attention = randomized(open_clip.transformer.Attention(WIDTH, HEADS, scaled_cosine=True, **options))
    attention.logit_scale.data.add_(logit_scale - math.log(10))
    quantized = QOpenClipAttention(attention, WEIGHT_ONLY)
    x, mask = torch.randn(BATCH, TOKENS, WIDTH), additive(causal(TOKENS, TOKENS))
    expected = written_out(as_dequantized(attention, quantized), x, x, x, mask)
    torch.testing.assert_close(quantized(x, attn_mask=mask), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_heads": True}, {"scaled_cosine": True}],
                         ids=lambda options: "+".join(options) or "plain")  # fmt: skip
def test_open_clips_attention_as_version_4_calls_it(options: dict) -> None:
    attention, quantized = open_clip_attention(**options)
    q_x, k_x, v_x = torch.randn(BATCH, TOKENS, WIDTH), *torch.randn(2, BATCH, KEYS, WIDTH)
    mask = torch.randn(TOKENS, KEYS)
    torch.testing.assert_close(
        quantized(q_x, k_x=k_x, v_x=v_x, attn_mask=mask),
        written_out(attention, q_x, k_x, v_x, mask),
        rtol=1e-3,
        atol=1e-4,
    )
    torch.testing.assert_close(quantized(q_x), written_out(attention, q_x, q_x, q_x), rtol=1e-3, atol=1e-4)


def test_attention_with_int8_activations_stays_near() -> None:
    attention = randomized(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    x = torch.randn(BATCH, TOKENS, WIDTH)
    y, expected = QMultiheadAttention(attention, INT8)(x, x, x)[0], attention(x, x, x)[0]
    assert F.cosine_similarity(y, expected, dim=-1).min() > 0.999
    assert not torch.equal(y, QMultiheadAttention(attention, WEIGHT_ONLY)(x, x, x)[0])


def outliers(dtype: torch.dtype) -> Tensor:
    """Activations as large as CLIP's residual stream gets: hundreds, in a few channels."""
    x = torch.randn(BATCH, TOKENS, WIDTH)
    x[..., [2, 9]] += torch.tensor([700.0, -350.0])
    return x.to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scheme", [INT8, WEIGHT_ONLY], ids=lambda scheme: scheme.name)
@torch.no_grad()
def test_outliers_stay_finite_in_half_precision(scheme, dtype: torch.dtype) -> None:
    x, mask = outliers(dtype), additive(causal(TOKENS, TOKENS))
    padded = torch.zeros(BATCH, TOKENS).masked_fill(torch.arange(TOKENS) > 2, torch.finfo(torch.float32).min)
    attention = randomized(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    quantized = QMultiheadAttention(attention, scheme).to(dtype)
    for options in ({}, {"attn_mask": mask}, {"attn_mask": mask, "key_padding_mask": padded}):
        assert torch.isfinite(quantized(x, x, x, **options)[0]).all()
    for options in ({}, {"qk_norm": True}, {"scaled_cosine": True}, {"inner_norm": True}):
        norm = open_clip.transformer.LayerNorm  # LayerNormFp32, the default, cannot be cast
        attention = randomized(open_clip.transformer.Attention(WIDTH, HEADS, norm_layer=norm, **options))
        quantized = QOpenClipAttention(attention, scheme).to(dtype)
        y = quantized(x, attn_mask=mask)
        assert y.dtype == dtype and torch.isfinite(y).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("norm", [nn.LayerNorm, open_clip.transformer.LayerNorm, open_clip.transformer.LayerNormFp32])
def test_layer_norms_keep_float32_statistics_in_half_precision(norm: type, dtype: torch.dtype) -> None:
    """Squares of hundreds overflow fp16 (65504): only statistics kept in float32 give float64's answer."""
    x = torch.randn(6, 512)
    x[:, [7, 300]] += torch.tensor([900.0, -450.0])
    x = x.to(dtype)
    layer = norm(512) if norm is open_clip.transformer.LayerNormFp32 else norm(512).to(dtype)
    expected = F.layer_norm(x.double(), (512,))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(layer(x).double(), expected, rtol=eps, atol=eps / 8)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("mask", [None, additive(causal(400, 400))], ids=["no mask", "causal"])
def test_softmax_keeps_float32_statistics_in_half_precision(dtype: torch.dtype, mask: Tensor | None) -> None:
    """Near-equal logits over 400 keys: sums in half precision would stop growing at 2048 ulps or lose the logits."""
    q, k, v = (torch.randn(1, 2, 400, 32).to(dtype) for _ in range(3))
    k, v = k * 0.1 + 20, v * 0.1 + 1  # every logit is some hundreds
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(dtype))
    logits = q.double() @ k.double().transpose(-1, -2) / 32**0.5
    expected = (logits if mask is None else logits + mask).softmax(-1) @ v.double()
    torch.testing.assert_close(y.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
