"""`finetune` as a whole: the drift falls, a killed run goes on with the same numbers, and mistakes are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_models import build
from training_helpers import INT4, parameters_of, pixels, run

import clipq
from clipq.errors import ClipqWarning, DataError, QuantizationError, UnknownNameError
from clipq.training.options import Options

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


class Killed(Exception):
    """What stops a run in the middle."""


def killed_at(step: int):
    def tell(now) -> None:
        if now.step == step:
            raise Killed

    return tell


@pytest.fixture(scope="module")
def embedded() -> clipq.Model:
    return clipq.load("clipq-tiny", "fp32")


@pytest.mark.parametrize("mode", ["light", "full"])
def test_the_drift_falls_on_the_embedded_model(embedded, mode):
    words = [f"a photo of {word}" for word in ("a dog", "two cats", "a red bus", "rain", "an old house", "the sea")]
    before, seen = embedded.fingerprint(), []
    options = Options(batch_size=8, every=6, progress=False, tell=seen.append)
    model = clipq.finetune(embedded, {"text": INT4}, {"text": words * 8}, steps=12, mode=mode, lr=2e-3, options=options)
    first, *_, last = (one.drift["text"] for one in seen)
    assert last < 0.8 * first
    assert seen[0].loss is None and seen[-1].loss > 0 and [one.step for one in seen] == [0, 6, 12]
    held_out = embedded.encode_text(words, normalize=True), model.encode_text(words, normalize=True)
    assert float(1 - (held_out[0] * held_out[1]).sum(-1).mean()) < first  # of all words, not only those held out
    assert model.precision == {"image": "fp32", "text": INT4.name}
    assert model.tokenizer_spec == embedded.tokenizer_spec and model.preprocessing == embedded.preprocessing
    assert embedded.fingerprint() == before and embedded.precision_name == "fp32"


@pytest.mark.parametrize("autocast", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("kill", [2, 6])
def test_a_resumed_run_has_the_numbers_of_an_uninterrupted_one(tmp_path, kill, autocast):
    seen = []
    whole = run(resume=tmp_path / "whole", autocast=autocast, tell=seen.append)
    assert min(seen, key=lambda one: one.drift["image"]).step > 0  # what comes back was learned
    with pytest.raises(Killed):
        run(resume=tmp_path / "killed", autocast=autocast, tell=killed_at(kill + 2))
    (folder,) = (tmp_path / "killed").iterdir()
    assert max(path.name for path in folder.glob("step-*")) == f"step-{kill:08d}.safetensors"
    resumed = run(resume=tmp_path / "killed", autocast=autocast)
    assert whole.fingerprint() == resumed.fingerprint()
    assert sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("step-*")) == [6, 8]
    ends = [contents(next((tmp_path / name).glob("*/step-00000008*"))) for name in ("whole", "killed")]
    assert ends[0][0] == ends[1][0]  # the drifts on the way, the scale of gradients, and the seal over all of it
    assert all(torch.equal(one, ends[1][1][name]) for name, one in ends[0][1].items())


def contents(path: Path) -> tuple[dict, dict]:
    """The metadata and the tensors of a checkpoint."""
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(tmp_path):
    whole = run(resume=tmp_path)
    newest = max(tmp_path.rglob("step-*"))
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    with pytest.warns(ClipqWarning, match="not those of its sha256"):
        again = run(resume=tmp_path)
    assert whole.fingerprint() == again.fingerprint()


def test_other_settings_begin_anew(tmp_path):
    run(resume=tmp_path)
    run(resume=tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


LAUNCHED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from training_helpers import parameters_of, run

model = run(batch_size=int(sys.argv[3]), losses={"cosine": 1.0, "similarity": 0.5}, mode="full")
rank = torch.distributed.get_rank()
from safetensors.torch import save_file
save_file({str(i): one.contiguous() for i, one in enumerate(parameters_of(model))}, f"{sys.argv[2]}/{rank}.safetensors")
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_the_model_of_one_with_twice_the_batch(tmp_path):
    from safetensors.torch import load_file

    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, *launch, script, HELPERS, tmp_path, "3"]
    environment = {"PYTHONPATH": str(HELPERS.parents[1]), "OMP_NUM_THREADS": "1", "PATH": ""}
    environment["HF_HOME"] = str(tmp_path / "hf")
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    first, second = (list(load_file(tmp_path / f"{rank}.safetensors").values()) for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    losses = {"cosine": 1.0, "similarity": 0.5}
    one = run(batch_size=6, losses=losses, mode="full")
    other = run(batch_size=3, losses=losses, mode="full")
    ordered = [one for _, one in sorted((str(i), one) for i, one in enumerate(parameters_of(one)))]
    apart = [one for _, one in sorted((str(i), one) for i, one in enumerate(parameters_of(other)))]
    assert distance(apart, ordered) > 0
    assert distance(first, ordered) < 0.1 * distance(apart, ordered)


def distance(ones, others) -> float:
    return float(torch.stack([(a - b).norm() for a, b in zip(ones, others, strict=True)]).norm())


def test_a_line_now_and_then_says_how_far_it_drifted(capsys):
    run(progress=None, every=4)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 3
    assert lines[0].startswith("clipq: finetune: step 0 of 8: image drift ")
    assert lines[1].startswith("clipq: finetune: step 4 of 8: loss ") and "at the start), about " in lines[1]


def test_what_comes_back_never_drifts_more_than_the_start():
    seen = []
    model = run(lr=0.3, tell=seen.append)
    assert max(one.drift["image"] for one in seen) > 2 * seen[0].drift["image"]
    best = min(one.drift["image"] for one in seen)
    held_out, float_model = pixels()[[0, 10]], clipq.Model(build("open_clip CLIP"))
    found = torch.cosine_similarity(model.encode_image(held_out), float_model.encode_image(held_out))
    assert float(1 - found.mean()) == pytest.approx(best, rel=0.2)


def test_a_model_that_is_training_is_taught_by_as_it_is_in_use_and_left_training():
    module = build("open_clip drops and scales").train()
    clipq.finetune(module, {"image": "int8"}, pixels(), steps=1, options=Options(batch_size=2, progress=False))
    assert module.training and all(part.training for part in module.modules())


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"mode": "lite"}, UnknownNameError, "'light'"),
        ({"data": None}, DataError, "nothing to train on"),
        ({"data": []}, DataError, "nothing to train on"),
        ({"data": {"image": []}}, DataError, "no picture"),
        ({"data": pixels()[:0]}, DataError, "no image|nothing to train on"),
        ({"data": {"picture": pixels()}}, UnknownNameError, "Allowed: image, text"),
        ({"data": {"image": pixels(), "text": ["a"]}}, QuantizationError, "text tower"),
        ({"data": "no/such/folder"}, DataError, "no/such/folder"),
        ({"precision": "fp16"}, QuantizationError, "nothing to train"),
        ({"precision": "int9"}, UnknownNameError, "int8"),
        ({"steps": 0}, QuantizationError, "steps=0"),
        ({"lr": -1}, QuantizationError, "lr=-1"),
    ],
)
def test_mistakes_are_named(wrong, error, words):
    arguments = {"precision": {"image": "int8"}, "data": pixels(), **wrong}
    with pytest.raises(error, match=words):
        clipq.finetune(build("open_clip CLIP"), **arguments)


def test_a_quantized_model_has_no_weights_to_train():
    model = clipq.Model(clipq.quantize(build("open_clip CLIP"), "int8"))
    with pytest.raises(QuantizationError, match="quantized already"):
        clipq.finetune(model, "int8", pixels())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"autocast": "fp8"}, "bf16"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"every": 2.5}, "every=2.5"),
        ({"losses": {"cosin": 1.0}}, "'cosine'"),
        ({"losses": {"cosine": -1.0}}, "-1.0"),
        ({"losses": {"cosine": 0}}, "no loss"),
        ({"losses": {"contrastive": 1.0}}, "pairs of images and texts"),
    ],
)
def test_options_that_make_no_sense_are_named(wrong, words):
    with pytest.raises((UnknownNameError, QuantizationError), match=words):
        run(**wrong)


def test_a_training_that_diverges_says_so():
    broken = replace(INT4, name="mine")
    model = build("open_clip CLIP")
    torch.nn.init.constant_(model.visual.ln_post.weight, torch.inf)
    with pytest.raises(QuantizationError, match="not finite"):
        clipq.finetune(model, {"image": broken}, pixels(), steps=1, options=Options(progress=False))
