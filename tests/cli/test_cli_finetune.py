"""`clipq finetune`: a file that loads like any other, a run that goes on, mistakes in one line."""

from __future__ import annotations

import json
import re

import pytest
import torch
from cli_helpers import error_of

import clipq
from clipq.cli import main
from clipq.training import running

SHORT = ["--steps", "4", "--batch-size", "3", "--every", "2", "--image", "int8", "--text", "fp32"]


@pytest.fixture
def command(model, pictures, tmp_path) -> list[str]:
    return ["finetune", model, "-o", str(tmp_path / "x.safetensors"), "--data", str(pictures), *SHORT]


def test_finetune_writes_what_load_reads(command, tmp_path, capsys):
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert re.search(r"image: 1 - cosine to fp32 \S+e-\d+ -> \S+e-\d+ on what was held out", out)
    assert [line.split(":")[2].strip() for line in err.splitlines()] == [f"step {i} of 4" for i in (0, 2, 4)]
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    found = clipq.load(str(tmp_path / "x.safetensors"))
    assert found.precision == {"image": "int8", "text": "fp32"}
    assert found.encode_image(torch.zeros(2, 3, 32, 32)).isfinite().all()


def test_both_towers_learn_from_pictures_and_texts(command, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a red square\na blue square\na green one\n")
    assert (
        main([*command, "--text", "int8-weight-only", "--texts", str(texts), "--mode", "full", "--similarity", "1"])
        == 0
    )
    found = clipq.load(str(tmp_path / "x.safetensors"))
    assert found.precision == {"image": "int8", "text": "int8-weight-only"}


def test_a_killed_run_goes_on(command, tmp_path, monkeypatch, capsys):
    keep = running.write_checkpoint

    def kill(folder, checkpoint):
        keep(folder, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(running, "write_checkpoint", kill)
        assert main(command) == 130
    assert not (tmp_path / "x.safetensors").exists()
    (folder,) = (tmp_path / "x.safetensors.unfinished").iterdir()
    assert json.loads((folder / "identity.json").read_text())["steps"] == 4
    capsys.readouterr()
    assert main(command) == 0
    assert [line.split(":")[2].strip() for line in capsys.readouterr().err.splitlines()] == ["step 4 of 4"]
    resumed = (tmp_path / "x.safetensors").read_bytes()
    assert main([*command, "--force"]) == 0
    assert (tmp_path / "x.safetensors").read_bytes() == resumed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--lr", "-1"], "--lr -1"),
        (["--image", "fp16"], "nothing to train"),
        (["--cosine", "0"], "no loss has a weight"),
        (["--contrastive", "1"], "pairs of images and texts"),
        (["-o", "x.bin"], "'.bin' is no ending"),
    ],
)
def test_mistakes_are_one_line(command, more, words, capsys):
    assert main([*command, *more]) == 1
    assert words in error_of(capsys)
