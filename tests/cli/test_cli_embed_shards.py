"""`clipq embed --shard-size`, `--decode`, and what is said of the time it took."""

from __future__ import annotations

import json

import pytest
from cli_helpers import error_of
from PIL import Image

import clipq
from clipq.cli import main
from clipq.matrices import read_embeddings


def test_a_folder_of_shards(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["embed", model, str(pictures), "-o", str(out), "--shard-size", "5", "--format", "parquet"]
    assert main([*argv, "--dtype", "float16", "--batch-size", "1"]) == 0
    said, err = capsys.readouterr()
    assert "12 image embeddings of width 16 in int8, kept as float16" in said and "(3 shards)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    found = read_embeddings(out)
    assert len(found.names) == 12 and found.about["decode"] == "exact" and found.matrix.dtype.itemsize == 2
    assert main(["embed", model, str(pictures), "-o", str(tmp_path / "x.parquet"), "--batch-size", "1"]) == 0
    whole = read_embeddings(tmp_path / "x.parquet")
    assert whole.names == found.names and whole.matrix.half().equal(found.matrix)
    capsys.readouterr()
    assert main(argv) == 1
    assert "exists already" in error_of(capsys)
    assert main([*argv, "--force"]) == 0
    assert read_embeddings(out).dtype == "float32"


def test_broken_ones_are_named_and_counted(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(7):
        Image.new("RGB", (30, 30), (30 * i, 0, 0)).save(folder / f"{i}.png")
    for i in (0, 5):
        (folder / f"{i}.png").write_bytes(b"broken")
    argv = ["embed", model, str(folder), "-o", str(tmp_path / "out"), "--shard-size", "2"]
    assert main([*argv, "--strict"]) == 1
    err = capsys.readouterr().err
    assert "left out 0.png" in err and "left out 5.png" in err and "2 of 7 inputs could not be read" in err


def test_the_last_line_of_long_work_says_where_the_time_went(model, pictures, tmp_path, capsys, monkeypatch):
    assert main(["embed", model, str(pictures), "-o", str(tmp_path / "short.npy")]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("clipq.work.progress._SECONDS", 0.0)
    assert main(["embed", model, str(pictures), "-o", str(tmp_path / "x.npy")]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("clipq: 12 inputs in ")
    assert all(word in line for word in ("encode", "wait", "decode", "preprocess"))


def test_scaled_is_said_in_the_file(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    ramp = Image.linear_gradient("L").resize((600, 500)).convert("RGB")
    ramp.save(folder / "a.jpg", quality=95)
    found = {}
    for decode in ("exact", "scaled"):
        out = tmp_path / f"{decode}.safetensors"
        assert main(["embed", model, str(folder), "-o", str(out), "--decode", decode]) == 0
        found[decode] = read_embeddings(out)
        assert found[decode].about["decode"] == decode
    assert found["exact"].matrix.shape == found["scaled"].matrix.shape
    paths = [folder / "a.jpg"]
    assert clipq.load(model).encode_image(paths, True, "scaled").equal(found["scaled"].matrix)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "x.npy", "--format", "parquet"], "--shard-size"),
        (["-o", "no/x", "--shard-size", "5"], "there is no folder"),
        (["-o", "in", "--shard-size", "5", "--force"], "no folder of shards"),
    ],
)
def test_it_refuses_before_any_work(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    assert main(["embed", "no-such-model", "in", *options]) == 1
    assert words in error_of(capsys)


def test_bench_from_files(model, pictures, capsys, threads):
    argv = ["bench", model, "--files", str(pictures), "--runs", "2", "--batch-sizes", "4", "--threads", "1"]
    assert main([*argv, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["precision"], row["decode"]) for row in report["rows"]] == [
        ("int8", "exact"),
        ("int8", "scaled"),
        ("fp32", "exact"),
    ]
    assert (report["inputs"], report["batch_size"], report["runs"]) == (12, 4, 2)
    for row in report["rows"]:
        assert row["per_second"]["min"] <= row["per_second"]["median"] <= row["per_second"]["max"]
        assert set(row["ms"]) == {"encode", "wait", "decode", "preprocess"}
    assert report["rows"][-1]["speedup"] == 1
    assert main(argv) == 0
    assert "12 images, batches of 4" in capsys.readouterr().out


def test_bench_from_a_text_file(model, tmp_path, capsys, threads):
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\ntwo\nthree\n")
    assert main(["bench", model, "--files", str(lines), "--runs", "1", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["precision"] for row in report["rows"]] == ["int8", "fp32"]
    assert main(["bench", model, "--files", str(lines), "--plot", "x.svg"]) == 1
    assert "--plot" in error_of(capsys)
