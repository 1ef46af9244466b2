"""Real reports and results, small: a line of eval/results, and hand-made answers about pictures that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from result_helpers import a_result, answers

from clipq.evaluation import Result, Task, load_task
from clipq.evaluation.comparison import comparison
from clipq.evaluation.data import task_images
from clipq.evaluation.metrics import metrics

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("red", "green", "a blue that costs $5 or $6 & <more> of words than any line holds")
TASK = """
name = "t"
version = 1
[dataset]
kind = "class-folder"
[prompts]
templates = ["a {c} square"]
"""


@pytest.fixture
def report() -> dict:
    """What `clipq bench` measured of a ViT-B/32."""
    line = (ROOT / "eval" / "results" / "vit-b-32-random.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return json.loads(line)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Three class folders of eight pictures, wide ones and high ones."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(NAMES):
        (folder / name).mkdir()
        for i in range(8):
            Image.new("RGB", (150, 40) if i % 2 else (20, 30), (80 * label, 30 * i, 99)).save(
                folder / name / f"{i}.png"
            )
    return folder


@pytest.fixture
def task(tmp_path) -> Task:
    path = tmp_path / "t.toml"
    path.write_text(TASK)
    return load_task(path)


@pytest.fixture
def pair(task, pictures) -> Callable[[int], tuple[Result, Result]]:
    """A function that makes two results on the 24 pictures, which differ in the first answer on as many as asked for:
    every image is answered right by fp32, and the first ones by the other model as the class after it.
    """
    images = task_images(task, pictures)
    labels = [entry.label for entry in images.entries]
    about = {"keys": tuple(entry.key for entry in images.entries), "digest": images.digest()}
    right = torch.eye(3)[labels] + 0.01

    def make(changed: int, **model) -> tuple[Result, Result]:
        wrong = torch.cat([right[:changed].roll(1, dims=1), right[changed:]])
        texts = torch.nn.functional.normalize(torch.eye(3) + 0.003, dim=-1)
        found = [answers(right.tolist(), labels, **about), answers(wrong.tolist(), labels, texts, **about)]
        base = _result(found[0], "fp32", 8_000_000)
        own = _result(found[1], "int8", 2_000_000, baseline=base.model, comparison=comparison(*found[::-1]))
        own.model.update(model)
        return own, base

    return make


def _result(found, precision: str, weight_bytes: int, **changes) -> Result:
    model = {"name": "m", "precision": {"image": precision, "text": precision}, "source": {}, "device": "cpu"}
    model |= {"fingerprint": precision, "kernel_path": "native/avx2", "weight_bytes": weight_bytes}
    machine = {"processor": "a processor", "gpu": None, "threads": 2, "versions": {"torch": "2.0", "clipq": "1.0"}}
    about = {"model": model, "environment": machine, "data": {"digest": found.digest}, "n": len(found.keys)}
    return a_result(answers=found, metrics=metrics(found), **about, **changes)
