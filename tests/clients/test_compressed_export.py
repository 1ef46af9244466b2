"""Folders for compressed-tensors: transformers reads the embeddings of the clipq model out of them, without clipq."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_helpers import OPEN_CLIP
from tiny_models import build, config
from tiny_processors import clip_processor

import clipq
from clipq.arithmetic.precisions import resolve
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import ExportError
from clipq.exports.compressed import open_compressed, packed, write_compressed

pytest.importorskip("compressed_tensors")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("default"),  # of other people's packages
    pytest.mark.filterwarnings("ignore:fp8 is emulated"),
]

TOKEN = QuantSpec(symmetric=False, granularity="token")
GROUPS = {"granularity": "group", "group_size": 32, "bits": 4}
SCHEMES = {
    "int8": "int8",
    "int8-symmetric": "int8-symmetric",
    "int8-weight-only": "int8-weight-only",
    "int4": "int4",
    "fp8": "fp8",
    "W4A16 in groups": clipq.Scheme("groups", QuantSpec(**GROUPS)),
    "W4A16 with zero points": clipq.Scheme("zero points", QuantSpec(symmetric=False, **GROUPS)),
    "W3A16": clipq.Scheme("W3A16", QuantSpec(bits=3)),
    "W4A8": clipq.Scheme("W4A8", QuantSpec(bits=4), TOKEN),
    "per tensor": clipq.Scheme("per tensor", QuantSpec(granularity="tensor"), TOKEN),
}
NAMES = ("transformers CLIP", "transformers SigLIP", "transformers CLIP image, projected", "transformers SigLIP 2 text")


def inputs(model: clipq.Model) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 90, (8, 16))
    ids[:, -1] = 99
    both = {"image": torch.randn(8, 3, 32, 32), "text": ids}
    return {tower: both[tower] for tower in model.towers}


def answers(model: clipq.Model, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    encode = {"image": model.encode_image, "text": model.encode_text}
    return {tower: encode[tower](x) for tower, x in given.items()}


def cosines(model: clipq.Model, folder: Path) -> torch.Tensor:
    given, towers = inputs(model), open_compressed(folder)
    assert set(towers) == set(given)
    expected = answers(model, given)
    found = [torch.from_numpy(towers[tower](x.numpy())) for tower, x in given.items()]
    assert all(one.dtype == torch.float32 for one in found)
    pairs = zip(found, expected.values(), strict=True)
    return torch.cat([torch.cosine_similarity(one, other) for one, other in pairs])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_embeddings_are_those_of_the_model(name, scheme, tmp_path):
    precision = resolve(SCHEMES[scheme])
    model = clipq.quantize(clipq.Model(build(name)), precision)
    reasons = write_compressed(model, tmp_path)
    convolutions = {n for n, kind in model.recipe.modules.items() if kind == "patch_embedding"}
    fused = {n for n in reasons if ".attention." in n}
    assert set(reasons) == convolutions | fused and bool(fused) == (name == "transformers SigLIP")
    found = cosines(model, tmp_path)
    if precision.activations is None:
        assert found.min() > (0.9997 if scheme == "int4" else 0.9999)  # int4's zero points lose their last digits
    elif scheme == "fp8":  # coarse steps, which fp16 for what is left out moves: measured 0.9974 of a random model
        assert found.mean() > 0.995
    else:
        assert found.mean() > 0.9995


@pytest.mark.parametrize("precision", ["int8-static", "int8-static-minmax"])
def test_static_ranges(precision, tmp_path):
    model = clipq.Model(build("transformers CLIP"))
    clipq.quantize(model, {"image": precision}, calibration=torch.randn(16, 3, 32, 32))
    write_compressed(model, tmp_path)
    assert cosines(model, tmp_path).mean() > 0.9995


def test_weights_are_as_small_as_the_format_has_them(tmp_path):
    sizes = {}
    for scheme in ("int8", "W4A16 in groups", "int4"):
        write_compressed(clipq.quantize(clipq.Model(build("transformers ViT")), SCHEMES[scheme]), tmp_path / scheme)
        sizes[scheme] = (tmp_path / scheme / "model.safetensors").stat().st_size
    floats = sum(parameter.numel() for parameter in build("transformers ViT").parameters())
    assert sizes["W4A16 in groups"] < sizes["int8"] < 1.6 * floats


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_is_that_of_compressed_tensors(bits):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    values = torch.randint(-(1 << bits - 1), 1 << bits - 1, (5, 43)).to(torch.int8)
    values[0] = -(1 << bits - 1)
    values[1] = (1 << bits - 1) - 1
    assert torch.equal(packed(values, bits), pack_to_int32(values, bits))


WITHOUT_CLIPQ = """
import sys, numpy, torch, transformers
folder = sys.argv[1]
pixels = torch.from_numpy(numpy.load(folder + "/pixels.npy"))
whole = transformers.AutoModel.from_pretrained(folder)
whole(pixel_values=pixels, input_ids=torch.tensor([[5, 99]]))  # the first call unpacks the weights
tower = transformers.CLIPVisionModelWithProjection.from_pretrained(folder)
floats = transformers.CLIPModel.from_pretrained(
    folder, quantization_config=transformers.CompressedTensorsConfig(dequantize=True)
)
for name, found in (
    ("whole", whole.get_image_features(pixels).pooler_output),
    ("tower", tower(pixels).image_embeds),
    ("floats", floats.get_image_features(pixels).pooler_output),
):
    numpy.save(f"{folder}/{name}.npy", found.detach().numpy())
processor = transformers.AutoProcessor.from_pretrained(folder)
assert processor(text=["a cat"])["input_ids"]
assert "clipq" not in sys.modules
"""


def test_transformers_reads_it_in_a_process_without_clipq(tmp_path):
    model = clipq.quantize(clipq.Model(build("transformers CLIP"), processor=clip_processor()))
    write_compressed(model, tmp_path)
    pixels = torch.randn(6, 3, 32, 32)
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    subprocess.run([sys.executable, "-I", "-c", WITHOUT_CLIPQ, str(tmp_path)], check=True, capture_output=True)
    for name in ("whole", "tower", "floats"):
        found = torch.from_numpy(np.load(tmp_path / f"{name}.npy"))
        assert torch.cosine_similarity(found, model.encode_image(pixels)).mean() > 0.9995


def test_every_class_finds_its_configuration(tmp_path):
    """A class of one tower reads its own part of config.json, and would take integers for weights without it."""
    write_compressed(clipq.quantize(clipq.Model(build("transformers CLIP"))), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text("utf-8"))
    for part in (settings, settings["vision_config"], settings["text_config"]):
        assert part["quantization_config"]["quant_method"] == "compressed-tensors"


def test_the_models_own_configuration_stays_as_it_was(tmp_path):
    model = clipq.quantize(clipq.Model(build("transformers CLIP")))
    before = json.dumps(model.config)
    write_compressed(model, tmp_path)
    assert json.dumps(model.config) == before


# -- what it cannot be ----------------------------------------------------------------------------------------------


def test_a_model_of_another_library_is_refused(tmp_path):
    model = clipq.quantize(clipq.Model(build(OPEN_CLIP), config=config(OPEN_CLIP)))
    with pytest.raises(ExportError, match="read by transformers, and this is a open_clip model"):
        write_compressed(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(("precision", "why"), [("fp16", "it is fp16"), ("nf4", "places in a codebook")])
def test_nothing_to_keep_is_refused(precision, why, tmp_path):
    model = clipq.quantize(clipq.Model(build("transformers ViT")), precision)
    with pytest.raises(ExportError, match=f"nothing of this model can be kept.*{why}.*int8-weight-only"):
        write_compressed(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_tokenizer_whose_padding_is_seen_is_refused(tmp_path):
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 49408, "max_position_embeddings": 77, "projection_size": 64}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    module = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).eval()
    model = clipq.quantize(clipq.Model(module, tokenizer="ViT-B-32"))
    with pytest.raises(ExportError, match="sees what texts are padded with"):
        write_compressed(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ExportError, match="transformers does not load"):
        open_compressed(tmp_path)
