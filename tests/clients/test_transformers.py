"""transformers' own ways to run a model, on quantized ones: pipelines, `Trainer`; and accelerate's `prepare`."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import build
from torch import nn

import clipq


@pytest.fixture
def clip(clip_folder):
    """Model and processor, as a user loads them."""
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(clip_folder), AutoProcessor.from_pretrained(clip_folder)


def pipeline(task: str, model: nn.Module, processor):
    import transformers

    parts = {"tokenizer": processor.tokenizer} if "zero-shot" in task else {}
    return transformers.pipeline(task, model=model, image_processor=processor.image_processor, device="cpu", **parts)


def test_the_zero_shot_pipeline(clip, drawings):
    model, processor = clip
    found = []
    for one in (copy.deepcopy(model), clipq.quantize(model)):
        ask = pipeline("zero-shot-image-classification", one, processor)
        found.append({a["label"]: a["score"] for a in ask(drawings[0], candidate_labels=["cat", "dog", "owl"])})
    assert sum(found[1].values()) == pytest.approx(1)
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_the_feature_pipeline(clip, drawings):
    model, processor = build("transformers ViT"), clip[1]
    found = [
        torch.tensor(pipeline("image-feature-extraction", one, processor)(drawings[0]))
        for one in (copy.deepcopy(model), clipq.quantize(model))
    ]
    assert found[0].shape == found[1].shape
    assert torch.cosine_similarity(*found, dim=-1).min() > 0.999


def test_trainer_evaluates_a_quantized_classifier(tmp_path):
    import transformers

    model = build("transformers ViT classifier")
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": i % 2} for i in range(6)]
    arguments = transformers.TrainingArguments(
        tmp_path, per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
    )
    losses = [
        transformers.Trainer(model=one, args=arguments, eval_dataset=rows).evaluate()["eval_loss"]
        for one in (copy.deepcopy(model), clipq.quantize(model))
    ]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)


def test_accelerate_prepares_a_quantized_module_and_its_batches():
    from accelerate import Accelerator

    model, pixels = clipq.quantize(build("transformers CLIP")), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = model.get_image_features(pixels).pooler_output
        prepared, batches = Accelerator(cpu=True).prepare(model, torch.utils.data.DataLoader(pixels, batch_size=2))
        after = torch.cat([prepared.get_image_features(batch).pooler_output for batch in batches])
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_host_call_compiles(backend):
    module, pixels = clipq.quantize(build("open_clip CLIP")), torch.randn(2, 3, 32, 32)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module.encode_image, backend=backend)
        assert torch.allclose(module.encode_image(pixels), compiled(pixels), atol=1e-4)
