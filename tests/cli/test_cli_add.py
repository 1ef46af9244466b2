"""`clipq embed --add`, and what `clipq info` says of models' and outputs' spaces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow
import pytest
from cli_helpers import error_of
from PIL import Image
from pyarrow import parquet

import clipq
from clipq import matrices
from clipq.cli import main
from clipq.matrices import read_embeddings


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (30, 30), (60 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", ["x.safetensors", "x.npy", "x.parquet", "shards"])
def test_new_pictures_are_added(quantized, folder, tmp_path, capsys, name):
    out = tmp_path / name
    argv = ["embed", str(quantized), str(folder), "-o", str(out), "--add"]
    assert main([*argv, *(["--shard-size", "3"] if name == "shards" else []), "--dtype", "float16"]) == 0
    capsys.readouterr()
    first = read_embeddings(out)
    assert main(argv) == 0
    space = clipq.space_of(out).id
    assert capsys.readouterr().out == f"nothing added to the 4 in {out} (space {space})\n"
    Image.new("RGB", (30, 30), (0, 0, 90)).save(folder / "00.png")
    (folder / "z.png").write_bytes(b"broken")
    assert main([*argv, "--strict"]) == 1
    said, err = capsys.readouterr()
    assert said == f"1 image embeddings added to the 4 in {out} (space {space})\n"
    assert "left out z.png" in err and "1 of 6 inputs could not be read" in err
    found = read_embeddings(out)
    assert found.names == (*first.names, "00.png") and found.matrix[:4].equal(first.matrix) and found.dtype == "float16"
    assert sorted(path.name for path in tmp_path.iterdir() if "unfinished" in path.name) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp32"], ["not of the same vector space", "scheme", "clipq drift"]),
        (["--no-normalize"], ["has normalized=True, and False was asked for"]),
        (["--decode", "scaled"], ['decode: "exact" and "scaled"']),
        (["--dtype", "float16"], ["has dtype='float32'", "leave out --dtype"]),
        (["--ranges", "x.npy"], ["leave out --ranges"]),
        (["--shard-size", "7"], ["has shard_size=None", "leave out --shard-size"]),
        (["--format", "parquet"], ["has format=None", "leave out --format"]),
        (["--engine", "ray"], ["--add is done by this process", "--engine"]),
        (["--workers", "9"], ["--add is done by this process", "--workers"]),
        (["--force"], ["not allowed with"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_would_not_fit_is_refused(model, folder, tmp_path, capsys, options, words):
    out = tmp_path / "x.parquet"
    argv = ["embed", model, str(folder), "-o", str(out)]
    assert main(argv) == 0
    before = out.read_bytes()
    Image.new("RGB", (30, 30), (0, 0, 90)).save(folder / "9.png")
    capsys.readouterr()
    try:
        assert main([*argv, "--add", *options]) == 1
    except SystemExit as done:
        assert done.code == 2
    err = capsys.readouterr().err
    assert all(word in err for word in words) and out.read_bytes() == before


def test_an_old_output_is_not_added_to(model, folder, tmp_path, capsys):
    out = tmp_path / "x.npy"
    argv = ["embed", model, str(folder), "-o", str(out)]
    assert main(argv) == 0
    beside = Path(f"{out}.json")
    about = {key: value for key, value in json.loads(beside.read_text()).items() if not key.startswith("space")}
    beside.write_text(json.dumps(about))
    capsys.readouterr()
    assert main([*argv, "--add"]) == 1
    assert "does not say which vector space" in error_of(capsys)
    assert main(["info", str(out)]) == 0
    assert "not stated: written by clipq before 0.8" in capsys.readouterr().out


def test_info_shows_the_spaces(model, quantized, folder, tmp_path, capsys):
    assert main(["info", str(quantized), "--json"]) == 0
    stated = json.loads(capsys.readouterr().out)["vector spaces"]
    own = clipq.load(quantized)
    assert stated == {tower: own.space(tower).id for tower in own.towers}
    assert main(["info", str(quantized)]) == 0
    assert all(f"{tower}: {space}" in capsys.readouterr().out for tower, space in [*stated.items()][:1])
    for name, size in (("x.safetensors", []), ("x.npy", []), ("x.parquet", []), ("shards", ["--shard-size", "2"])):
        assert main(["embed", str(quantized), str(folder), "-o", str(tmp_path / name), *size]) == 0
        capsys.readouterr()
        assert main(["info", str(tmp_path / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["vector space"], found["tower"], found["dtype"]) == (stated["image"], "image", "float32")
        assert found["made of"]["weights"] == own.space("image").components["weights"]
        assert main(["info", str(tmp_path / name)]) == 0
        assert stated["image"] in capsys.readouterr().out


def test_a_format_that_is_the_folders_own_is_taken(quantized, folder, tmp_path, capsys):
    argv = ["embed", str(quantized), str(folder), "-o", str(tmp_path / "out"), "--add", "--format"]
    assert main([*argv, "parquet", "--shard-size", "3"]) == 0
    (folder / "9.png").write_bytes((folder / "1.png").read_bytes())
    assert main([*argv, "safetensors"]) == 1
    assert "has format='parquet', and 'safetensors' was asked for" in capsys.readouterr().err
    assert main([*argv, "parquet", "--engine", "local", "--workers", "1"]) == 0
    assert len(read_embeddings(tmp_path / "out").names) == 5


def test_an_output_beside_its_tables_is_none_of_them(quantized, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("tables", "..", "tables", "v.parquet")
    Path("tables").mkdir()
    for name, options in (("a", []), ("b", ["--add"]), ("b", ["--force"])):
        parquet.write_table(pyarrow.table({"text": [f"text {name}"], "id": [name]}), f"tables/{name}.parquet")
        for source in ("tables", "tables/*.parquet"):
            again = ["--force"] if source != "tables" and not options else options
            assert main(["embed", str(quantized), source, "-o", str(out), *again]) == 0
    assert read_embeddings(out).names == ("a", "b")


def test_an_output_written_while_it_is_read_is_not_overwritten(quantized, folder, tmp_path, capsys, monkeypatch):
    out, read = tmp_path / "x.parquet", matrices.read_embeddings
    argv = ["embed", str(quantized), str(folder), "-o", str(out)]
    assert main(argv) == 0
    (folder / "9.png").write_bytes((folder / "1.png").read_bytes())

    def late(path):
        found = read(path)
        os.utime(path, ns=(1, 1))  # as by somebody else
        return found

    monkeypatch.setattr(matrices, "read_embeddings", late)
    assert main([*argv, "--add"]) == 1
    assert "was changed while this run added to it" in capsys.readouterr().err
