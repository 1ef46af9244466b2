"""Names on disk, assigning tensors to their places, and the fingerprint of what a model computes with."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.modules.attention import QMultiheadAttention, QOpenClipAttention
from clipq.modules.convolutions import QPatchEmbed
from clipq.modules.layers import QEmbedding, QLinear
from clipq.modules.raw import fingerprint
from clipq.modules.state import slots

INT8 = PRECISIONS["int8"]
ASYMMETRIC = Scheme("asymmetric", QuantSpec(symmetric=False))


def model(bias: bool = True) -> nn.Module:
    """Something of everything, two modules deep."""
    torch.manual_seed(0)
    block = nn.Module()
    block.ln_1 = nn.LayerNorm(8)
    block.attn = QMultiheadAttention(nn.MultiheadAttention(8, 2, bias=bias), INT8)
    block.mlp = nn.Sequential(QLinear.from_float(nn.Linear(8, 4), INT8), nn.GELU(), nn.Linear(4, 8))
    outer = nn.Module()
    outer.conv1 = QPatchEmbed.from_float(nn.Conv2d(3, 8, 2, stride=2, bias=False), INT8)
    outer.embedding = QEmbedding.from_float(nn.Embedding(5, 8), INT8)
    outer.block = block
    outer.logit_scale = nn.Parameter(torch.tensor(2.5))
    outer.register_buffer("positions", torch.arange(3))
    outer.register_buffer("scratch", torch.zeros(3), persistent=False)
    outer.register_buffer("nothing", None)
    return outer


NAMES = {
    "logit_scale", "positions", "conv1.weight", "conv1.weight_scale", "embedding.weight", "embedding.weight_scale",
    "block.ln_1.weight", "block.ln_1.bias",
    "block.attn.in_proj_weight", "block.attn.in_proj_weight_scale", "block.attn.in_proj_bias",
    "block.attn.out_proj.weight", "block.attn.out_proj.weight_scale", "block.attn.out_proj.bias",
    "block.mlp.0.weight", "block.mlp.0.weight_scale", "block.mlp.0.bias", "block.mlp.2.weight", "block.mlp.2.bias",
}  # fmt: skip


def test_the_names_are_the_hosts_with_suffixes_and_nothing_is_left_out() -> None:
    assert set(slots(model())) == NAMES
    assert set(slots(model(bias=False))) == NAMES - {"block.attn.in_proj_bias", "block.attn.out_proj.bias"}


def test_without_their_suffixed_tensors_the_names_are_those_of_the_float_model() -> None:
    host = nn.Module()
    host.attn, host.fc = nn.MultiheadAttention(8, 2), nn.Linear(8, 4)
    names = set(host.state_dict())
    host.attn, host.fc = QMultiheadAttention(host.attn, ASYMMETRIC), QLinear.from_float(host.fc, ASYMMETRIC)
    found = set(slots(host))
    assert {name for name in found if not name.endswith(("_scale", "_zero_point"))} == names
    assert {"attn.in_proj_weight_zero_point", "attn.out_proj.weight_zero_point", "fc.weight_zero_point"} <= found


def test_a_module_on_its_own_has_names_without_a_path() -> None:
    assert set(slots(QLinear.from_float(nn.Linear(4, 4), INT8))) == {"weight", "weight_scale", "bias"}
    alone = set(slots(QMultiheadAttention(nn.MultiheadAttention(8, 2), INT8)))
    assert {"in_proj_weight", "in_proj_weight_scale", "in_proj_bias", "out_proj.weight"} <= alone


def test_slots_hold_the_models_tensors() -> None:
    outer = model()
    found = slots(outer)
    assert found["block.attn.in_proj_weight"].tensor is outer.block.attn.in_proj.qweight
    assert found["logit_scale"].tensor is outer.logit_scale and found["logit_scale"].is_parameter
    assert found["block.attn.in_proj_bias"].is_parameter and not found["positions"].is_parameter
    quantized = {name for name, slot in found.items() if slot.is_quantized}
    assert quantized == {name for name in NAMES if found[name].tensor.dtype == torch.int8}
    assert len(quantized) == 5


def test_assign_puts_each_tensor_in_its_place() -> None:
    source, target = model(), model()
    for slot in slots(target).values():
        slot.assign(torch.zeros_like(slot.tensor))
    assert fingerprint(target) != fingerprint(source)
    for name, slot in slots(target).items():
        slot.assign(slots(source)[name].tensor.detach().clone())
    assert fingerprint(target) == fingerprint(source)
    assert {n for n, _ in target.named_parameters()} == {n for n, _ in source.named_parameters()}
    assert {n for n, _ in target.named_buffers()} == {n for n, _ in source.named_buffers()}


def test_assign_reaches_a_layer_that_has_run_already() -> None:
    layer, other = (QLinear.from_float(nn.Linear(8, 4), INT8) for _ in range(2))
    x = torch.randn(3, 8)
    assert not torch.equal(layer(x), other(x))
    for name, slot in slots(layer).items():
        slot.assign(slots(other)[name].tensor.detach().clone())
    assert torch.equal(layer(x), other(x))


def test_assign_fills_a_model_made_on_the_meta_device() -> None:
    layer = QLinear.from_float(nn.Linear(8, 4), INT8)
    empty = QLinear.from_float(nn.Linear(8, 4, device="meta"), INT8)
    for name, slot in slots(empty).items():
        slot.assign(slots(layer)[name].tensor)
    x = torch.randn(3, 8)
    assert torch.equal(empty(x), layer(x))


def test_the_fingerprint_is_of_the_contents() -> None:
    outer = model()
    first = fingerprint(outer)
    assert len(first) == 64 and int(first, 16) >= 0
    assert fingerprint(model()) == first
    assert fingerprint(copy.deepcopy(outer)) == first
    assert fingerprint(pickle.loads(pickle.dumps(outer))) == first
    outer.scratch.add_(1)  # not stored, not part of it
    assert fingerprint(outer) == first
    outer.conv1.qweight = outer.conv1.qweight.to(memory_format=torch.channels_last)  # other strides, same numbers
    assert fingerprint(outer) == first


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_fingerprint_changes_with_any_byte(name: str) -> None:
    outer = model()
    first = fingerprint(outer)
    data = slots(outer)[name].tensor.detach().view(-1).view(torch.uint8)
    data[-1] ^= 1
    assert fingerprint(outer) != first
    data[-1] ^= 1
    assert fingerprint(outer) == first


def test_the_fingerprint_changes_with_a_name_a_shape_or_a_dtype() -> None:
    def of(name: str, tensor: torch.Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return fingerprint(module)

    zeros = torch.zeros(4, dtype=torch.int32)
    variants = [of("a", zeros), of("b", zeros), of("a", zeros.reshape(2, 2)), of("a", zeros.float()),
                of("a", torch.zeros(8, dtype=torch.bfloat16)), of("a", torch.tensor(0)),
                of("a", torch.zeros(0))]  # fmt: skip
    assert len(set(variants)) == len(variants)


def test_open_clips_attention_keeps_its_extra_parameters_under_their_names() -> None:
    from open_clip.transformer import Attention

    for options in ({"qk_norm": True, "scale_heads": True, "inner_norm": True}, {"scaled_cosine": True}):
        attention = Attention(8, 2, **options)
        found = slots(QOpenClipAttention(attention, INT8))
        assert {name for name in found if not name.endswith("weight_scale")} == set(attention.state_dict())
