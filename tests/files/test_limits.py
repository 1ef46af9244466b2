"""A file costs what its size says: a configuration that asks for more is refused before that is built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import forge_config, refused

from clipq.errors import CheckpointError
from clipq.files.checkpoints import read
from clipq.files.limits import Limits, limited
from clipq.resources import resource

DATA = Path(__file__).resolve().parents[1] / "data" / "v0.2"
TINY = resource("zoo", "clipq-tiny", "clipq-tiny-int8.safetensors")
FILES = {
    "open_clip": TINY,
    "transformers": DATA / "transformers-clip.safetensors",
    "timm": DATA / "timm-vision_transformer.safetensors",
}
GREEDY = [
    ("open_clip", ("text_cfg", "layers"), 60_000),
    ("open_clip", ("vision_cfg", "layers"), 100_000),
    ("open_clip", ("vision_cfg", "layers"), [60_000] * 4),
    ("open_clip", ("text_cfg", "context_length"), 60_000),
    ("open_clip", ("text_cfg", "vocab_size"), 10**9),
    ("open_clip", ("text_cfg", "width"), 30_000),
    ("open_clip", ("text_cfg", "mlp_ratio"), 1e9),
    ("open_clip", ("vision_cfg", "image_size"), 28_000),
    ("open_clip", ("embed_dim",), 60_000),
    ("transformers", ("num_labels",), 10**9),
    ("transformers", ("vision_config", "num_hidden_layers"), 10**6),
    ("transformers", ("text_config", "num_hidden_layers"), 60_000),
    ("transformers", ("text_config", "max_position_embeddings"), 10**9),
    ("transformers", ("vision_config", "image_size"), 60_000),
    ("timm", ("img_size",), [28_000, 28_000]),
    ("timm", ("num_classes",), 10**9),
]


def put(keys, value):
    def change(values):
        part = values["config"]
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


@pytest.mark.parametrize(("host", "keys", "value"), GREEDY)
def test_a_configuration_that_the_file_cannot_fill(tmp_path, host, keys, value):
    refused(forge_config(FILES[host], tmp_path / "m.safetensors", put(keys, value)))


def nested(depth):
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    ("host", "keys", "value", "message"),
    [
        ("transformers", ("output_hidden_states",), {"a": 1}, "output_hidden_states is .*true or false"),
        ("transformers", ("text_config", "return_dict"), "no", "text_config.return_dict is 'no'"),
        ("transformers", ("model_type",), 0, "model_type is 0"),
        ("transformers", ("text_config", "eos_token_id"), None, "eos_token_id is None"),
        ("transformers", ("vision_config", "image_size"), -32, "there are none of"),
        ("transformers", ("logit_scale_init_value",), float("nan"), "is nan"),
        ("open_clip", ("vision_cfg", "mlp_ratio"), float("-inf"), "is -inf"),
        ("open_clip", ("vision_cfg", "act_kwargs"), nested(700), "nested more than 50 deep"),
        ("open_clip", ("vision_cfg", "head_width"), 64.0, "cannot be built here"),
        ("timm", ("img_size",), [161, 160], "no whole number of patches"),
    ],
)
def test_a_configuration_of_a_model_that_would_not_run(tmp_path, host, keys, value, message):
    with pytest.raises(CheckpointError, match=message):
        read(forge_config(FILES[host], tmp_path / "m.safetensors", put(keys, value)))


MEASURE = """
import json, resource, sys
import accelerate, open_clip, timm, transformers, torch
from clipq.errors import CheckpointError
from clipq.files.checkpoints import read

def high():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10

for path in sys.argv[2:]:
    read(path)  # what is imported at the first use
resource.setrlimit(resource.RLIMIT_AS, (2 << 34, 2 << 34))
before = high()
for path in json.loads(sys.argv[1]):
    try:
        read(path)
        sys.exit(f"{path} was read")
    except CheckpointError:
        pass
print(high() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_a_refusal_takes_little_memory(tmp_path):
    forged = [
        str(forge_config(FILES[host], tmp_path / f"{i}.safetensors", put(keys, value)))
        for i, (host, keys, value) in enumerate(GREEDY)
    ]
    command = [sys.executable, "-c", MEASURE, json.dumps(forged), *map(str, FILES.values())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 50 + TINY.stat().st_size / 2**20


SMALL = Limits(size=1 << 20, tensors=20, elements=1 << 20, largest=1 << 16, dimension=1 << 8)
HUGE = {
    "empty": lambda: torch.empty(10**9),
    "a mask": lambda: torch.full((60_000, 60_000), 1.0),
    "a range": lambda: torch.arange(10**12),
    "an outer product": lambda: torch.arange(60_000)[:, None] * torch.arange(60_000),
    "a copy": lambda: torch.zeros(30_000, 1).repeat(1, 30_000),
    "many buffers": lambda: [torch.nn.BatchNorm1d(1 << 20) for _ in range(100)],
    "many layers": lambda: [torch.nn.Linear(2, 2) for _ in range(10**6)],
    "many modules": lambda: torch.nn.Sequential(*[torch.nn.Identity() for _ in range(10**5)]),
    "many numbers": lambda: [number.item() for number in torch.linspace(0, 1, 10**5)],
}


@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE)
def test_whatever_is_too_much_is_foreseen(make):
    with pytest.raises(CheckpointError, match="asks for"), limited(SMALL):
        make()
    assert torch.nn.Linear(2, 2).weight.shape == (2, 2)  # and nothing of the watch is left


def test_what_a_file_fills_is_built_as_ever():
    with limited(SMALL):
        layer = torch.nn.Linear(128, 128)
    assert layer.weight.isfinite().all()
