"""Towers over rows: the host's own embeddings from less arithmetic, and the host itself where it is not known."""

from __future__ import annotations

import pytest
import torch
from tiny_models import BUILDERS, VARIANTS
from tower_helpers import (
    ALL,
    BOTH,
    BOUNDS,
    CAUSAL,
    HOST,
    NONE,
    ONE,
    by_layers,
    by_model,
    counted,
    how,
    inputs,
    model,
    pixels,
    tokens,
)

from clipq.methods.finishing import use_kernel
from clipq.native.texts import distinct

TABLE = {
    "open_clip CLIP": (ONE, CAUSAL),
    "open_clip CLIP QuickGELU": (ONE, CAUSAL),
    "open_clip CustomTextCLIP": (ONE, CAUSAL),
    "open_clip custom blocks": (HOST, CAUSAL),
    "open_clip inner norms": (HOST, CAUSAL),
    "open_clip timm trunk": (ONE, CAUSAL),
    "open_clip timm SigLIP": (ALL, CAUSAL),
    "open_clip ConvNeXt": (HOST, CAUSAL),
    "open_clip ResNet": (HOST, CAUSAL),
    "open_clip CoCa": (ALL, CAUSAL),
    "transformers CLIP": (ONE, CAUSAL),
    "transformers SigLIP": (ALL, BOTH),
    "transformers ViT": (ONE, NONE),
    "transformers DeiT": (ONE, NONE),
    "transformers DINOv2": (ONE, NONE),
    "transformers DINOv3": (ONE, NONE),
    "transformers MetaCLIP 2": (ONE, CAUSAL),
    "timm vision_transformer": (ONE, NONE),
    "open_clip average": (ALL, CAUSAL),
    "open_clip average of normed": (ALL, CAUSAL),
    "open_clip drops and scales": (ONE, CAUSAL),
    "open_clip plain custom blocks": (ONE, CAUSAL),
    "open_clip scaled heads": (HOST, CAUSAL),
    "open_clip last token, both ways": (ONE, BOTH),
    "open_clip end of text": (ONE, CAUSAL),
    "open_clip end of text, CLIP": (ONE, CAUSAL),
    "open_clip last token": (ONE, CAUSAL),
    "open_clip first token": (ONE, CAUSAL),
    "open_clip mask over padding": (ONE, HOST),
    "open_clip class token in the text": (ONE, CAUSAL),
    "open_clip class token, seen": (ONE, CAUSAL),
    "open_clip timm head": (ONE, CAUSAL),
    "open_clip normed queries in the text": (ONE, CAUSAL),
    "transformers CLIP, old end": (ONE, CAUSAL),
    "transformers CLIP image": (ONE, NONE),
    "transformers CLIP image, projected": (ONE, NONE),
    "transformers CLIP text": (NONE, CAUSAL),
    "transformers CLIP text, projected": (NONE, CAUSAL),
    "transformers SigLIP image": (ALL, NONE),
    "transformers SigLIP text": (NONE, BOTH),
    "transformers SigLIP 2 text": (NONE, BOTH),
    "transformers ViT classifier": (ONE, NONE),
    "transformers DINOv2 SwiGLU": (ONE, NONE),
    "timm average": (ALL, NONE),
    "timm attention pool": (ALL, NONE),
    "timm no class token": (ALL, NONE),
    "timm registers": (ALL, NONE),
    "timm scales": (ONE, NONE),
    "timm positions without class": (ONE, NONE),
    "timm normed queries": (ONE, NONE),
    "timm gates": (ONE, NONE),
    "timm RMSNorm": (ONE, NONE),
    "timm EVA02": (ONE, NONE),
    "timm EVA02, packed": (ONE, NONE),
    "timm EVA02, not turned": (ONE, NONE),
    "timm EVA, biases apart": (HOST, NONE),
    "timm EVA, post-norm": (HOST, NONE),
    "timm PE-Core": (ALL, NONE),
    "timm DINOv3": (ONE, NONE),
    "timm DINOv3, average": (ALL, NONE),
    "timm DINOv3, gated": (ONE, NONE),
    "timm RoPE, mixed": (HOST, NONE),
    "timm RoPE, axial": (ONE, NONE),
    "transformers DINOv3 gated": (ONE, NONE),
    "transformers MetaCLIP 2 image": (ONE, NONE),
    "transformers MetaCLIP 2 text": (NONE, CAUSAL),
    "transformers MetaCLIP 2 text, projected": (NONE, CAUSAL),
    "timm distilled": (ALL, NONE),
    "timm all tokens": (ALL, NONE),
}
"""How the image and the text tower of each tiny model are run."""
KNOWN = [name for name, how in TABLE.items() if set(how) - {HOST, NONE}]
PAIRS = [  # int8 on every model; the others add only arithmetic, and take turns
    (name, precision)
    for turn, name in enumerate(KNOWN)
    for place, precision in enumerate(BOUNDS)
    if precision in ("int8", "int8 by the reference") or (turn - place) % 4 == 0
]


def test_the_table_has_every_tiny_model():
    assert list(TABLE) == [*BUILDERS, *VARIANTS]


@pytest.mark.parametrize("name", TABLE)
def test_which_towers_are_known_and_that_they_are_the_hosts(name):
    of = model(name)
    assert (how(of, "image"), how(of, "text")) == TABLE[name]
    for x in inputs(of):
        for part in (x, x[:1], x[1:2]):
            assert torch.allclose(by_model(of, part), by_layers(of, part), atol=1e-5), part.dtype


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_quantized_towers_are_the_hosts_within_rounding(name, precision):
    of = model(name, precision.partition(" ")[0])
    assert (how(of, "image"), how(of, "text")) == TABLE[name]
    if precision == "int8 by the reference":
        use_kernel(of.module, "reference")
    for x in inputs(of):
        exact, found, expected = by_layers(model(name), x), by_model(of, x), by_layers(of, x)
        assert (found - expected).norm() / expected.norm() < BOUNDS[precision], x.dtype
        assert (found - exact).norm() <= 1.5 * (expected - exact).norm() + 1e-5 * exact.norm(), x.dtype


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_unused_rows_are_not_computed(precision):
    of = model("open_clip CLIP", precision)
    use_kernel(of.module, "reference")  # whole int8 stacks run natively elsewhere, where nothing can be counted
    visual, text = of.module.visual.transformer.resblocks, of.module.transformer.resblocks
    first, last, out = counted(visual[0].mlp.c_fc), counted(visual[-1].mlp.c_proj), counted(visual[-1].attn.out_proj)
    of.encode_image(pixels(of, 3))
    assert (first, last, out) == ([3 * 17], [3], [3])
    first, last = counted(text[0].mlp.c_fc), counted(text[-1].mlp.c_fc)
    of.encode_text(tokens(of))
    assert (first, last) == ([5 + 2 + 16 + 10 + 1], [5])


def test_queries_of_unused_rows_are_not_computed():
    of = model("transformers CLIP")
    attention = of.module.vision_model.encoder.layers[-1].self_attn
    queries, keys = counted(attention.q_proj), counted(attention.k_proj)
    of.encode_image(pixels(of, 2))
    assert (queries, keys) == ([2], [2 * 17])


def test_texts_that_see_both_ways_keep_all_their_tokens():
    of = model("transformers SigLIP")
    stack = of.module.text_model.encoder.layers
    first, last = counted(stack[0].mlp.fc1), counted(stack[-1].mlp.fc1)
    of.encode_text(tokens(of))
    assert (first, last) == ([5 * 16], [5])


def test_equal_texts_are_encoded_once_and_come_back_in_order():
    of = model("open_clip CLIP")
    rows = counted(of.module.transformer.resblocks[-1].mlp.c_fc)
    ids = tokens(of)
    order = [2, 0, 2, 1, 0, 0, 4]
    found = of.encode_text(ids[order])
    assert rows == [4]
    assert torch.allclose(found, of.encode_text(ids)[order], atol=1e-6)
    assert torch.equal(found[0], found[2])


def test_distinct_says_what_stands_first_and_where_each_belongs():
    assert distinct("abacab") == ([0, 1, 3], [0, 1, 0, 2, 0, 1])
    assert distinct([]) == ([], [])


def test_texts_may_be_shorter_than_the_context_and_int32():
    of = model("open_clip CLIP")
    ids = tokens(of)[:2]
    assert torch.allclose(of.encode_text(ids[:, :5].int()), by_layers(of, ids), atol=1e-5)


@pytest.mark.parametrize("name", ["open_clip CoCa", "open_clip class token, seen"])
def test_padding_within_a_text_is_left_to_the_host(name):
    of = model(name)
    ids = tokens(of)
    rows = counted(of.module.text.transformer.resblocks[-1].mlp.c_fc)
    whole, first = of.encode_text(ids), list(rows)
    assert len(first) <= 2 and sum(first) == len(ids)  # of each text one row
    ids[0, 2] = 0
    assert torch.allclose(of.encode_text(ids), by_layers(of, ids), atol=1e-5)
    assert rows[len(first)] > len(ids)
    assert torch.allclose(of.encode_text(ids)[1:], whole[1:], atol=1e-5)


def test_what_the_host_refuses_is_refused():
    of = model("transformers CLIP")
    with pytest.raises(ValueError, match="max_position_embeddings"):
        of.module.get_text_features(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match="doesn't match model"):
        of.module.get_image_features(torch.zeros(1, 3, 40, 40))
