"""Towers over rows: the host's own embeddings from less arithmetic, and the host itself where it is not known."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tiny_models import BUILDERS, VARIANTS, build
from torch import nn

from clipq.arithmetic.schemes import QuantSpec, Scheme
from clipq.errors import ClipqWarning
from clipq.methods.quantization import quantize, use_kernel
from clipq.models import Model
from clipq.towers.rows import distinct

ONE, ALL, CAUSAL, BOTH, HOST, NONE = "one token", "all tokens", "causal", "both ways", "host", "no such tower"

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
    "open_clip CoCa": (ALL, HOST),
    "transformers CLIP": (ONE, CAUSAL),
    "transformers SigLIP": (ALL, BOTH),
    "transformers ViT": (ONE, NONE),
    "transformers DeiT": (ONE, NONE),
    "transformers DINOv2": (ONE, NONE),
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
    "open_clip class token in the text": (ONE, HOST),
    "open_clip normed queries in the text": (ONE, HOST),
    "transformers CLIP, old end": (ONE, CAUSAL),
    "transformers CLIP image": (ONE, NONE),
    "transformers CLIP image, projected": (ONE, NONE),
    "transformers CLIP text": (NONE, CAUSAL),
    "transformers CLIP text, projected": (NONE, CAUSAL),
    "transformers SigLIP image": (ALL, NONE),
    "transformers SigLIP text": (NONE, BOTH),
    "transformers SigLIP 2 text": (NONE, BOTH),
    "transformers ViT classifier": (ONE, NONE),
    "transformers DINOv2 SwiGLU": (HOST, NONE),
    "timm average": (ALL, NONE),
    "timm attention pool": (ALL, NONE),
    "timm no class token": (ALL, NONE),
    "timm registers": (ALL, NONE),
    "timm scales": (ONE, NONE),
    "timm positions without class": (ONE, NONE),
    "timm normed queries": (HOST, NONE),
    "timm gates": (HOST, NONE),
    "timm all tokens": (HOST, NONE),
}
"""How the image and the text tower of each tiny model are run."""
KNOWN = [name for name, how in TABLE.items() if set(how) - {HOST, NONE}]


def model(name: str, precision: str | Scheme = "fp32") -> Model:
    """A tiny model with no weight at the value it starts from, which would hide a norm or a bias left out."""
    module = build(name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    if precision == "fp32":
        return Model(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        return quantize(Model(module), precision)


def pixels(of: Model, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, *of.host.pixel_shape(of.module))


def tokens(of: Model) -> torch.Tensor:
    """Prompts of mixed lengths: some words, none at all, the whole context, and one that never ends."""
    length = of.host.context_length(of.module)
    ids = torch.randint(2, 90, (5, length))
    start, end = (98, 99) if of.host.name == "transformers" else (49406, 49407)
    ids[:, 0] = start
    for row, place in enumerate((4, 1, length - 1, 9)):
        ids[row, place], ids[row, place + 1 :] = end, 0
    return ids


@torch.inference_mode()
def by_host(of: Model, x: torch.Tensor) -> torch.Tensor:
    encode = of.host.encode_image if x.is_floating_point() else of.host.encode_text
    return encode(of.module, x.to(of._dtype("image")) if x.is_floating_point() else x).float()


def by_model(of: Model, x: torch.Tensor) -> torch.Tensor:
    return of.encode_image(x) if x.is_floating_point() else of.encode_text(x)


def inputs(of: Model) -> list[torch.Tensor]:
    return [*([pixels(of)] if "image" in of.towers else []), *([tokens(of)] if "text" in of.towers else [])]


def how(of: Model, name: str) -> str:
    if name not in of.towers:
        return NONE
    tower = of._tower(name)
    if tower is None:
        return HOST
    if name == "text":
        return CAUSAL if tower.causal else BOTH
    return ALL if tower.pool is None else ONE


def test_the_table_has_every_tiny_model():
    assert list(TABLE) == [*BUILDERS, *VARIANTS]


@pytest.mark.parametrize("name", TABLE)
def test_which_towers_are_known_and_that_they_are_the_hosts(name):
    of = model(name)
    assert (how(of, "image"), how(of, "text")) == TABLE[name]
    for x in inputs(of):
        for part in (x, x[:1], x[1:2]):
            assert torch.allclose(by_model(of, part), by_host(of, part), atol=1e-5), part.dtype


BOUNDS = {
    "bf16": 2e-2,
    "fp16": 2e-3,
    "int8": 1e-2,
    "int8-symmetric": 1e-2,
    "int8-weight-only": 1e-5,
    "int8 by the reference": 1e-2,
}
"""Of the difference's length to an embedding's: rounding may tip a value over the edge of a step."""


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", KNOWN)
def test_quantized_towers_are_the_hosts_within_rounding(name, precision):
    of = model(name, precision.partition(" ")[0])
    assert (how(of, "image"), how(of, "text")) == TABLE[name]
    if precision == "int8 by the reference":
        use_kernel(of.module, "reference")
    for x in inputs(of):
        exact, found, expected = by_host(model(name), x), by_model(of, x), by_host(of, x)
        assert (found - expected).norm() / expected.norm() < BOUNDS[precision], x.dtype
        assert (found - exact).norm() <= 1.5 * (expected - exact).norm() + 1e-5 * exact.norm(), x.dtype


def counted(linear: nn.Module) -> list[int]:
    """The rows that each call of `linear` gets, from now on. A hook would bring back the host's forward."""
    seen, forward = [], linear.forward

    def count(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[:-1].numel())
        return forward(x)

    linear.forward = count
    return seen


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
    assert torch.allclose(of.encode_text(ids[:, :5].int()), by_host(of, ids), atol=1e-5)


def test_what_the_host_refuses_is_refused():
    of = model("transformers CLIP")
    with pytest.raises(ValueError, match="max_position_embeddings"):
        of.encode_text(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match="doesn't match model"):
        of.encode_image(torch.zeros(1, 3, 40, 40))


SPOTS = {
    "tower": lambda m: m.visual,
    "stack": lambda m: m.visual.transformer,
    "block": lambda m: m.visual.transformer.resblocks[0],
    "attention": lambda m: m.visual.transformer.resblocks[1].attn,
    "linear": lambda m: m.visual.transformer.resblocks[0].mlp.c_fc,
    "norm": lambda m: m.visual.ln_post,
}


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_sees_the_hosts_own_forward(spot, kind):
    of = model("open_clip CLIP")
    x = pixels(of)
    expected, shapes = of.encode_image(x), []
    seen = lambda _module, given, *_rest: shapes.append(given[0].shape)  # noqa: E731
    handle = getattr(SPOTS[spot](of.module), kind)(seen)
    assert of._tower("image") is None
    assert of._tower("text") is not None
    assert torch.allclose(of.encode_image(x), expected, atol=1e-5)
    assert [len(shape) for shape in shapes] == [4 if spot == "tower" else 3]
    handle.remove()
    assert of._tower("image") is not None


def test_a_hook_on_every_module_counts_too():
    of, calls = model("open_clip CLIP"), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: calls.append(type(m).__name__))
    of.encode_image(pixels(of))
    handle.remove()
    assert calls.count("ResidualAttentionBlock") == 2


def test_a_forward_of_ones_own_runs():
    of = model("transformers CLIP")
    x = pixels(of)
    layer = of.module.vision_model.encoder.layers[0]
    of.encode_image(x)
    layer.forward = lambda hidden_states, *_args, **_kwargs: torch.zeros_like(hidden_states)
    assert torch.allclose(of.encode_image(x), by_host(of, x), atol=1e-6)
    assert of._tower("image") is None
    assert how(Model(of.module), "image") == HOST


def test_a_hook_on_a_one_tower_model_sees_its_call():
    of = model("transformers CLIP text, projected")
    assert how(of, "text") == CAUSAL
    of.module.register_forward_hook(lambda *_: None)
    assert how(of, "text") == HOST


def test_a_siglip_that_does_not_pool_is_not_known():
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    module = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes, vision_use_head=False))
    assert how(Model(module.eval()), "image") == HOST


def test_another_scale_or_mask_is_the_hosts():
    scaled, masked = build("transformers CLIP"), build("open_clip CLIP")
    scaled.vision_model.encoder.layers[0].self_attn.scale = 1.0
    masked.attn_mask.fill_(0)
    for module, known in ((scaled, (HOST, CAUSAL)), (masked, (ONE, HOST))):
        assert (how(Model(module), "image"), how(Model(module), "text")) == known


def test_training_mode_is_the_hosts():
    of = model("open_clip drops and scales")
    of.module.train()
    assert (how(of, "image"), how(of, "text")) == (HOST, HOST)
    of.module.eval()
    assert (how(of, "image"), how(of, "text")) == (ONE, CAUSAL)


@torch.inference_mode()
def test_a_range_shared_by_all_rows_needs_all_rows():
    per_tensor = Scheme("per-tensor", QuantSpec(True, "channel"), QuantSpec(False, "tensor"))
    of = model("open_clip CLIP", per_tensor)
    assert (how(of, "image"), how(of, "text")) == (HOST, HOST)
    x = pixels(of)
    assert torch.equal(of.encode_image(x), by_host(of, x))


def test_what_is_replaced_later_is_seen():
    of = model("open_clip CLIP")
    x, ids = pixels(of), tokens(of)
    before = of.encode_image(x), of.encode_text(ids)
    blocks = of.module.visual.transformer.resblocks
    blocks[0].mlp.c_fc = nn.Linear(64, 256)
    of.module.token_embedding.weight = nn.Parameter(torch.randn(49408, 32))
    after = of.encode_image(x), of.encode_text(ids)
    assert all(not torch.allclose(one, other, atol=1e-3) for one, other in zip(before, after, strict=True))
    quantize(of.module)
    assert [how(of, "image"), how(of, "text")] == [ONE, CAUSAL]
    for given in (x, ids):
        expected = by_host(of, given)
        assert (by_model(of, given) - expected).norm() / expected.norm() < BOUNDS["int8"]
    blocks[1] = nn.Identity()
    assert how(of, "image") == HOST


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
def test_a_copy_runs_its_own_modules(name):
    of = model(name)
    x = pixels(of)
    expected = of.encode_image(x)
    other = copy.deepcopy(of)
    nn.init.zeros_(of.module.visual.proj if hasattr(of.module, "visual") else of.module.visual_projection.weight)
    assert torch.equal(other.encode_image(x), expected)
    assert not of.encode_image(x).any()


def test_weights_loaded_later_are_used():
    of, other = model("open_clip CLIP"), build("open_clip CLIP")
    x = pixels(of)
    of.encode_image(x)
    of.module.load_state_dict(other.state_dict())
    assert torch.allclose(of.encode_image(x), by_host(Model(other), x), atol=1e-5)
