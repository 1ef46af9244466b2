"""Added to an output: what it lacks, behind what it has, in the same space or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import TWO_TOWERS, model, tokenizer_spec
from PIL import Image

from clipq.embedding import Inputs, ShardedFolder, add, add_into, adding, embed, embed_into
from clipq.errors import DataError, OutputError, SpaceError
from clipq.matrices import read_embeddings, read_manifest, read_shards
from clipq.matrices.folders import read_broken
from clipq.vectors import ranges_of

PIXELS = {"kind": "open_clip", "size": 32}


@pytest.fixture(scope="module")
def own():
    return model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing=PIXELS)


def _pictures(folder: Path, *numbers: int, broken: tuple[int, ...] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    for i in numbers:
        Image.new("RGB", (20, 20), (5 * i, 255 - 5 * i, 40)).save(folder / f"{i:02d}.png")
    for i in broken:
        (folder / f"{i:02d}.png").write_bytes(b"broken")
    return folder


def _rows(found) -> dict[str, torch.Tensor]:
    return dict(zip(found.names, found.matrix, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
def test_what_lacks_is_added_and_what_is_there_stays(own, tmp_path, dtype):
    folder = _pictures(tmp_path / "in", *range(0, 20, 2), broken=(3,))
    floats = embed(own, folder, batch_size=1, progress=False)
    ranges = (
        ranges_of(torch.cat([floats.matrix] * 12), floats.about, "a test") if dtype in ("int8", "ubinary") else None
    )
    there = floats.as_dtype(dtype, ranges) if dtype != "float32" else floats
    _pictures(folder, *range(20), broken=(19,))
    found = add(own, folder, there, batch_size=1, progress=False)
    assert found.names[:10] == there.names and found.matrix[:10].equal(there.matrix)
    assert found.names[10:] == tuple(f"{i:02d}.png" for i in range(1, 19, 2)) and list(found.broken) == ["19.png"]
    whole = embed(own, folder, batch_size=1, progress=False, dtype=dtype, ranges=ranges)
    assert all(row.equal(_rows(found)[name]) for name, row in _rows(whole).items())
    assert found.about == {**there.about, "saturated": whole.about["saturated"]} if ranges else there.about
    same = add(own, _pictures(folder, broken=(19,)), found, progress=False)  # tried again, in vain
    assert same.names == found.names and same.broken == found.broken and same.matrix.equal(found.matrix)


def test_nothing_lacks(own, tmp_path):
    folder = _pictures(tmp_path / "in", 1, 2)
    found = embed(own, folder, progress=False)
    (folder / "01.png").unlink()
    assert add(own, folder, found, progress=False) is found


def test_texts(own, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\n\na dog\n")
    there = embed(own, lines, progress=False)
    lines.write_text("a photo\na cat\n \n\na dog\na photo of a dog\n")
    found = add(own, lines, there, progress=False)
    assert found.names == ("a cat", "a dog", "a photo", "a photo of a dog") and found.broken == there.broken
    assert found.matrix.equal(torch.cat([there.matrix, own.encode_text(list(found.names[2:]), normalize=True)]))


@pytest.mark.parametrize("whole", [True, False])
def test_another_space_is_refused_by_name_before_the_work(own, tmp_path, whole):
    folder, into = _pictures(tmp_path / "in", 1, 2), ShardedFolder(tmp_path / "out", 5)
    there = embed(own, folder, progress=False)
    embed_into(own, folder, into, progress=False)
    before = (into.path / "manifest.json").read_bytes()
    _pictures(folder, 3)
    (tmp_path / "x.txt").write_text("a cat\n")
    precise = model(TWO_TOWERS, "fp32", tokenizer=tokenizer_spec(), preprocessing=PIXELS)
    squashed = model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing={**PIXELS, "resize_mode": "squash"})
    cases = [
        (precise, folder, "scheme.activations"),
        (squashed, folder, "preprocessing.resize_mode"),
        (own, Inputs.of(folder, "scaled"), 'decode: "exact" and "scaled"'),
        (own, tmp_path / "x.txt", 'tower: "image" and "text"'),
    ]
    for other, source, words in cases:
        with pytest.raises(SpaceError, match=words):
            add(other, source, there) if whole else add_into(other, source, into.path)
    assert (into.path / "manifest.json").read_bytes() == before and not into.unfinished.exists()


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_shards_are_put_behind_those_that_are_there(own, tmp_path, format):
    folder, into = _pictures(tmp_path / "in", *range(7), broken=(3, 4)), ShardedFolder(tmp_path / "out", 3, format)
    embed_into(own, folder, into, batch_size=1, progress=False)
    before = {path.name: path.read_bytes() for path in into.path.glob("shard-*")}
    _pictures(folder, 3, 10, 11, 12, broken=(13,))
    about = add_into(own, folder, into.path, batch_size=1, progress=False)
    assert about == read_manifest(into.path) and (about["rows"], about["broken"]) == (9, 2)
    assert [entry["start"] for entry in about["shards"]] == [0, 3, 6, 7, 10]
    assert [entry["file"] for entry in about["shards"]] == [f"shard-{i:06d}.{format}" for i in range(5)]
    assert all((into.path / name).read_bytes() == data for name, data in before.items())
    found, whole = read_embeddings(into.path), embed(own, folder, batch_size=1, progress=False)
    assert found.names[:5] == ("00.png", "01.png", "02.png", "05.png", "06.png")
    assert {name: row.tolist() for name, row in _rows(found).items()} == {
        name: row.tolist() for name, row in _rows(whole).items()
    }
    assert found.broken == whole.broken == dict(read_broken(into.path)) and about["mended"] == ["03.png"]
    assert {**whole.about, "shard_size": 3}.items() <= found.about.items()
    assert add_into(own, _pictures(folder, 4, 13), into.path, progress=False)["broken"] == 0
    assert not dict(read_broken(into.path)) and not read_embeddings(into.path).broken
    assert add_into(own, folder, into.path, progress=False) == read_manifest(into.path)
    (folder / "20.png").write_bytes(b"broken")
    there = add_into(own, folder, into.path, progress=False)
    assert there["broken"] == 1 and add_into(own, folder, into.path, progress=False) == there  # tried again, in vain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


class _Killed(BaseException):
    """Not an exception that anybody catches."""


def test_killed_anywhere_it_is_as_it_was_and_goes_on(own, tmp_path, monkeypatch):
    folder, into = _pictures(tmp_path / "in", *range(3)), ShardedFolder(tmp_path / "out", 16)
    embed_into(own, folder, into, batch_size=1, progress=False)
    before = read_manifest(into.path)
    _pictures(folder, *range(45))
    encode, batches = type(own).encode_image, []

    def mortal(self, *args, **options):
        batches.append(1)
        if len(batches) % 20 == 0:
            raise _Killed
        return encode(self, *args, **options)

    monkeypatch.setattr(type(own), "encode_image", mortal)
    monkeypatch.setattr("clipq.embedding.adding.extend", lambda *args: (_ for _ in ()).throw(_Killed()))
    kills = 0
    for _ in range(12):
        try:
            about = add_into(own, folder, into.path, batch_size=1, progress=False)
            break
        except _Killed:
            kills += 1
            assert read_manifest(into.path) == before and len(list(read_shards(into.path))) == 1
            if kills == 4:
                monkeypatch.undo()
    assert kills == 4 and about["rows"] == 45 and len(batches) < 42 + 4 * 9
    assert sorted(read_embeddings(into.path).names) == [f"{i:02d}.png" for i in range(45)]
    whole = embed(own, folder, batch_size=1, progress=False)
    assert all(row.equal(_rows(read_embeddings(into.path))[name]) for name, row in _rows(whole).items())


def test_an_output_that_is_damaged_is_not_added_to(own, tmp_path):
    folder, into = _pictures(tmp_path / "in", *range(4)), ShardedFolder(tmp_path / "out", 2)
    embed_into(own, folder, into, progress=False)
    shard = into.path / "shard-000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="shard-000001"):
        add_into(own, _pictures(folder, 9), into.path)
    manifest = json.loads((into.path / "manifest.json").read_text())
    for key in ("space", "space_id"):
        del manifest[key]
    (into.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SpaceError, match=r"out does not say .* before 0\.8"):
        add_into(own, folder, into.path)


def test_two_that_add_at_once_do_not_overwrite_each_other(own, tmp_path, monkeypatch):
    folder, into = _pictures(tmp_path / "in", *range(3)), ShardedFolder(tmp_path / "out", 16)
    embed_into(own, folder, into, progress=False)
    other, encode, begun = _pictures(tmp_path / "other", 7, 8), type(own).encode_image, []

    def second(self, *args, **options):
        if not begun:
            begun.append(1)
            add_into(own, other, into.path, progress=False)
        return encode(self, *args, **options)

    monkeypatch.setattr(type(own), "encode_image", second)
    _pictures(folder, 4, 5)
    with pytest.raises(OutputError, match="was changed while this run added to it"):
        add_into(own, folder, into.path, progress=False)
    assert add_into(own, folder, into.path, progress=False)["rows"] == 7
    assert len(read_embeddings(into.path).names) == 7


def test_killed_when_all_is_added_the_next_call_ends_it(own, tmp_path, monkeypatch):
    folder, into = _pictures(tmp_path / "in", *range(3)), ShardedFolder(tmp_path / "out", 16)
    embed_into(own, folder, into, progress=False)
    _pictures(folder, 7, broken=(8,))
    monkeypatch.setattr("clipq.embedding.adding.save_broken", lambda path: (_ for _ in ()).throw(_Killed()))
    with pytest.raises(_Killed):
        add_into(own, folder, into.path, progress=False)
    assert into.unfinished.exists() and not (into.path / "broken.parquet").exists()
    monkeypatch.undo()
    (folder / "08.png").unlink()
    assert add_into(own, folder, into.path, progress=False) == read_manifest(into.path)
    assert (into.path / "broken.parquet").exists() and not into.unfinished.exists()


def test_two_that_put_shards_in_at_once_do_not_overwrite_each_other(own, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    folder, into = _pictures(tmp_path / "in", *range(3)), ShardedFolder(tmp_path / "out", 16)
    embed_into(own, folder, into, progress=False)
    other, extend, refused = _pictures(tmp_path / "other", 7, 8), adding.extend, []

    def meanwhile(*args):
        with pytest.raises(OutputError, match="another run adds to .* Give the same command again") as error:
            add_into(own, other, into.path, progress=False)
        refused.append(error)
        return extend(*args)

    monkeypatch.setattr(adding, "extend", meanwhile)
    add_into(own, _pictures(folder, 4, 5), into.path, progress=False)
    monkeypatch.undo()
    assert refused and add_into(own, other, into.path, progress=False)["rows"] == 7
    assert len(read_embeddings(into.path).names) == 7 and not into.unfinished.exists()
