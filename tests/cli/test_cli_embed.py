"""`clipq embed`: pictures or texts to a file, resumable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from cli_helpers import COLOURS, error_of, small_files_only
from PIL import Image
from safetensors import safe_open

import clipq
from clipq.cli import main


def embedded(path: Path) -> tuple[torch.Tensor, dict]:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("embeddings"), json.loads(file.metadata()["clipq"])


def test_embed_keeps_names_and_order(model, pictures, tmp_path, capsys):
    out = tmp_path / "pictures.safetensors"
    assert main(["embed", model, str(pictures), "-o", str(out), "--batch-size", "5"]) == 0
    matrix, about = embedded(out)
    assert about["names"] == sorted(f"{name}/{i}.png" for name in COLOURS for i in range(4))
    assert about["precision"] == {"image": "int8", "text": "int8"}
    assert about["fingerprint"] == clipq.load(model).fingerprint()
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix.norm(dim=-1), torch.ones(12))
    one = clipq.load(model)
    pixels = one.preprocess(Image.open(pictures / about["names"][7]))[None]
    torch.testing.assert_close(matrix[7:8], one.encode_image(pixels, normalize=True), atol=1e-5, rtol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures.safetensors"]


def test_embed_leaves_broken_pictures_out_and_names_them(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG no picture")
    Image.new("RGB", (32, 32), "blue").save(folder / "c.png")
    out = tmp_path / "out.safetensors"
    argv = ["embed", model, str(folder), "-o", str(out), "--no-normalize"]
    assert main(argv) == 0
    err = capsys.readouterr().err
    assert "b.png" in err
    assert "1 of 3" in err
    matrix, about = embedded(out)
    assert about["names"] == ["a.png", "c.png"]
    assert list(about["broken"]) == ["b.png"]
    assert matrix.shape == (2, 16)
    assert main([*argv, "--force", "--strict"]) == 1


def test_embed_texts_as_npy(model, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("a red square\n\nein grünes Quadrat\r\nblau", encoding="utf-8")
    out = tmp_path / "texts.npy"
    assert main(["embed", model, str(texts), "-o", str(out)]) == 0
    assert "line 2" in capsys.readouterr().err
    names = Path(f"{out}.names.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["a red square", "ein grünes Quadrat", "blau"]
    matrix = torch.from_numpy(numpy.load(out, allow_pickle=False))
    torch.testing.assert_close(matrix, clipq.load(model).encode_text(names, normalize=True), atol=1e-5, rtol=1e-4)
    assert json.loads(Path(f"{out}.json").read_text())["tower"] == "text"


@pytest.mark.parametrize(
    ("name", "words"), [("x.pt", ".safetensors, .npy"), ("here.npy", "--force")], ids=["unknown ending", "exists"]
)
def test_embed_refuses_before_any_work(name, words, tmp_path, capsys):
    (tmp_path / "here.npy").write_bytes(b"")
    assert main(["embed", "no-such-model", str(tmp_path), "-o", str(tmp_path / name)]) == 1
    assert words in error_of(capsys)


def test_embed_of_nothing(tmp_path, capsys):
    assert main(["embed", "no-such-model", str(tmp_path / "nothing"), "-o", str(tmp_path / "x.npy")]) == 1
    assert "nothing does not exist" in error_of(capsys)


def test_embed_finds_out_before_the_work_that_it_cannot_write(tmp_path, capsys):
    """No model of that name exists, so a message about the output comes before it is looked for."""
    folder, lines = tmp_path / "in", tmp_path / "lines.txt"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a\nb.png")
    lines.write_text("one\rtwo\n", newline="")
    (tmp_path / "x.npy.json").mkdir()
    for source, name, words in (
        (folder, "y.npy", "'a\\nb.png' holds a line break"),
        (lines, "y.npy", "no-such-model"),
        (folder, "typo/y.npy", "there is no folder"),
        (folder, "x.npy", "x.npy.json: that is a folder"),
        (folder, "in.npy/y.npy", "there is no folder"),
        (folder, f"{'y' * 245}.npy", "File name too long"),
    ):
        assert main(["embed", "no-such-model", str(source), "-o", str(tmp_path / name)]) == 1
        assert words in error_of(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "lines.txt", "x.npy.json"]


@pytest.mark.parametrize("kind", ["fifo", "device", "dangling"])
def test_embed_of_what_is_neither_folder_nor_file(kind, tmp_path, capsys):
    source = tmp_path / "source"
    if kind == "fifo":
        os.mkfifo(source)
    else:
        source.symlink_to({"device": "/dev/zero", "dangling": "nowhere"}[kind])
    assert main(["embed", "no-such-model", str(source), "-o", str(tmp_path / "x.npy")]) == 1
    assert {"fifo": "a fifo", "device": "a device", "dangling": "a link to a file that"}[kind] in error_of(capsys)


def test_strange_files_and_turned_photos(model, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "x.safetensors"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    photo.save(folder / "turned.png", exif=exif)
    photo.transpose(Image.Transpose.ROTATE_270).save(folder / "upright.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.jpg")
    assert main(["embed", model, str(folder), "-o", str(out)]) == 0
    matrix, about = embedded(out)
    assert about["names"] == ["turned.png", "upright.png"] and matrix[0].equal(matrix[1])
    assert about["broken"] == {
        "fifo.jpg": "OSError: a fifo, not a plain file",
        "zero.png": "OSError: a device, not a plain file",
    }


def test_unfinished_work_of_other_arguments_stays(model, tmp_path):
    lines, out = tmp_path / "lines.txt", tmp_path / "x.safetensors"
    lines.write_text("one\ntwo\n")
    other = tmp_path / "x.safetensors.unfinished" / "0123456789abcdef" / "texts-00000000.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of a run that was killed")
    assert main(["embed", model, str(lines), "-o", str(out)]) == 0
    assert [path for path in other.parent.parent.rglob("*") if path.is_file()] == [other]


@pytest.mark.parametrize(("limit", "kept"), [(200, 0), (30_000, 2)], ids=["the shards", "the whole"])
def test_a_full_disk_keeps_what_is_finished(model, tmp_path, capsys, limit, kept):
    """A limit on the size of files fails a write in the middle, as a full disk does: of a shard, or of all of them."""
    lines, out = tmp_path / "lines.txt", tmp_path / "x.safetensors"
    lines.write_text("".join(f"{i}\n" for i in range(512)))
    argv = ["embed", model, str(lines), "-o", str(out), "--threads", "1"]
    with small_files_only(limit):
        assert main(argv) == 1
    error = capsys.readouterr().err.splitlines()[-1]  # the line before says how fast it was
    assert error.startswith("clipq: error: cannot write") and "File too large" in error
    assert "ake room" in error and not out.exists() and not list(tmp_path.rglob(".*part"))
    assert len(list(tmp_path.rglob("texts-*.safetensors"))) == kept
    assert main(argv) == 0 and out.exists() and not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"], ids=["empty", "blank", "not UTF-8"])
def test_embed_of_no_text(content, model, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    assert main(["embed", model, str(path), "-o", str(tmp_path / "x.npy")]) == 1
    assert "texts.txt" in error_of(capsys)


def test_threads_are_those_asked_for(model, pictures, tmp_path, threads):
    assert main(["embed", model, str(pictures), "-o", str(tmp_path / "x.npy"), "--threads", "1"]) == 0
    assert torch.get_num_threads() == 1


def test_a_killed_embed_goes_on_and_gives_the_same_file(model, tmp_path, monkeypatch, threads):
    from clipq.work.batches import Batches

    lines = tmp_path / "texts.txt"
    lines.write_text("".join(f"square number {i}\n" for i in range(320)))
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    argv = ["embed", model, str(lines), "--batch-size", "2", "--threads", "1", "-o"]
    done, shard = [], Batches._shard
    monkeypatch.setattr(Batches, "_shard", lambda self, rows, read: done.append(rows) or shard(self, rows, read))
    assert main([*argv, str(whole)]) == 0
    total = len(done)
    kept = _kill_after_some_shards([*argv, str(resumed)], tmp_path / f"{resumed.name}.unfinished")
    assert not resumed.exists()
    done.clear()
    assert main([*argv, str(resumed)]) == 0
    assert len(done) == total - kept
    assert whole.read_bytes() == resumed.read_bytes()
    assert not (tmp_path / f"{resumed.name}.unfinished").exists()


def _kill_after_some_shards(argv: list[str], folder: Path) -> int:
    """Run the command, kill it once it has finished a few shards, and return how many it has."""
    process = subprocess.Popen([sys.executable, "-m", "clipq", *argv])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(folder.rglob("texts-*.safetensors"))) >= 2:
            process.kill()
            process.wait()
            return len(list(folder.rglob("texts-*.safetensors")))
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no shard was seen; the process ended with {process.wait()}")
