"""Files of clipq 0.2, as it wrote them: read as ever, and the same embeddings come out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import clipq
from clipq.resources import resource
from clipq.towers.calls import Whole

OLD = Path(__file__).resolve().parents[1] / "data" / "v0.2"
FILES = sorted(path for path in OLD.glob("*.safetensors") if ".expected" not in path.name)


def made_up(*shape: int) -> torch.Tensor:
    """The pictures that 0.2 embedded for these tests."""
    return torch.arange(torch.Size(shape).numel()).float().mul(0.37).sin().reshape(shape)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """To rounding, which other processors do otherwise, and which tips single int8 values over the edge of a step."""
    return bool(torch.nn.functional.cosine_similarity(found, expected).min() > 0.9999)


def test_there_is_one_of_each_host():
    assert [path.name.split("-")[0] for path in FILES] == ["open_clip", "timm", "transformers"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@torch.no_grad()
def test_a_file_of_0_2_gives_the_embeddings_of_0_2(path: Path) -> None:
    model, expected = clipq.load(path), load_file(path.with_suffix(".expected.safetensors"))
    assert set(model.precision.values()) == {"int8"}
    x = made_up(3, *model.host.pixel_shape(model.module))
    assert close(model.encode_image(x), expected["images"])
    if "text" in model.towers:
        assert close(model.encode_text(expected["ids"]), expected["texts"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_written_again_is_the_same_but_for_the_version(path: Path, tmp_path: Path) -> None:
    model = clipq.load(path)
    again = clipq.load(clipq.save(model, tmp_path / "again.safetensors"))
    assert again.fingerprint() == model.fingerprint()
    assert load_file(tmp_path / "again.safetensors").keys() == load_file(path).keys()
    written = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(one, load_file(path)[name]) for name, one in written.items())


@torch.no_grad()
def test_the_module_in_a_file_runs_as_a_whole_by_the_hosts_own_call() -> None:
    model = clipq.load(OLD / "open_clip-clip.safetensors")
    x = made_up(3, *model.host.pixel_shape(model.module))
    assert isinstance(model.module.visual, Whole)
    assert torch.equal(model.module.encode_image(x), model.encode_image(x))


@torch.no_grad()
def test_the_embedded_model_of_0_2_is_read() -> None:
    model = clipq.load(resource("zoo", "clipq-tiny", "clipq-tiny-int8.safetensors"))
    base = clipq.load("clipq-tiny", precision="fp32")
    x = made_up(2, *model.host.pixel_shape(model.module))
    assert torch.nn.functional.cosine_similarity(model.encode_image(x), base.encode_image(x)).min() > 0.99
    assert torch.nn.functional.cosine_similarity(model.encode_text("a cat"), base.encode_text("a cat")).min() > 0.999
