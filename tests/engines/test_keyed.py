"""A folder whose rows are known by their keys: what is finished, what is not, and what is never touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from clipq.engines import keyed
from clipq.engines.keyed import Keyed
from clipq.engines.keys import digests, lacking
from clipq.errors import DataError, OutputError
from clipq.matrices import Embeddings, read_embeddings, read_manifest
from clipq.matrices.folders import finish, write_shard
from clipq.spaces.space import COMPONENTS, Space
from clipq.work.shards import Shard

SPACE = Space(dict.fromkeys(COMPONENTS) | {"tower": "image", "normalized": True, "decode": "exact"})
ABOUT = {"tower": "image", "normalized": True, "fingerprint": "f", **SPACE.described()}


def at(folder: Path) -> Keyed:
    return Keyed.at(folder, ABOUT, "float32", None, 10)


def write(folder: Keyed, *names: str, broken: tuple[str, ...] = ()) -> dict:
    good = torch.tensor([row for row, name in enumerate(names) if name not in broken])
    vectors = torch.stack([torch.full((4,), float(len(names[row]))) for row in good])
    return folder.write(names, Shard(0, good, vectors, {names.index(name): "why" for name in broken}))


def run(folder: Path, *batches: tuple[str, ...]) -> dict:
    """What a job does with a data set that comes in these batches."""
    into = at(folder)
    known = into.known()
    for names in batches:
        known.seen.append(digests(names))
        if new := [names[row] for row in lacking(known.hashes, names)]:
            known.entries.append(write(into, *new))
    return into.finish(known)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows_of_the_files(folder: Path) -> list[str]:
    """As a query over `shard-*.parquet` finds them."""
    return sorted(
        name for file in folder.glob("shard-*.parquet") for name in parquet.read_table(file)["name"].to_pylist()
    )


@pytest.mark.parametrize("left", ["no json", "a cut json", "a json of another", "a cut file"])
def test_a_file_that_a_kill_left_doubles_no_row(tmp_path, left):
    entry = write(at(tmp_path), "a", "b", "c")
    file = tmp_path / entry["file"]
    said = Path(f"{file}.json")
    if left == "no json":
        said.unlink()
    elif left == "a cut file":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        said.write_text(said.read_text()[:40] if left == "a cut json" else json.dumps([1]))
    assert not len(at(tmp_path).known().hashes)
    assert run(tmp_path, ("a", "b"), ("c",))["rows"] == 3
    assert rows_of_the_files(tmp_path) == sorted(read_embeddings(tmp_path).names) == ["a", "b", "c"]
    assert len(names(tmp_path)) == 3  # two files and the manifest


def test_a_damaged_file_of_a_finished_folder_is_made_again_and_the_folder_stays_readable(tmp_path, monkeypatch):
    run(tmp_path, ("a", "b"), ("c",))
    before, file = read_manifest(tmp_path), sorted(tmp_path.glob("shard-*.parquet"))[0]
    file.write_bytes(b"damaged")
    monkeypatch.setattr(keyed, "manifest_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ("a", "b"), ("c",))
    assert sorted(read_embeddings(tmp_path).names) == ["a", "b", "c"]  # the same file, made again
    monkeypatch.undo()
    assert run(tmp_path, ("a", "b"), ("c",)) == before == read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../victim.txt", "/victim.txt", "shard-000000.parquet", "victim.txt", 3])
def test_a_manifest_removes_nothing_that_is_not_of_it(tmp_path, name):
    folder, victim = tmp_path / "out", tmp_path / "victim.txt"
    victim.write_text("precious")
    run(folder, ("a",))
    manifest = read_manifest(folder)
    (folder / "shard-000000.parquet").write_text("precious")
    manifest["shards"][0]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = names(folder)
    with pytest.raises(DataError, match=r"manifest\.json is not of this call"):
        run(folder, ("a",))
    assert names(folder) == before and victim.read_text() == "precious"


def _numbered(folder: Path, ending: str) -> None:
    matrix = Embeddings(("a",), torch.ones(1, 4), {}, {**ABOUT, "dtype": "float32", "width": 4})
    entry = write_shard(matrix, folder / f"shard-000000.{ending}", 0)
    finish(folder, {**ABOUT, "dtype": "float32", "width": 4, "shard_size": 10}, [entry])


@pytest.mark.parametrize(
    ("fill", "error", "words"),
    [
        (lambda folder: _numbered(folder, "safetensors"), DataError, "shard-000000.safetensors.*another folder"),
        (lambda folder: _numbered(folder, "parquet"), DataError, "shard-000000.parquet.*another folder"),
        (lambda folder: (folder / "manifest.json").write_text('{"a":'), DataError, "manifest.json is not of this call"),
        (
            lambda folder: (folder / "manifest.json").write_bytes(b"\xff"),
            DataError,
            "manifest.json is not of this call",
        ),
        (lambda folder: (folder / "manifest.json").write_text("{}"), DataError, "not of kind"),
        (lambda folder: (folder / "shard-000000.parquet").write_text(""), OutputError, "shard-000000"),
        (lambda folder: (folder / "shard-notes.txt").write_text(""), OutputError, "shard-notes"),
    ],
)
def test_folders_of_something_else_are_left_alone(tmp_path, fill, error, words):
    fill(tmp_path)
    before = names(tmp_path)
    with pytest.raises(error, match=words):
        at(tmp_path)
    assert names(tmp_path) == before


def test_a_key_of_two_rows_is_named(tmp_path):
    with pytest.raises(DataError, match=r"key 'b',.*remove shard-\w+\.parquet and shard-\w+\.parquet from") as raised:
        run(tmp_path, ("a", "b"), ("c",), ("b", "d"))
    assert not (tmp_path / "manifest.json").exists() and len(names(tmp_path)) == 6
    with pytest.raises(DataError) as again:  # whoever comes next is told the same, before the work
        at(tmp_path).known()
    assert str(again.value) == str(raised.value)
    for name in names(tmp_path):
        if name.removesuffix(".json") in str(raised.value):
            (tmp_path / name).unlink()
    assert run(tmp_path, ("a", "b"), ("c",), ("b 2", "d"))["rows"] == 5
    with pytest.raises(DataError, match="key 'c'"):  # one that was known, and is there twice now
        run(tmp_path, ("c", "x"), ("c",))


def test_rows_that_are_not_finite_are_broken_ones(tmp_path):
    into = at(tmp_path)
    vectors = torch.tensor([[1.0, 2, 3, 4], [float("inf"), 0, 0, 0]])
    entry = into.write([" a ", " b ", " c "], Shard(0, torch.tensor([0, 2]), vectors, {1: "why"}))
    assert (entry["rows"], entry["broken"]) == (1, 2)
    assert lacking(into.known().hashes, [" a ", " b ", " c ", "b"]) == [3]  # keys as they are
    known = into.known()
    into.finish(known)
    broken = dict(zip(*parquet.read_table(tmp_path / "broken.parquet").to_pydict().values(), strict=True))
    assert broken == {" b ": "why", " c ": "the embedding is not finite; try fallback='fp32'"}


def test_what_is_there_is_listed_once(tmp_path, monkeypatch):
    for row in range(5):
        write(at(tmp_path), f"k{row}")
    into, listed, own = at(tmp_path), [], keyed.Store.names
    monkeypatch.setattr(keyed.Store, "names", lambda self: listed.append(1) or own(self))
    assert len(into.known().hashes) == 5 and len(listed) == 1
    assert lacking(into.known().hashes, ["k0", "x", "k4"]) == [1] and lacking(into.known().hashes[:0], ["x"]) == [0]
