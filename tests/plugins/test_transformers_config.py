"""`ClipqConfig` itself: what it keeps, and what becomes of it in a config.json."""

from __future__ import annotations

import copy
import json

import pytest
from tiny_models import build

import clipq
from clipq.arithmetic.specs import QuantSpec

SCHEME = clipq.Scheme(
    "mine", QuantSpec(granularity="group", group_size=32, bits=4), exceptions=(("*fc2", clipq.Scheme("int8")),)
)


@pytest.mark.parametrize(
    "precision", ["int8", SCHEME, {"image": "int8", "text": SCHEME}], ids=["name", "scheme", "towers"]
)
@pytest.mark.parametrize("fallback", [None, "bf16"])
def test_it_survives_json_and_copies(precision, fallback):
    config = clipq.ClipqConfig(precision, fallback=fallback)
    values = json.loads(config.to_json_string())
    assert values["quant_method"] == "clipq" and dict(config) == config.to_dict()
    again = clipq.ClipqConfig.from_dict(values)
    assert again == config == copy.deepcopy(config)
    assert again.precision == precision and again.fallback == fallback
    assert clipq.ClipqConfig.from_dict(values, return_unused_kwargs=True, other=1) == (config, {"other": 1})


def test_one_precision_for_each_tower():
    assert clipq.ClipqConfig(image="int8", text="fp16").precision == {"image": "int8", "text": "fp16"}
    assert clipq.ClipqConfig().precision == "int8"


def test_the_label_of_a_model_is_that_of_its_folder(tmp_path):
    from transformers import ViTModel

    build("transformers ViT").save_pretrained(tmp_path / "float")
    model = ViTModel.from_pretrained(tmp_path / "float", quantization_config=clipq.ClipqConfig(SCHEME))
    model.save_pretrained(tmp_path / "quantized")
    settings = json.loads((tmp_path / "quantized" / "config.json").read_text("utf-8"))
    assert model.config.quantization_config.to_dict() == settings["quantization_config"]
    read = ViTModel.from_pretrained(tmp_path / "quantized")
    assert read.config.quantization_config.to_dict() == settings["quantization_config"]
    assert "transformers_weights" not in read.config.to_dict()
