"""`clipq.load` from the hub: base weights are quantized once, and what was pushed is read, also by older versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from tiny_models import build, open_clip_config

import clipq

ARCH = "clipq-test-arch"

FROM_HUB = """
import sys, torch, open_clip
from pathlib import Path
from clipq.zoo import registry
from clipq.loading.load import _from_zoo, load
from clipq.arithmetic.precisions import per_tower

folder, cache = sys.argv[1:]
open_clip.add_model_config(Path(folder))
import open_clip.pretrained
open_clip.pretrained._PRETRAINED["clipq-test-arch"] = {"random": {"hf_hub": "org/tiny/", "quick_gelu": True}}
entry = registry.Entry("clipq-test-arch", "random", "org/tiny", "MIT", True, ())
model = _from_zoo(entry, "int8", per_tower("int8"), torch.device("cpu"), cache)
assert model.source["base"] == "org/tiny" and model.source["licence"] == "MIT", model.source
assert model.config["quick_gelu"] is True
print(model.encode_image(torch.ones(1, 3, 32, 32)).sum().item())
direct = load("hf-hub:org/tiny", cache_dir=cache + "/hub")
print(direct.encode_image(torch.ones(1, 3, 32, 32)).sum().item())
pushed = load("me/pushed", cache_dir=cache + "/hub")
assert pushed.precision_name == "int8", pushed
print(pushed.encode_image(torch.ones(1, 3, 32, 32)).sum().item())
if Path(cache, "before").exists():
    sys.exit()
Path(cache, "before").touch()
from clipq.zoo import hub
file = hub.download("me/pushed", "model.safetensors", cache_dir=cache + "/hub")
file.write_bytes(file.read_bytes()[:-1])
assert load("me/pushed", cache_dir=cache + "/hub").fingerprint() == pushed.fingerprint()
old = load("me/pushed-by-0.2", cache_dir=cache + "/hub")
assert old.fingerprint() == pushed.fingerprint()
assert load("me/trained-on", "fp32", cache_dir=cache + "/hub").precision_name == "fp32"
from transformers import CLIPModel, CLIPVisionModel
ones = torch.ones(1, 3, 32, 32)
ours, theirs = load("me/clip", cache_dir=cache + "/hub"), CLIPModel.from_pretrained("me/clip")
assert ours.precision_name == "int8" and type(ours.module) is type(theirs)
assert torch.equal(ours.encode_image(ones), theirs.get_image_features(ones).pooler_output)
tower = CLIPVisionModel.from_pretrained("me/clip")
assert torch.equal(tower(ones).pooler_output, theirs.vision_model(ones).pooler_output)
"""


def as_in_0_2(config: Path) -> bytes:
    settings = json.loads(config.read_text("utf-8"))
    label = {"quant_method": "compressed-tensors", "clipq_version": "0.2.0"}
    return json.dumps({"library": settings["library"], "quantization_config": label}).encode()


def trained_on(folder: Path) -> Path:
    """A float model of clipq that transformers read, and wrote again with its configuration."""
    from transformers import AutoModel

    clipq.save(build("transformers ViT"), folder.with_name("float"))
    AutoModel.from_pretrained(folder.with_name("float")).save_pretrained(folder)
    assert "clipq_version" in (folder / "config.json").read_text("utf-8")
    return folder


@pytest.fixture
def hub(open_clip_folder, tmp_path):
    """A hub with the open_clip folder in the repository org/tiny, and the folder with the architecture's config."""
    with HubServer() as server:
        for file in open_clip_folder.iterdir():
            server.add("org/tiny", file.name, file.read_bytes())
        for file in clipq.save(clipq.load(open_clip_folder), tmp_path / "pushed").iterdir():
            server.add("me/pushed", file.name, file.read_bytes())
            server.add(
                "me/pushed-by-0.2", file.name, as_in_0_2(file) if file.name == "config.json" else file.read_bytes()
            )
        clipq.quantize(build("transformers CLIP")).save_pretrained(tmp_path / "clip")
        for file in (tmp_path / "clip").iterdir():
            server.add("me/clip", file.name, file.read_bytes())
        for file in trained_on(tmp_path / "trained-on").iterdir():
            server.add("me/trained-on", file.name, file.read_bytes())
        archs = tmp_path / "archs"
        archs.mkdir()
        (archs / f"{ARCH}.json").write_text(json.dumps(open_clip_config()))
        yield server, archs


def run_from_hub(server, archs: Path, cache: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(cache / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", FROM_HUB, str(archs), str(cache)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def test_the_hub_gives_base_weights_to_quantize_once_and_what_was_pushed(hub, tmp_path):
    server, archs = hub
    first = run_from_hub(server, archs, tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("no published int8 file of clipq-test-arch/random; quantizing its base weights") == 1
    zoo, direct, pushed = map(float, first.stdout.split())
    assert zoo == pytest.approx(direct, rel=1e-5)
    assert zoo == pytest.approx(pushed, rel=1e-5)
    second = run_from_hub(server, archs, tmp_path / "cache")
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "quantizing its base weights" not in second.stderr
