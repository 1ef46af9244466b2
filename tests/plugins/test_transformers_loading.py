"""`from_pretrained` with a ClipqConfig, or of a folder of clipq: what `clipq.quantize` gives, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from checkpoint_helpers import TWO_TOWERS, embeddings, forge, join, split
from tiny_models import build
from tiny_processors import clip_processor
from torch import nn

import clipq
from clipq.errors import CheckpointError, QuantizationError, SchemeError, UnknownNameError
from clipq.files.header import GUARDED_FILE
from clipq.models import Model

NAMES = (
    TWO_TOWERS,
    "transformers SigLIP",
    "transformers CLIP image",
    "transformers CLIP image, projected",
    "transformers CLIP text",
    "transformers CLIP text, projected",
    "transformers SigLIP image",
    "transformers SigLIP text",
    "transformers SigLIP 2 text",
    "transformers ViT",
    "transformers ViT classifier",
    "transformers DINOv2",
)
MIXED = {"image": "int4", "text": "int8-weight-only"}


def answers(module: nn.Module) -> list[torch.Tensor]:
    model = Model(module)
    if model.towers == ("text",):
        return [model.encode_text(torch.tensor([[98, 5, 7, 99]]))]
    return embeddings(model)


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    """The same class, the same embeddings, the same tensors and recipe."""
    assert type(one) is type(other)
    for a, b in zip(answers(one), answers(other), strict=True):
        assert a.isfinite().all() and torch.equal(a, b)
    assert Model(one).fingerprint() == Model(other).fingerprint()
    assert Model(one).recipe == Model(other).recipe
    assert not one.training and not any(tensor.is_meta for tensor in [*one.parameters(), *one.buffers()])


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> dict[str, Path]:
    """Folders of the float models. Not to be changed."""
    folders = {name: tmp_path_factory.mktemp("float") for name in NAMES}
    for name, folder in folders.items():
        build(name).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A quantized CLIP that clipq saved. Not to be changed."""
    return clipq.save(clipq.quantize(build(TWO_TOWERS), "int8"), tmp_path_factory.mktemp("int8") / "clip")


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        *(("int8", name) for name in NAMES),
        *((MIXED, name) for name in (TWO_TOWERS, "transformers SigLIP", "transformers CLIP image", NAMES[4])),
    ],
)
def test_a_config_gives_what_quantize_gives_and_saves_it(name, precision, floats, tmp_path):
    kind = getattr(transformers, type(build(name)).__name__)
    expected = clipq.quantize(kind.from_pretrained(floats[name]), precision)
    found = kind.from_pretrained(floats[name], quantization_config=clipq.ClipqConfig(precision))
    assert isinstance(found, kind)
    assert_alike(found, expected)
    found.save_pretrained(tmp_path / "one")
    expected.save_pretrained(tmp_path / "two")
    clipq.save(expected, tmp_path / "three")
    for saved in ("one", "two", "three"):
        read, about = kind.from_pretrained(tmp_path / saved, output_loading_info=True)
        assert not any(about.values())
        assert_alike(read, expected)
        assert_alike(clipq.load(tmp_path / saved).module, expected)


@pytest.mark.parametrize("given", ["name", "dict", "towers", "auto class"])
def test_a_config_can_be_given_in_several_ways(given, floats):
    precision = {"image": "int8", "text": "fp32"} if given == "towers" else "int8"
    config = {
        "dict": {"quant_method": "clipq", "precision": "int8"},
        "towers": clipq.ClipqConfig(image="int8"),
    }.get(given, clipq.ClipqConfig())
    kind = transformers.AutoModel if given == "auto class" else transformers.CLIPModel
    found = kind.from_pretrained(floats[TWO_TOWERS], quantization_config=config)
    assert_alike(found, clipq.quantize(kind.from_pretrained(floats[TWO_TOWERS]), precision))


def test_options_of_from_pretrained_hold(folder, floats):
    found = transformers.CLIPModel.from_pretrained(
        folder, attn_implementation="eager", output_hidden_states=True, device_map="cpu"
    )
    assert found.config.vision_config._attn_implementation == "eager"
    assert found.vision_model(torch.randn(1, 3, 32, 32), output_hidden_states=True).hidden_states
    half = transformers.CLIPModel.from_pretrained(
        floats[TWO_TOWERS], dtype=torch.float16, device_map="auto", quantization_config=clipq.ClipqConfig("int8")
    )
    assert_alike(half, clipq.quantize(transformers.CLIPModel.from_pretrained(floats[TWO_TOWERS], dtype=torch.float16)))


@pytest.mark.parametrize("tower", ["vision", "text"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_one_tower_of_two(tower, projected, precision, tmp_path):
    whole = clipq.quantize(build(TWO_TOWERS), precision)  # int4 has another scheme for some modules, by their names
    clipq.save(whole, tmp_path / "clip")
    kind = {"vision": "CLIPVisionModel", "text": "CLIPTextModel"}[tower] + "WithProjection" * projected
    part = getattr(transformers, kind).from_pretrained(tmp_path / "clip")
    model = Model(part)
    inputs = torch.randn(2, 3, 32, 32) if tower == "vision" else torch.tensor([[98, 5, 7, 99]])
    encode = "encode_image" if tower == "vision" else "encode_text"
    expected = getattr(whole, f"{tower}_model")(inputs).pooler_output
    if projected:
        expected = getattr(Model(whole), encode)(inputs)
    assert torch.equal(getattr(model, encode)(inputs), expected)
    clipq.save(part, tmp_path / "part")
    assert_alike(getattr(transformers, kind).from_pretrained(tmp_path / "part"), part)


def test_one_tower_of_siglip(tmp_path):
    whole = clipq.quantize(build("transformers SigLIP"))
    whole.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    part = transformers.SiglipVisionModel.from_pretrained(tmp_path)
    assert torch.equal(part(pixels).pooler_output, whole.get_image_features(pixels).pooler_output)


# -- what looks at inputs ---------------------------------------------------------------------------------------------


def test_a_precision_that_looks_at_inputs_needs_a_processor(floats):
    with pytest.raises(QuantizationError, match="'int8-static' looks at inputs.*use clipq.quantize.*processor="):
        transformers.CLIPModel.from_pretrained(
            floats[TWO_TOWERS], quantization_config=clipq.ClipqConfig(image="int8-static")
        )


def test_with_one_it_is_shown_the_photos_of_clipq(floats):
    processor = clip_processor()
    config = clipq.ClipqConfig(image="int8-static-minmax", processor=processor)
    found = transformers.CLIPModel.from_pretrained(floats[TWO_TOWERS], quantization_config=config)
    model = Model(transformers.CLIPModel.from_pretrained(floats[TWO_TOWERS]), processor=processor)
    expected = clipq.quantize(model, {"image": "int8-static-minmax"})
    assert_alike(found, expected.module)
    assert Model(found).recipe.calibration["image"]["count"] > 20
    json.dumps(found.config.to_dict()["quantization_config"])


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_a_precision_that_is_none():
    with pytest.raises(UnknownNameError, match="unknown precision 'int9'.*int8"):
        clipq.ClipqConfig("int9")
    with pytest.raises(UnknownNameError, match="measured where a model is loaded"):
        clipq.ClipqConfig("auto")
    with pytest.raises(SchemeError, match="two answers"):
        clipq.ClipqConfig("int8", image="fp16")


def test_several_devices_are_refused(floats):
    with pytest.raises(QuantizationError, match="one device"):
        transformers.CLIPModel.from_pretrained(
            floats[TWO_TOWERS],
            quantization_config=clipq.ClipqConfig("int8"),
            device_map={"vision_model": "cpu", "": "disk"},
        )


def damaged(folder: Path, target: Path, what: str) -> Path:
    """A copy of the folder, its file changed."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    file = target / GUARDED_FILE
    header, data = split(file)
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "a flipped bit":
        join(file, json.dumps(header).encode(), data[:-1] + bytes([data[-1] ^ 1]))
    elif what == "of somebody else":
        from safetensors.torch import save_file

        save_file(build(TWO_TOWERS).state_dict(), file, {"format": "pt"})
    elif what == "a tensor less":
        forge(file, file, lambda header, _: header.update(gone=header.pop("logit_scale")))
    return target


@pytest.mark.parametrize("what", ["truncated", "a flipped bit", "of somebody else", "a tensor less"])
@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModel"])
def test_a_damaged_file_is_a_typed_error(folder, tmp_path, what, kind):
    if what == "a tensor less" and kind == "CLIPVisionModel":
        pytest.skip("it has no such tensor")
    with pytest.raises(CheckpointError, match=GUARDED_FILE):
        getattr(transformers, kind).from_pretrained(damaged(folder, tmp_path / "damaged", what))


def test_a_configuration_of_another_architecture_is_refused(folder, tmp_path):
    changed = damaged(folder, tmp_path / "changed", "nothing")
    config = json.loads((changed / "config.json").read_text("utf-8"))
    config["vision_config"]["hidden_act"] = "relu"
    (changed / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match="written with vision_config.hidden_act='quick_gelu'.*'relu'"):
        transformers.CLIPModel.from_pretrained(changed)
    with pytest.raises(CheckpointError, match="written with hidden_act='quick_gelu'"):
        transformers.CLIPVisionModel.from_pretrained(changed)


def test_a_class_that_needs_more_than_the_file_has_is_refused(folder, floats, tmp_path):
    with pytest.raises(CheckpointError, match=r"'classifier.*' is missing, which CLIPForImageClassification needs"):
        transformers.CLIPForImageClassification.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    labelled = tmp_path / "vit"
    labelled.mkdir()
    vit = json.loads((floats["transformers ViT"] / "config.json").read_text("utf-8"))
    (labelled / "config.json").write_text(json.dumps({**vit, "quantization_config": config}), "utf-8")
    (labelled / GUARDED_FILE).write_bytes((folder / GUARDED_FILE).read_bytes())
    with pytest.raises(CheckpointError, match="holds a CLIPModel, of which ViTModel is no part"):
        transformers.ViTModel.from_pretrained(labelled)
