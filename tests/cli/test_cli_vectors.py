"""`clipq embed --dtype`: frozen ranges, the same codes for a part as for the whole, killed runs, refused files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_helpers import error_of

import clipq
from clipq import embedding
from clipq.cli import main
from clipq.errors import DataError, SchemeError, UnknownNameError
from clipq.matrices import read_embeddings, save_embeddings
from clipq.vectors import default_ranges, quantize
from clipq.work.batches import Batches

RANGED = ("int8", "int8-per-dimension", "ubinary")
LINES = [f"square number {i}" for i in range(40)]


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def embedded(model: str, source: Path, out: Path, *options: str):
    assert main(["embed", str(model), str(source), "-o", str(out), *options]) == 0
    return read_embeddings(out)


@pytest.mark.parametrize("dtype", RANGED)
def test_a_part_has_the_codes_that_it_has_in_the_whole(dtype, quantized, texts, tmp_path, capsys):
    whole = embedded(quantized, texts, tmp_path / "whole.safetensors", "--dtype", dtype)
    assert "ranges: everyday words that ship with clipq (512)" in capsys.readouterr().out
    (tmp_path / "part.txt").write_text("".join(f"{line}\n" for line in LINES[10:13]))
    part = embedded(quantized, tmp_path / "part.txt", tmp_path / "part.npy", "--dtype", dtype, "--batch-size", "3")
    assert part.ranges.described() == whole.ranges.described()
    floats = embedded(quantized, tmp_path / "part.txt", tmp_path / "f.npy", "--batch-size", "3")
    assert floats.dtype == "float32" and not (tmp_path / "f.npy.ranges.safetensors").exists()
    assert part.matrix.equal(quantize(floats.matrix, dtype, whole.ranges)[0])
    off = (part.matrix.int() - whole.matrix[10:13].int()).abs().max() if dtype != "ubinary" else torch.tensor(0)
    assert off <= 1  # another batch size may tip a last digit
    assert part.names == whole.names[10:13]


def test_ranges_of_an_earlier_file(quantized, pictures, tmp_path, capsys):
    first = embedded(quantized, pictures, tmp_path / "first.npy", "--dtype", "int8")
    assert "outside the ranges, and so saturated: " in capsys.readouterr().out
    for dtype in RANGED:  # those of one dtype serve another
        out = tmp_path / f"{dtype}.safetensors"
        found = embedded(quantized, pictures, out, "--dtype", dtype, "--ranges", str(tmp_path / "first.npy"))
        assert found.about["ranges"] == first.about["ranges"]
        assert "the photos that ship with clipq" in found.about["ranges"]["origin"]


def test_ranges_of_another_model_or_tower_are_refused(quantized, model, pictures, texts, tmp_path, capsys):
    embedded(quantized, texts, tmp_path / "texts.npy", "--dtype", "int8")
    capsys.readouterr()
    argv = ["--dtype", "int8", "--ranges", str(tmp_path / "texts.npy"), "-o", str(tmp_path / "x.npy")]
    assert main(["embed", str(quantized), str(pictures), *argv]) == 1
    assert 'measured with tower "text"' in error_of(capsys)
    assert main(["embed", model, str(texts), *argv, "--precision", "fp32"]) == 1
    assert "measured with fingerprint" in error_of(capsys)
    assert main(["embed", str(quantized), str(texts), *argv, "--no-normalize"]) == 1
    assert "measured with normalized" in error_of(capsys)
    assert main(["embed", str(quantized), str(texts), *argv[2:]]) == 1
    assert "float32 vectors have no ranges" in error_of(capsys)
    assert main(["embed", "no-such-model", str(texts), "--ranges", "nowhere.npy", *argv[4:]]) == 1
    assert "nowhere.npy" in error_of(capsys)  # before a model is looked for
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize(
    ("factor", "words"), [(0.1, "do not fit the ranges; embed some"), (10, "times as wide as most; --dtype int8-per")]
)
def test_ranges_that_fit_badly_are_said_to(factor, words, quantized, texts, tmp_path, capsys):
    first = embedded(quantized, texts, tmp_path / "first.npy", "--dtype", "int8")
    badly = replace(first.ranges, limit=first.ranges.limit * factor)
    floats = embedded(quantized, texts, tmp_path / "floats.npy")
    capsys.readouterr()
    save_embeddings(floats.as_dtype("int8", badly), tmp_path / "badly.safetensors")
    options = ("--dtype", "int8", "--ranges", str(tmp_path / "badly.safetensors"))
    found = embedded(quantized, texts, tmp_path / "x.npy", *options)
    assert words in capsys.readouterr().err
    assert (found.about["saturated"] > 0) == (factor < 1)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_killed_run_goes_on_to_the_same_file(dtype, quantized, texts, tmp_path, monkeypatch):
    """Also where it was begun for another dtype: what is kept of it is float32."""
    argv = ["embed", str(quantized), str(texts), "--batch-size", "1", "--dtype", dtype, "-o"]
    assert main([*argv, str(tmp_path / "whole.safetensors")]) == 0
    done, shard = [], Batches._shard

    def killed(self, rows, read):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(rows)
        return shard(self, rows, read)

    monkeypatch.setattr(Batches, "_shard", killed)
    out = tmp_path / "resumed.safetensors"
    assert main([*argv[:-3], "--dtype", "ubinary", "-o", str(out)]) == 130
    assert not out.exists()
    done.clear()
    monkeypatch.setattr(Batches, "_shard", lambda self, rows, read: done.append(rows) or shard(self, rows, read))
    assert main([*argv, str(out)]) == 0
    assert len(done) == len(LINES) // 8 - 2
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "resumed.safetensors",
        "texts.txt",
        "whole.safetensors",
    ]


def test_from_python(quantized, pictures):
    model = clipq.load(quantized)
    ranges = default_ranges(model, "image")
    given = embedding.embed(model, pictures, dtype="int8", ranges=ranges)
    own = embedding.embed(model, pictures, dtype="int8")
    assert given.matrix.equal(own.matrix) and given.about == own.about
    floats = embedding.embed(model, pictures)
    assert floats.as_dtype("int8", ranges).matrix.equal(own.matrix)
    assert floats.as_dtype("int8", ranges).about == own.about
    for call, error in (
        (lambda: embedding.embed(model, pictures, dtype="int4"), UnknownNameError),
        (lambda: embedding.embed(model, pictures, ranges=ranges), SchemeError),
        (lambda: default_ranges(model, "audio"), DataError),
    ):
        with pytest.raises(error):
            call()


def test_the_default_ranges_are_the_same_every_time(quantized):
    first, second = (default_ranges(clipq.load(quantized), "image").described() for _ in range(2))
    assert first == second and first["rows"] == 126
