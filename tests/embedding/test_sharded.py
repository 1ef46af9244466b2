"""A folder of shards: what a whole matrix holds, in pieces; resumed after a kill with the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import TWO_TOWERS, model, tokenizer_spec
from PIL import Image
from pyarrow import parquet

from clipq.embedding import Embedder, ShardedFolder, embed, embed_into, embed_with
from clipq.errors import DataError, EngineError, OutputError, UnknownNameError
from clipq.matrices import read_embeddings, read_manifest, read_ranges, read_shards
from clipq.vectors import DTYPES, ranges_of

COUNT, BROKEN = 50, (0, 7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 49)
SIZE = 10  # so one shard has no row at all


@pytest.fixture(scope="module")
def own():
    return model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing={"kind": "open_clip", "size": 32})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        Image.new("RGB", (20, 20), (5 * i, 255 - 5 * i, 40)).save(folder / f"{i:02d}.png")
        if i in BROKEN:
            (folder / f"{i:02d}.png").write_bytes(b"broken")
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _broken(folder: Path) -> list[tuple[str, str]]:
    table = parquet.read_table(folder / "broken.parquet").to_pydict()
    return list(zip(table["name"], table["error"], strict=True))


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_hold_what_one_matrix_holds(own, folder, tmp_path, dtype, format):
    floats = embed(own, folder, batch_size=1, progress=False)  # other batches are other last bits
    ranges = None
    if dtype not in ("float32", "float16"):
        ranges = ranges_of(torch.cat([floats.matrix] * 3), floats.about, "a test")
    whole = floats.as_dtype(dtype, ranges) if dtype != "float32" else floats
    into = ShardedFolder(tmp_path / "out", SIZE, format)
    about = embed_into(own, folder, into, batch_size=1, dtype=dtype, ranges=ranges, progress=False)
    assert about == read_manifest(into.path) == json.loads((into.path / "manifest.json").read_text())
    files = ["broken.parquet", "manifest.json", *(f"shard-{i:06d}.{format}" for i in range(5))]
    assert sorted(_bytes(into.path)) == files
    assert _broken(into.path) == list(whole.broken.items())
    assert (about["rows"], about["broken"], about["dtype"]) == (COUNT - len(BROKEN), len(BROKEN), dtype)
    assert [entry["rows"] for entry in about["shards"]] == [8, 10, 0, 10, 9]
    for entry in about["shards"]:
        assert hashlib.sha256((into.path / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    found = read_embeddings(into.path)
    assert found.matrix.equal(whole.matrix) and found.matrix.dtype == whole.matrix.dtype
    assert (found.names, found.broken) == (whole.names, whole.broken)
    assert {**whole.about, "shard_size": SIZE} == found.about
    assert found.restore().matrix.equal(whole.restore().matrix)
    shards = list(read_shards(into.path))
    assert torch.cat([shard.matrix for shard in shards]).equal(whole.matrix)
    assert (read_ranges(into.path).described() == ranges.described()) if ranges else found.ranges is None
    assert read_embeddings(into.path / f"shard-000001.{format}").names == whole.names[8:18]
    assert not into.unfinished.exists()


class _Killed(BaseException):
    """Not an exception that anybody catches."""


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_killed_anywhere_and_begun_again_it_writes_the_same_bytes(own, folder, tmp_path, format, monkeypatch):
    """The tower dies before each of its batches in turn; what was finished before is not done again."""
    whole = ShardedFolder(tmp_path / "whole", 20, format)
    embed_into(own, folder, whole, batch_size=1, progress=False)
    into, batches, encode = ShardedFolder(tmp_path / "out", 20, format), [], type(own).encode_image
    alive = 0

    def mortal(self, *args, **options):
        batches.append(1)
        if len(batches) % 12 == 11:
            raise _Killed
        return encode(self, *args, **options)

    monkeypatch.setattr(type(own), "encode_image", mortal)
    for _ in range(20):
        try:
            embed_into(own, folder, into, batch_size=1, progress=False)
            break
        except _Killed:
            alive += 1
            assert not into.path.exists()
    assert alive >= 3 and _bytes(into.path) == _bytes(whole.path)
    assert len(batches) < COUNT + alive * 9  # at most eight batches are lost to each kill, and the one it fell on
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_finished_shard_that_was_changed_is_made_again(own, folder, tmp_path, monkeypatch):
    whole, into = ShardedFolder(tmp_path / "whole", 20), ShardedFolder(tmp_path / "out", 20)
    embed_into(own, folder, whole, progress=False)
    from clipq.embedding import sharded

    monkeypatch.setattr(sharded, "finish", lambda *args: (_ for _ in ()).throw(_Killed()))
    with pytest.raises(_Killed):
        embed_into(own, folder, into, progress=False)
    monkeypatch.undo()
    (made,) = into.unfinished.glob("*/shards")
    (made / "shard-000001.safetensors").write_bytes((made / "shard-000000.safetensors").read_bytes())
    embed_into(own, folder, into, progress=False)
    assert _bytes(into.path) == _bytes(whole.path)


def test_texts_and_empty_lines(own, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\ntwo\nthree\n \nfour")
    about = embed_into(own, lines, ShardedFolder(tmp_path / "out", 2), batch_size=4, progress=False)
    assert (about["tower"], about["rows"], about["broken"]) == ("text", 4, 2) and "decode" not in about
    found = read_embeddings(tmp_path / "out")
    assert found.names == ("one", "two", "three", "four") and list(found.broken) == ["line 2", "line 5"]
    torch.testing.assert_close(found.matrix, own.encode_text(list(found.names), normalize=True))


def test_nothing_that_can_be_read(own, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(5):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 5 inputs can be read; the first: 0\.png"):
        embed_into(own, tmp_path / "in", ShardedFolder(tmp_path / "out", 2), progress=False)
    assert not (tmp_path / "out").exists()


def test_what_stands_there_is_replaced_only_if_it_is_such_a_folder(own, folder, tmp_path):
    into = ShardedFolder(tmp_path / "out", 20)
    embed_into(own, folder, into, progress=False)
    with pytest.raises(OutputError, match="exists already"):
        into.check()
    before = _bytes(into.path)
    embed_into(own, folder, ShardedFolder(into.path, 25), progress=False)
    assert len(_bytes(into.path)) == 4 and len(before) == 5
    other = tmp_path / "mine"
    other.mkdir()
    (other / "diary.txt").write_text("")
    with pytest.raises(OutputError, match="no folder of shards"):
        embed_into(own, folder, ShardedFolder(other, 20), progress=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("size", [0, -1, True, 2.5])
def test_sizes_that_are_none(size, tmp_path):
    with pytest.raises(DataError, match="whole number"):
        ShardedFolder(tmp_path / "x", size)


def test_unknown_formats(tmp_path):
    with pytest.raises(UnknownNameError, match="parquet"):
        ShardedFolder(tmp_path / "x", 5, "parket")


def _entry(**changes):
    def change(manifest: dict) -> None:
        manifest["shards"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_entry(file="../x"), "no name of a file"),
        (_entry(file="/etc/passwd"), "no name of a file"),
        (_entry(file=".."), "no name of a file"),
        (_entry(rows=-1), "-1 rows"),
        (_entry(sha256="0" * 64), "sha256 is another"),
        (_entry(file="shard-000001.safetensors"), "sha256 is another"),
        (lambda manifest: manifest.update(rows=1), "it says 1 rows"),
        (lambda manifest: manifest.update(shards=[]), "rows, not 0"),
        (lambda manifest: manifest.update(kind="x"), "not of kind"),
        (lambda manifest: manifest.update(dtype="int8"), "does not fit manifest.json in dtype"),
        (lambda manifest: manifest.update(fingerprint="x"), "does not fit manifest.json in fingerprint"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(own, folder, tmp_path, change, words):
    embed_into(own, folder, ShardedFolder(tmp_path / "out", 20), progress=False)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=words):
        read_embeddings(tmp_path / "out")


def test_folders_that_are_incomplete_or_something_else(own, folder, tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_embeddings(folder)
    embed_into(own, folder, ShardedFolder(tmp_path / "out", 20), progress=False)
    (tmp_path / "out" / "shard-000001.safetensors").unlink()
    with pytest.raises(DataError, match="000001.*cannot be read"):
        list(read_shards(tmp_path / "out"))


class _Forgetful:
    """An engine that says `lie` of the entries it should give."""

    def __init__(self, lie):
        self.lie = lie

    def made(self, job, inputs, units, work, advance):
        entries = list(job.made(inputs, units, work, advance))
        return iter(self.lie(entries, job.folder))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda entries, folder: entries[:-1], r"shard-000002.* inputs 41 to 50, is missing: the engine did not make"),
        (lambda entries, folder: [*entries, entries[0]], r"shard-000000\S* twice"),
        (lambda entries, folder: [(folder / one["file"]).unlink() or one for one in entries], "do all workers see it"),
    ],
)
def test_no_engine_can_finish_a_folder_without_its_shards(own, folder, tmp_path, lie, words):
    embedder = Embedder(own, batch_size=5)
    with pytest.raises(EngineError, match=words):
        embed_with(_Forgetful(lie), embedder, folder, ShardedFolder(tmp_path / "out", 20), progress=False)
    assert not (tmp_path / "out").exists()
