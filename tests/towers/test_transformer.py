"""The block over rows: torch's own encoder layer, and the same rows whichever of them are kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipq.arithmetic.precisions import resolve
from clipq.modules.layers import QLinear
from clipq.towers.transformer import Block, InProjection, Sequences, run_blocks

WIDTH, HEADS = 32, 4
LENGTHS = {"equal": [5, 5, 5], "mixed": [3, 7, 1, 4], "one": [6], "single rows": [1, 1]}


def layers(count: int = 2) -> nn.ModuleList:
    make = nn.TransformerEncoderLayer
    made = [
        make(WIDTH, HEADS, 64, dropout=0, activation="gelu", batch_first=True, norm_first=True) for _ in range(count)
    ]
    for parameter in nn.ModuleList(made).parameters():
        nn.init.normal_(parameter, std=0.3)
    return nn.ModuleList(made).eval()


def block(layer: nn.TransformerEncoderLayer, qkv: str = "raw") -> Block:
    attention = layer.self_attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    projections = {
        "raw": lambda: (InProjection(attention),),
        "linear": lambda: (linear(weight, bias),),
        "no bias": lambda: (linear(weight, None),),
        "three": lambda: tuple(map(linear, weight.chunk(3), bias.chunk(3))),
        "int8": lambda: (QLinear(weight, bias, resolve("int8")),),
    }
    parts = {"fc1": (layer.linear1,), "act": nn.GELU(), "fc2": layer.linear2, "out_proj": attention.out_proj}
    return Block(ln_1=layer.norm1, qkv=projections[qkv](), ln_2=layer.norm2, heads=HEADS, **parts)


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.detach())
    made.bias = None if bias is None else nn.Parameter(bias.detach())
    return made


def rows_of(lengths: list[int]) -> tuple[torch.Tensor, Sequences]:
    return torch.randn(sum(lengths), WIDTH), Sequences.of_lengths(torch.tensor(lengths))


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@torch.inference_mode()
def test_blocks_are_torchs_encoder_layers_on_each_sequence_alone(lengths, causal):
    stack = layers()
    x, sequences = rows_of(lengths)
    expected = []
    for part in x.split(lengths):
        mask = nn.Transformer.generate_square_subsequent_mask(len(part)) if causal else None
        for layer in stack:
            part = layer(part[None], src_mask=mask)[0]
        expected.append(part)
    before = x.clone()
    found = run_blocks([block(layer) for layer in stack], x, sequences, causal)
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("qkv", ["raw", "linear", "no bias", "three", "int8"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@torch.inference_mode()
def test_kept_rows_are_those_of_the_whole(lengths, qkv, causal):
    blocks = [block(layer, qkv) for layer in layers()]
    x, sequences = rows_of(lengths)
    whole = run_blocks(blocks, x, sequences, causal)
    first, last = sequences.offsets[:-1], sequences.offsets[1:] - 1
    for keep in (first, last, (first + last) // 2, last[-1:], last[:1], last[::2]):
        assert torch.allclose(run_blocks(blocks, x, sequences, causal, keep), whole[keep], atol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@torch.inference_mode()
def test_a_last_row_that_none_sees_changes_no_other_and_sees_those_before_it(lengths):
    stack = [block(layer) for layer in layers()]
    x, sequences = rows_of(lengths)
    unseen = Sequences.of_lengths(torch.tensor(lengths), last_unseen=True)
    found, last = run_blocks(stack, x, unseen, True), sequences.offsets[1:] - 1
    others = [row for row in range(len(x)) if row not in last.tolist()]
    whole = run_blocks(stack, x, sequences, True)
    assert torch.allclose(found[others], whole[others], atol=1e-5)
    assert torch.allclose(run_blocks(stack, x, unseen, True, last), found[last], atol=1e-5)
    for begin, end in zip(sequences.offsets.tolist(), sequences.offsets[1:].tolist(), strict=False):
        expected = last_alone(stack, x[begin:end])
        assert torch.allclose(found[end - 1], expected, atol=1e-5)


def last_alone(stack: list[Block], x: torch.Tensor) -> torch.Tensor:
    """The last of some rows through the blocks, with the others (or itself, if it is alone) as keys and values."""
    for one in stack:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in one.qkv[0](one.ln_1(x)).chunk(3, dim=-1))
        scores = (q @ k.transpose(1, 2) / (WIDTH / HEADS) ** 0.5).tril()
        hidden = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        hidden[:, -1] |= len(x) > 1
        heads = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) @ v
        x = x + one.out_proj(heads.transpose(0, 1).flatten(1))
        x = x + one.fc2(one.act(one.fc1[0](one.ln_2(x))))
    return x[-1]


@torch.inference_mode()
def test_layer_scales_scale_what_is_added():
    layer = layers(1)[0]
    x, sequences = rows_of([3, 2])
    plain = block(layer)
    halves = Block(**{**vars(plain), "ls_1": lambda y: y * 0.5, "ls_2": lambda y: y * 0.5})
    after = run_blocks(
        [Block(**{**vars(plain), "ls_1": lambda y: y * 0.5, "ls_2": lambda y: y * 0})], x, sequences, False
    )
    mlp = plain.fc2(plain.act(plain.fc1[0](plain.ln_2(after))))
    assert torch.allclose(run_blocks([halves], x, sequences, False), after + 0.5 * mlp, atol=1e-6)
    assert not torch.allclose(after, x)


def test_gradients_flow_as_through_any_module():
    stack = layers()
    x, sequences = rows_of([2, 4])
    x.requires_grad_()
    run_blocks([block(layer) for layer in stack], x, sequences, True, sequences.offsets[1:] - 1).sum().backward()
    assert x.grad.abs().min() > 0
    assert all(parameter.grad is not None for parameter in stack.parameters())


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
def test_sequences_lie_end_to_end(lengths):
    sequences = Sequences.of_lengths(torch.tensor(lengths))
    assert sequences.offsets.diff().tolist() == sequences.lengths.tolist() == lengths
    assert (len(sequences), sequences.longest) == (len(lengths), max(lengths))
    assert sequences.uniform == (len(set(lengths)) == 1)
    grid = sequences.slots.view(len(lengths), -1)
    for row, start, length in zip(grid.tolist(), sequences.offsets.tolist(), lengths, strict=False):
        assert row[:length] == list(range(start, start + length))
        assert set(row[length:]) <= {start + length - 1}
    assert torch.equal(sequences.slots[sequences.places], torch.arange(sum(lengths)))


def test_equal_sequences_are_those_of_equal_lengths():
    made, counted = Sequences.equal(3, 5), Sequences.of_lengths(torch.tensor([5, 5, 5]))
    assert torch.equal(made.offsets, counted.offsets)
    assert (made.longest, made.uniform) == (counted.longest, counted.uniform) == (5, True)
