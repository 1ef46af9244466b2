"""`clipq.load`: every kind of name leads to the model meant, and a wrong one to the nearest right one."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from tiny_models import build, open_clip_config

import clipq
from clipq.arithmetic.precisions import auto_towers, resolve
from clipq.errors import CheckpointError, ClipqError, DownloadError, SchemeError, UnknownNameError
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.loading import worth
from clipq.loading.load import settled
from clipq.loading.worth import CANDIDATES, Sizes, Timing, TowerWorth, Worth
from clipq.methods.coverage import coverage
from clipq.models import Model

ARCH = "clipq-test-arch"
PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.fixture
def named_arch(tmp_path, monkeypatch) -> str:
    """An architecture that open_clip knows by name."""
    import open_clip.factory

    folder = tmp_path / "archs"
    folder.mkdir()
    (folder / f"{ARCH}.json").write_text(json.dumps(open_clip_config()))
    paths, configs = list(open_clip.factory._MODEL_CONFIG_PATHS), dict(open_clip.factory._MODEL_CONFIGS)
    open_clip.add_model_config(folder)
    yield ARCH
    open_clip.factory._MODEL_CONFIG_PATHS[:] = paths
    open_clip.factory._MODEL_CONFIGS.clear()
    open_clip.factory._MODEL_CONFIGS.update(configs)


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_an_open_clip_folder(open_clip_folder, prefix):
    model = clipq.load(f"{prefix}{open_clip_folder}", precision="fp32")
    original = Model(build("open_clip CLIP QuickGELU"))
    assert torch.equal(model.encode_image(PIXELS), original.encode_image(PIXELS))
    assert model.source["name"] == "published"
    assert model.encode_text(["a cat", "a dog"]).shape == (2, 48)
    assert model.config["quick_gelu"] is True


def test_int8_is_the_default_and_whole(open_clip_folder):
    model = clipq.load(open_clip_folder)
    assert model.precision_name == "int8"
    assert coverage(model).block_share == 1.0


@pytest.fixture
def measured(monkeypatch) -> list[tuple[str, ...]]:
    """A machine on which int8 is worth it for images only; the towers of each measurement asked for."""
    asked = []

    def measure(device, towers):
        asked.append(towers)
        timings = {"image": (4.0, 9.0, 1.0), "text": (4.0, 1.0, 3.0)}
        found = [
            TowerWorth(
                tower,
                4,
                tuple(Timing(name, 4 / ms, ms, ms, ms) for name, ms in zip(CANDIDATES, timings[tower], strict=True)),
                {"image": "int8", "text": "bf16"}[tower],
            )
            for tower in towers
        ]
        return Worth(str(device), 1, "native", tuple(found), "the advice.")

    monkeypatch.setattr("clipq.loading.load.measure", measure)
    return asked


@pytest.mark.parametrize(
    ("precision", "expected", "said"),
    [
        ("auto", {"image": "int8", "text": "bf16"}, "image=int8, text=bf16"),
        ({"image": "auto", "text": "fp16"}, {"image": "int8", "text": "fp16"}, "image=int8"),
        ({"text": "auto"}, {"image": "fp32", "text": "bf16"}, "text=bf16"),
    ],
)
def test_auto_is_a_concrete_precision_and_says_why(measured, open_clip_folder, precision, expected, said, capsys):
    for name in (open_clip_folder, "clipq-tiny"):
        assert clipq.load(name, precision=precision).precision == expected
        assert capsys.readouterr().err == f"clipq: precision 'auto' is {said}: the advice.\n"
    assert measured == [auto_towers(precision)] * 2


def test_auto_measures_this_machine(open_clip_folder, monkeypatch, capsys):
    sizes = Sizes(1, 16, 32, 16, image_width=32, text_width=32, head_width=16, context_length=12, vocab_size=64)
    monkeypatch.setattr("clipq.loading.load.measure", partial(worth.measure, limit=0.02, sizes=sizes))
    model = clipq.load(open_clip_folder, precision="auto")
    assert model.precision == worth.measure(limit=0.02, sizes=sizes).choice
    assert "clipq: precision 'auto' is " in capsys.readouterr().err


def test_auto_leaves_a_quantized_file_as_it_is_and_chooses_for_a_float_one(
    measured, open_clip_folder, tmp_path, capsys
):
    mixed = {"image": "fp32", "text": "int8-weight-only"}
    file = clipq.save(clipq.load(open_clip_folder, mixed), tmp_path / "mixed.safetensors")
    assert clipq.load(file, "auto").precision == mixed
    assert "is image=fp32, text=int8-weight-only: " in capsys.readouterr().err
    assert clipq.load(file, {"image": "fp32", "text": "auto"}).precision == mixed
    with pytest.raises(SchemeError, match="cannot be made of it"):
        clipq.load(file, {"image": "int8", "text": "auto"})
    assert settled(file, "auto") == {name: resolve(one) for name, one in mixed.items()}
    assert not measured
    half = clipq.save(clipq.load(open_clip_folder, "fp16"), tmp_path / "half.safetensors")
    assert clipq.load(half, "auto").precision == {"image": "int8", "text": "bf16"}
    assert settled(half, "auto") == {"image": "int8", "text": "bf16"}
    assert settled("ViT-B-32", "int8") == "int8"


def test_a_clipq_file_and_a_clipq_folder(open_clip_folder, tmp_path):
    model = clipq.load(open_clip_folder)
    for target in (tmp_path / "model.safetensors", tmp_path / "folder"):
        again = clipq.load(clipq.save(model, target))
        assert torch.equal(again.encode_image(PIXELS), model.encode_image(PIXELS))
        assert torch.equal(again.encode_text("a cat"), model.encode_text("a cat"))
        assert again.source == model.source


def test_a_float_file_is_quantized_and_a_quantized_one_keeps_its_precision(open_clip_folder, tmp_path):
    half = clipq.save(clipq.load(open_clip_folder, precision="fp16"), tmp_path / "half.safetensors")
    assert clipq.load(half).precision_name == "int8"
    assert clipq.load(half, precision="fp32").precision_name == "fp32"
    assert clipq.load(half, precision="fp32").module.visual.proj.dtype == torch.float32
    weights = clipq.save(clipq.load(open_clip_folder, "int8-weight-only"), tmp_path / "weights.safetensors")
    assert clipq.load(weights).precision_name == "int8-weight-only"
    with pytest.raises(SchemeError, match="holds int8-weight-only; 'fp32' cannot be made of it"):
        clipq.load(weights, precision="fp32")


def test_an_architecture_with_a_file_of_weights(named_arch, open_clip_folder):
    weights = open_clip_folder / "open_clip_model.safetensors"
    model = clipq.load(named_arch, precision="fp32", pretrained=str(weights))
    assert model.source["name"] == f"{named_arch}/open_clip_model"
    assert model.config["arch"] == named_arch
    assert str(open_clip_folder) not in json.dumps(model.source)
    with pytest.raises(CheckpointError, match="cannot be loaded|cannot be got"):
        clipq.load("ViT-B-32", pretrained=str(weights))  # weights of another architecture


def test_a_transformers_folder(tmp_path):
    from transformers import CLIPImageProcessor

    module = build("transformers CLIP")
    module.save_pretrained(tmp_path / "hf")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "hf")
    model = clipq.load(tmp_path / "hf", precision="fp32")
    assert torch.equal(model.encode_image(PIXELS), Model(module).encode_image(PIXELS))
    assert model.preprocessing["kind"] == "transformers"
    int8 = clipq.load(tmp_path / "hf")
    again = clipq.load(clipq.save(int8, tmp_path / "int8.safetensors"))
    assert torch.equal(again.encode_image(PIXELS), int8.encode_image(PIXELS))
    with pytest.raises(CheckpointError, match="pretrained='x' goes with an open_clip architecture"):
        clipq.load(tmp_path / "hf", pretrained="x")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ViT-B-23", {}, UnknownNameError, "Did you mean 'ViT-B-32'"),
        ("clipq-tinny", {}, UnknownNameError, "Did you mean 'clipq-tiny'"),
        ("ViT-B-32", {"pretrained": "openia"}, UnknownNameError, "Did you mean 'openai'"),
        ("ViT-S-32-alt", {}, UnknownNameError, "unknown pretrained tag ''.*Give pretrained=TAG"),
        ("ViT-B-32", {"precision": "int7"}, UnknownNameError, "Did you mean 'int8'.*Allowed: auto, bf16"),
        ("ViT-B-32", {"precision": {"text": "atuo"}}, UnknownNameError, "Did you mean 'auto'"),
        ("no-such-file.safetensors", {}, CheckpointError, "does not exist"),
    ],
)
def test_wrong_names(name, options, error, message):
    with pytest.raises(error, match=message):
        clipq.load(name, **options)


def test_a_folder_of_nothing_known(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        clipq.load(tmp_path)


def test_the_embedded_model_needs_no_network():
    for precision in ("int8", "fp32", "fp16", "int8-weight-only", {"image": "int8", "text": "fp32"}):
        model = clipq.load("clipq-tiny", precision=precision)
        assert model.precision == (precision if isinstance(precision, dict) else dict.fromkeys(model.towers, precision))
    assert torch.isfinite(model.encode_text(["a drawing of a cat"])).all()


def test_without_network_or_cache_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"the weights of 'ViT-B-16' .* cannot be got"):
        clipq.load("ViT-B-16", precision="fp32")


def test_a_cache_that_cannot_be_written_is_named(open_clip_folder, tmp_path, monkeypatch):
    from clipq.arithmetic.precisions import per_tower
    from clipq.loading import load as loading
    from clipq.zoo import registry

    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    entry = registry.Entry("x", "y", "org/x", "MIT", False, ())
    monkeypatch.setattr(loading, "load_open_clip", lambda *a, **k: loading.Model(build("open_clip CLIP"), config={}))
    with pytest.raises(CheckpointError, match="Give cache_dir= a folder"):
        loading._from_zoo(entry, "int8", per_tower("int8"), torch.device("cpu"), blocked)


def test_models_made_by_hand_can_be_saved_with_their_parts(tmp_path):
    tokenizer = TokenizerSpec({"kind": "open_clip", "context_length": 16})
    model = Model(build("open_clip CLIP"), config=open_clip_config(), tokenizer=tokenizer)
    again = clipq.load(clipq.save(clipq.quantize(model), tmp_path / "m.safetensors"))
    assert torch.equal(again.encode_text("a cat"), model.encode_text("a cat"))
    with pytest.raises(ClipqError, match="none of open_clip's named ones"):
        clipq.save(build("open_clip CLIP"), tmp_path / "n.safetensors")
