"""Which towers are described for the native library, and that what is described computes what the host computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import BUILDERS, VARIANTS
from tower_helpers import BOUNDS, by_layers, by_model, inputs, model

from clipq.errors import CheckpointError
from clipq.hosts.descriptions import describe
from clipq.modules.state import slots
from clipq.native import library
from clipq.native.images import ImageTower
from clipq.native.tensors import Tensors
from clipq.native.texts import TextTower

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

CLASS, PLAIN = "is not among", "is not the plain one"
UNDESCRIBED = {
    ("open_clip custom blocks", "image"): PLAIN,
    ("open_clip inner norms", "image"): PLAIN,
    ("open_clip timm trunk", "image"): "made for pictures of",
    ("open_clip timm SigLIP", "image"): "made for pictures of",
    ("open_clip ConvNeXt", "image"): CLASS,
    ("open_clip ResNet", "image"): CLASS,
    ("open_clip CoCa", "image"): "attentional pool",
    ("open_clip CoCa", "text"): "class token",
    ("open_clip class token, seen", "text"): "class token",
    ("open_clip scaled heads", "image"): PLAIN,
    ("open_clip mask over padding", "text"): PLAIN,
    ("open_clip class token in the text", "text"): "class token",
    ("timm attention pool", "image"): "leaves out the class token",
    ("timm RMSNorm", "image"): "no LayerNorm",
    ("timm EVA, biases apart", "image"): PLAIN,
    ("timm EVA02, not turned", "image"): "nothing to turn them by",
    ("timm EVA, post-norm", "image"): PLAIN,
    ("timm DINOv3, gated", "image"): "no LayerNorm",
    ("timm RoPE, mixed", "image"): PLAIN,
    ("timm all tokens", "image"): "pooled by ''",
}
"""The towers that stay with the host's own call or its blocks, and a part of the reason."""


def described(of, tower: str) -> dict:
    return json.loads(json.dumps(describe(of.module, of.host, tower)))


def native(of, tower: str) -> ImageTower | TextTower:
    """From the description and the tensors alone, as the runtime builds it from a file."""
    places = slots(of.module)

    def get(name: str) -> np.ndarray | None:
        tensor = places[name].tensor.detach() if name in places else None
        return None if tensor is None else (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    kind = ImageTower if tower == "image" else TextTower
    return kind(Tensors(get, "the model"), described(of, tower))


def run(of, x: torch.Tensor) -> torch.Tensor:
    tower = native(of, "image" if x.is_floating_point() else "text")
    return torch.from_numpy(tower(x.numpy(), 1))


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


@pytest.mark.parametrize("name", [*BUILDERS, *VARIANTS])
def test_a_described_tower_is_the_hosts_and_the_others_have_a_reason(name):
    of = model(name, "int8")
    for x in inputs(of):
        tower = "image" if x.is_floating_point() else "text"
        found = described(of, tower)
        if reason := UNDESCRIBED.get((name, tower)):
            assert reason in found["undescribed"]
        else:
            assert "undescribed" not in found
            embeddings = run(of, x)
            assert distance(embeddings, by_model(of, x)) < 1e-4
            assert distance(embeddings, by_layers(of, x)) < 2 * BOUNDS["int8"]


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers SigLIP"])
def test_symmetric_inputs_are_described(name):
    of = model(name, "int8-symmetric")
    for x in inputs(of):
        assert distance(run(of, x), by_layers(of, x)) < BOUNDS["int8"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8-weight-only", "int4", "fp8"])
def test_other_precisions_are_not_and_say_why(precision):
    of = model("open_clip CLIP", precision)
    for tower in of.towers:
        assert "int8" in described(of, tower)["undescribed"] or "is not among" in described(of, tower)["undescribed"]


@pytest.mark.parametrize("tokens", [[2, 2], [0, 99], [0], "x", [-1, 2], [0, 1.5], 18, None])
def test_a_mean_of_tokens_that_are_not_there_is_refused(tokens, monkeypatch):
    of = model("timm distilled", "int8")
    table = described(of, "image")
    assert {"mean": [0, 2]} in table["steps"]
    table["steps"] = [{"mean": tokens} if "mean" in step else step for step in table["steps"]]
    monkeypatch.setitem(globals(), "described", lambda *_: table)
    with pytest.raises(CheckpointError, match="mean is"):
        native(of, "image")
