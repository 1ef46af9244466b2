"""transformers' own calls after `quantize`: outputs complete to whoever looks, padding, and what is inside."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tiny_models import build
from torch import Tensor, nn
from tower_helpers import HOST, by_layers, counted, how, model, pixels, tokens

from clipq.hosts.calls.outputs import Unfinished
from clipq.methods.finishing import use_kernel
from clipq.models import Model

TWO_TOWERS = ["transformers CLIP", "transformers CLIP, old end", "transformers SigLIP"]
IMAGES = ["transformers CLIP image", "transformers SigLIP image", "transformers ViT", "transformers DINOv2"]
TEXTS = ["transformers CLIP text", "transformers SigLIP text", "transformers SigLIP 2 text"]
precisions = pytest.mark.parametrize("precision", ["fp32", "int8"])
WITHIN = {"fp32": 1e-5, "int8": 2e-2}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def close(one: Tensor, other: Tensor, precision: str = "fp32") -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= WITHIN[precision] * other.norm() + 1e-6)


def layer_by_layer(module: nn.Module, *arguments: object, **options: object) -> object:
    handles = [part.register_forward_hook(lambda *_: None) for part in module.modules() if not part._modules]
    found = module(*arguments, **options)
    for handle in handles:
        handle.remove()
    return found


@precisions
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_features_are_the_bits_of_model(name: str, precision: str) -> None:
    of = model(name, precision)
    module, x, ids = of.module, pixels(of), tokens(of)
    assert torch.equal(module.get_image_features(pixel_values=x).pooler_output, of.encode_image(x))
    assert torch.equal(module.get_text_features(input_ids=ids).pooler_output, of.encode_text(ids))
    assert close(of.encode_image(x), by_layers(of, x), precision)
    assert close(of.encode_text(ids), by_layers(of, ids), precision)


@precisions
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_logits_and_loss_are_those_of_the_embeddings(name: str, precision: str) -> None:
    of = model(name, precision)
    x, ids = pixels(of, 5), tokens(of)
    found = of.module(input_ids=ids, pixel_values=x, return_loss=True)
    images, texts = of.encode_image(x, normalize=True), of.encode_text(ids, normalize=True)
    logits = of.module.logit_scale.exp() * images @ texts.T + getattr(of.module, "logit_bias", 0)
    assert close(found.logits_per_image, logits, "fp32") and found.loss.isfinite()
    assert found.text_model_output.last_hidden_state.shape[:2] == ids.shape
    inside = layer_by_layer(of.module, input_ids=ids, pixel_values=x, return_loss=True)
    assert close(found.vision_model_output[0], inside.vision_model_output[0], precision)
    assert close(found.text_model_output[0], inside.text_model_output[0], precision)
    assert len(found.to_tuple()) == len(inside.to_tuple())


@precisions
@pytest.mark.parametrize("name", IMAGES)
def test_hidden_states_of_images_are_there(name: str, precision: str) -> None:
    of = model(name, precision)
    x = pixels(of)
    found, inside = of.module(pixel_values=x), layer_by_layer(of.module, pixel_values=x)
    assert list(found) == list(inside)
    assert all(close(found[key], inside[key], precision) for key in inside)
    assert all(close(a, b, precision) for a, b in zip(of.module(x, return_dict=False), inside.to_tuple(), strict=True))
    if name in ("transformers ViT", "transformers DINOv2"):
        assert torch.equal(of.encode_image(x), found.last_hidden_state[:, 0]) or precision == "fp32"


@precisions
@pytest.mark.parametrize("name", TEXTS)
def test_hidden_states_of_texts_are_there(name: str, precision: str) -> None:
    of = model(name, precision)
    ids = tokens(of)
    found, inside = of.module(ids), layer_by_layer(of.module, ids)
    assert list(found) == list(inside)
    assert all(close(found[key], inside[key], precision) for key in inside)


LOOKS = {
    "attribute": lambda output: output.last_hidden_state,
    "key": lambda output: output["last_hidden_state"],
    "index": lambda output: output[0],
    "slice": lambda output: output[:1][0],
    "tuple": lambda output: output.to_tuple()[0],
    "values": lambda output: next(iter(output.values())),
    "items": lambda output: dict(output.items())["last_hidden_state"],
    "get": lambda output: output.get("last_hidden_state"),
    "unpacked": lambda output: {**output}["last_hidden_state"],
    "dict": lambda output: dict(output)["last_hidden_state"],
    "copy": lambda output: copy.copy(output).last_hidden_state,
    "deep copy": lambda output: copy.deepcopy(output).last_hidden_state,
    "pickle": lambda output: pickle.loads(pickle.dumps(output)).last_hidden_state,
    "tree": lambda output: torch.utils._pytree.tree_flatten(output)[0][0],
    "made again": lambda output: type(output)(dict(output)).last_hidden_state,
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_at_a_text_finds_all_of_it(look: str) -> None:
    of = model("transformers CLIP text", "int8")
    ids = tokens(of)
    output = of.module(ids)
    assert isinstance(output, Unfinished)
    expected = layer_by_layer(of.module, ids).last_hidden_state
    assert close(LOOKS[look](output), expected, "int8")
    assert len(output) == 2 and list(output) == ["last_hidden_state", "pooler_output"]
    assert not isinstance(output, Unfinished)


def test_what_is_ready_does_not_compute_the_rest() -> None:
    of = model("transformers CLIP", "int8")
    use_kernel(of.module, "reference")
    rows = counted(of.module.text_model.encoder.layers[-1].mlp.fc1)
    output = of.module.get_text_features(input_ids=tokens(of))
    assert output.pooler_output.shape[0] == 5 and rows == [5]
    assert isinstance(output, Unfinished)
    output.pooler_output = torch.zeros(5, 2)
    assert output.last_hidden_state.shape == (5, 16, 32) and rows == [5, 5 * 16]
    assert torch.equal(output.pooler_output, torch.zeros(5, 2)) and torch.equal(output[1], torch.zeros(5, 2))


def test_what_is_computed_later_is_in_the_gradient_mode_of_the_call() -> None:
    of = model("transformers CLIP", "fp32")
    with torch.inference_mode():
        early = of.module.get_text_features(tokens(of))
    with torch.no_grad():
        other = of.module.get_image_features(pixels(of))
    with torch.enable_grad():
        assert early.last_hidden_state.is_inference() and not other.last_hidden_state.requires_grad


@precisions
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_padding(name: str, precision: str) -> None:
    of = model(name, precision)
    ids = tokens(of)[:4]
    lengths = torch.tensor([5, 2, 16, 10])
    mask = (torch.arange(16) < lengths[:, None]).long()
    plain = model(name, precision).module
    for given in (mask, torch.ones_like(mask), mask.flip(1), mask.bool()):
        found = of.module.get_text_features(input_ids=ids, attention_mask=given)
        handles = [part.register_forward_hook(lambda *_: None) for part in plain.modules()]
        expected = plain.get_text_features(input_ids=ids, attention_mask=given)
        for handle in handles:
            handle.remove()
        assert close(found.pooler_output, expected.pooler_output, precision)
        assert close(found.last_hidden_state, expected.last_hidden_state, precision)


@pytest.mark.parametrize("name", ["transformers CLIP", "transformers SigLIP"])
def test_hidden_states_asked_for_are_those_of_the_tower_and_the_next_call_is_whole_again(name: str) -> None:
    of = model(name, "int8")
    x, ids = pixels(of), tokens(of)
    image, text = of.encode_image(x), of.encode_text(ids)
    inside = of.module.get_image_features(x, output_hidden_states=True)
    assert len(inside.hidden_states) == 3 and torch.equal(inside.pooler_output, image)
    inside = of.module.get_text_features(ids, output_hidden_states=True)
    assert len(inside.hidden_states) == 3 and torch.equal(inside.pooler_output, text)
    assert how(of, "image") != HOST and how(of, "text") != HOST  # though transformers' hooks stay in the layers
    assert torch.equal(of.encode_image(x), image) and torch.equal(of.encode_text(ids), text)
    of.module.vision_model.config.output_hidden_states = True
    assert len(of.module.vision_model(x).hidden_states) == 3


def test_attentions_asked_for_are_there() -> None:
    of = model("transformers CLIP", "int8")
    x = pixels(of)
    expected = of.encode_image(x)
    of.module.set_attn_implementation("eager")
    found = of.module.get_image_features(x, output_attentions=True)
    assert [one.shape for one in found.attentions] == [(3, 2, 17, 17)] * 2
    assert close(found.pooler_output, expected, "int8")
    assert close(of.encode_image(x), expected, "int8")


def test_options_that_ask_for_more_are_the_hosts() -> None:
    of = model("transformers CLIP", "fp32")
    vision, plain = of.module.vision_model, build("transformers CLIP").vision_model
    plain.load_state_dict(vision.state_dict())
    x = torch.randn(2, 3, 48, 40)
    expected = plain(x, interpolate_pos_encoding=True)
    assert close(vision(x, interpolate_pos_encoding=True).pooler_output, expected.pooler_output)
    with pytest.raises(ValueError, match="doesn't match model"):
        vision(x)
    ids = tokens(of)[:, :6]
    positions = torch.arange(6).flip(0)[None]
    text, plain = of.module.text_model, build("transformers CLIP").text_model
    plain.load_state_dict(text.state_dict())
    expected = plain(ids, position_ids=positions).pooler_output
    assert close(text(ids, position_ids=positions).pooler_output, expected)
    with pytest.raises(ValueError, match="input_ids"):
        text()


@precisions
def test_classifiers_and_projections_call_the_towers(precision: str) -> None:
    of = model("transformers ViT classifier", precision)
    x = pixels(of)
    expected = of.module.classifier(of.module.vit(x).last_hidden_state[:, 0])
    assert torch.equal(of.module(x).logits, expected)
    for name in ("transformers CLIP image, projected", "transformers CLIP text, projected"):
        of = model(name, precision)
        given = pixels(of) if "image" in name else tokens(of)
        found, inside = of.module(given), layer_by_layer(of.module, given)
        assert list(found) == list(inside)
        assert all(close(found[key], inside[key], precision) for key in inside)


def test_a_model_of_a_module_that_clipq_never_touched_is_the_host() -> None:
    module = build("transformers CLIP")
    of = Model(module)
    assert how(of, "image") == HOST and type(module.vision_model).__module__.startswith("transformers.")
    x = pixels(of)
    assert torch.equal(of.encode_image(x), module.get_image_features(x).pooler_output)
