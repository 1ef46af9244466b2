"""The host's own calls after `quantize`: whole towers, the same bits as `clipq.Model`'s, all that the host gives."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import BUILDERS, VARIANTS, build
from torch import Tensor, nn
from tower_helpers import HOST, how, inputs, model, pixels, tokens

import clipq
from clipq.hosts.base import host_class
from clipq.hosts.calls import WHOLE
from clipq.models import Model
from clipq.towers.calls import Whole

EACH = [*BUILDERS, *VARIANTS]
OPEN_CLIP = [name for name in EACH if name.startswith("open_clip")]
TIMM = [name for name in EACH if name.startswith("timm")]
precisions = pytest.mark.parametrize("precision", ["fp32", "int8"])
WITHIN = {"fp32": 1e-5, "int8": 2e-2}
"""How far, of an embedding's length, rounding may carry: it tips int8 values over the edge of a step."""


def close(one: Tensor, other: Tensor, precision: str) -> bool:
    return bool((one - other).norm() <= WITHIN[precision] * other.norm() + 1e-6)


@precisions
@pytest.mark.parametrize("name", OPEN_CLIP)
@torch.no_grad()
def test_open_clips_calls_give_the_bits_of_model(name: str, precision: str) -> None:
    of = model(name, precision)
    images, texts = inputs(of)
    module, image, text = of.module, of.encode_image(images), of.encode_text(texts)
    assert torch.equal(module.encode_image(images, normalize=False), image)
    assert torch.equal(module.encode_text(texts, normalize=False), text)
    assert torch.equal(module.encode_image(images, normalize=True), of.encode_image(images, normalize=True))
    assert torch.equal(module.encode_text(texts, normalize=True), of.encode_text(texts, normalize=True))
    if "CoCa" not in name:  # whose call makes captions too
        found = module(images, texts)
        assert torch.equal(found[0], of.encode_image(images, normalize=True))
        assert torch.equal(found[1], of.encode_text(texts, normalize=True))
    visual = module.visual(images)
    assert torch.equal(visual[0] if isinstance(visual, tuple) else visual, image)


@precisions
@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_timms_calls(name: str, precision: str) -> None:
    of = model(name, precision)
    module, (x,) = of.module, inputs(of)
    features = module.forward_features(x)
    whole, logits = module.forward_head(features, pre_logits=True), module(x)
    if precision == "int8":
        assert torch.equal(of.encode_image(x), whole)
        assert torch.equal(module.forward_head(features), logits)
    assert close(of.encode_image(x), whole, "fp32")
    handles = [part.register_forward_hook(lambda *_: None) for part in module.modules()]
    with_all = module.forward_features(x)
    for handle in handles[:-1]:
        handle.remove()
    with_the_last = module.forward_features(x)
    assert close(features, with_all, precision) and close(features, with_the_last, precision)


@precisions
@torch.no_grad()
def test_patch_tokens_asked_for_later_are_there(precision: str) -> None:
    of = model("open_clip CLIP", precision)
    x = pixels(of)
    pooled = of.module.visual(x)
    of.module.visual.output_tokens = True
    again, patches = of.module.visual(x)
    assert torch.equal(pooled, again) if precision == "int8" else close(pooled, again, precision)
    assert patches.shape == (3, 16, 64)
    assert close(of.module.visual._pool(of.module.visual.transformer(of.module.visual._embeds(x)))[1], patches, "fp32")


@precisions
@torch.no_grad()
def test_the_stack_of_blocks_alone_gives_the_bits_of_the_tower(precision: str) -> None:
    of = model("open_clip CLIP", precision)
    visual, x = of.module.visual, pixels(of)
    by_blocks = visual._pool(visual.transformer(visual._embeds(x)))[0] @ visual.proj
    assert torch.equal(by_blocks, visual(x)) if precision == "int8" else close(by_blocks, visual(x), precision)
    ids = tokens(of)
    hidden = of.module.token_embedding(ids) + of.module.positional_embedding
    hidden = of.module.ln_final(of.module.transformer(hidden, attn_mask=of.module.attn_mask))
    by_blocks = hidden[range(5), ids.argmax(-1)] @ of.module.text_projection
    expected = of.module.encode_text(ids)
    assert torch.equal(by_blocks, expected) if precision == "int8" else close(by_blocks, expected, precision)


@torch.no_grad()
def test_intermediates_are_those_of_the_tower() -> None:
    of = model("open_clip CLIP", "int8")
    x = pixels(of)
    found = of.module.visual.forward_intermediates(x, normalize_intermediates=False)
    assert torch.equal(found["image_features"], of.encode_image(x))
    assert len(found["image_intermediates"]) == 2
    trunk = model("timm vision_transformer", "int8")
    x = pixels(trunk)
    final, layers = trunk.module.forward_intermediates(x)
    assert torch.equal(final, trunk.module.forward_features(x)) and len(layers) == len(trunk.module.blocks)
    (last,) = trunk.module.get_intermediate_layers(x, n=1, norm=True)
    assert torch.equal(last, final[:, trunk.module.num_prefix_tokens :])


@torch.no_grad()
def test_a_hook_on_a_block_sees_what_the_tower_computes() -> None:
    of, seen = model("open_clip CLIP", "int8"), []
    x = pixels(of)
    expected = of.encode_image(x)
    blocks = of.module.visual.transformer.resblocks
    handle = blocks[-1].register_forward_hook(lambda _module, _given, output: seen.append(output))
    assert torch.equal(of.module.encode_image(x), expected)
    visual = of.module.visual
    assert torch.equal(visual.ln_post(seen[0][:, 0]) @ visual.proj, expected)
    handle.remove()


def test_classes_are_subclasses_of_the_hosts_under_its_names() -> None:
    module = build("open_clip CLIP")
    before = {path: type(part) for path, part in module.named_modules()}
    names = list(module.state_dict())
    clipq.quantize(module, "fp32")
    assert list(module.state_dict()) == names
    for path, part in module.named_modules():
        assert isinstance(part, before[path]) and host_class(part) is before[path]
        assert type(part).__name__ == before[path].__name__
    assert isinstance(module.visual, Whole) and isinstance(module.visual.transformer.resblocks[0], Whole)
    assert not isinstance(build("open_clip CLIP").visual, Whole)


def test_every_class_put_in_place_of_another_is_one_of_it() -> None:
    import importlib

    for theirs, (home, name) in WHOLE.items():
        package, _, kind = theirs.rpartition(".")
        own = getattr(importlib.import_module(f"clipq.hosts.calls.{home}"), name)
        assert issubclass(own, getattr(importlib.import_module(package), kind)) and own.__name__ == kind


@pytest.mark.parametrize("name", ["open_clip CLIP", "open_clip CustomTextCLIP", "transformers CLIP", "timm scales"])
@torch.no_grad()
def test_copies_and_pickles_of_a_module_are_their_own(name: str) -> None:
    of = model(name, "int8")
    given = inputs(of)
    expected = [of.encode_image(given[0]), *([of.encode_text(given[1])] if len(given) > 1 else [])]
    saved = io.BytesIO()
    torch.save(of.module, saved)
    saved.seek(0)
    twins = [copy.deepcopy(of.module), pickle.loads(pickle.dumps(of.module)), torch.load(saved, weights_only=False)]
    for parameter in of.module.parameters():
        parameter.zero_()
    for twin in map(Model, twins):
        assert how(twin, "image") != HOST
        assert torch.equal(twin.encode_image(given[0]), expected[0])
        assert len(given) == 1 or torch.equal(twin.encode_text(given[1]), expected[1])


def test_threads_at_the_first_call_of_the_hosts_own() -> None:
    module = copy.deepcopy(model("open_clip CLIP", "int8").module)  # packed by none
    batches = [torch.randn(size, 3, 32, 32) for size in (1, 3, 2, 5)] * 4
    with torch.no_grad():
        expected = [copy.deepcopy(module).encode_image(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(torch.no_grad()(module.encode_image), batches))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_gradient_through_a_float_tower_is_the_hosts() -> None:
    of, plain = model("open_clip CLIP", "fp32"), build("open_clip CLIP")
    plain.load_state_dict(of.module.state_dict())
    x = pixels(of)
    for module in (of.module, plain):
        module.visual.transformer.resblocks[0].mlp.c_fc.weight.requires_grad_()
        module.encode_image(x).square().sum().backward()
    own, expected = (m.visual.transformer.resblocks[0].mlp.c_fc.weight.grad for m in (of.module, plain))
    torch.testing.assert_close(own, expected)


@precisions
def test_a_gradient_with_respect_to_the_input_or_a_norm(precision: str) -> None:
    of = model("open_clip CLIP", precision)
    x = pixels(of).requires_grad_()
    y = of.module.visual.ln_post
    y.weight.requires_grad_()
    if precision == "int8":
        with pytest.raises(clipq.ClipqError, match="no gradient"):
            of.module.encode_image(x)
    else:
        of.module.encode_image(x).sum().backward()
        assert x.grad.any() and y.weight.grad.any()


def test_training_mode_drops_out() -> None:
    of = model("open_clip drops and scales", "fp32")
    x = pixels(of)
    expected = of.module.encode_image(x)
    of.module.train()
    assert not torch.allclose(of.module.encode_image(x), expected)  # half of the patches are left out
    of.module.eval()
    assert torch.equal(of.module.encode_image(x), expected)


@torch.no_grad()
def test_a_replaced_module_is_seen_by_the_hosts_call() -> None:
    of = model("open_clip CLIP", "int8")
    x = pixels(of)
    before = of.module.encode_image(x)
    of.module.visual.transformer.resblocks = of.module.visual.transformer.resblocks[:1]
    one = of.module.encode_image(x)
    assert not torch.allclose(one, before)
    of.module.visual.ln_pre = nn.Identity()
    assert not torch.allclose(of.module.encode_image(x), one)
