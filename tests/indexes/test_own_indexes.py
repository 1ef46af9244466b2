"""Indexes that clipq wrote: every format and kind of vector gives, block by block, what reading it whole gives."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipq.errors import DataError
from clipq.indexes import Layout, open_index, own, raw
from clipq.matrices import Embeddings, read_embeddings, save_embeddings
from clipq.matrices.folders import finish, write_shard
from clipq.vectors import DTYPES, ranges_of

ABOUT = {"fingerprint": "f" * 64, "tower": "image", "normalized": True, "dtype": "float32", "width": 20}
ROWS = 123


def embeddings(dtype="float32", rows=ROWS):
    matrix = torch.nn.functional.normalize(torch.randn(rows, 20) + 0.3, dim=1)
    found = Embeddings(tuple(f"a/{i}é.jpg" for i in range(rows)), matrix, {"b.jpg": "broken"}, dict(ABOUT))
    return found if dtype == "float32" else found.as_dtype(dtype, ranges_of(matrix, ABOUT, "these"))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for module in (own, raw):
        monkeypatch.setattr(module, "ROWS", 50)


def checked(path, expected: Embeddings):
    found = open_index(path)
    blocks = list(found.blocks())
    assert found.names == expected.names and len(found) == len(expected.names)
    assert found.width == 20
    assert [start for start, _ in blocks] == [0, *np.cumsum([len(block) for _, block in blocks])[:-1]]
    assert max(len(block) for _, block in blocks) <= 50
    assert torch.cat([block for _, block in blocks]).equal(expected.restore().matrix)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ending", [".parquet", ".safetensors", ".npy"])
def test_files(ending, dtype, tmp_path):
    path = tmp_path / f"old{ending}"
    save_embeddings(embeddings(dtype), path)
    found = checked(path, read_embeddings(path))
    assert found.exact == (dtype in ("float32", "float16"))
    assert found.kind == f"clipq {ending[1:]} of {dtype}"
    assert found.about["fingerprint"] == "f" * 64
    assert json.dumps(found.described())


@pytest.mark.parametrize("dtype", ["float32", "int8", "ubinary"])
@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_folders_of_shards(format, dtype, tmp_path):
    whole = embeddings(dtype)
    entries = []
    for number, start in enumerate(range(0, ROWS, 60)):
        some = slice(start, start + 60)
        part = Embeddings(whole.names[some], whole.matrix[some], {}, dict(whole.about), ranges=whole.ranges)
        entries.append(write_shard(part, tmp_path / f"shard-{number:06d}.{format}", start))
    finish(tmp_path, whole.about, entries)
    checked(tmp_path, read_embeddings(tmp_path))


def test_a_file_of_an_older_clipq_that_does_not_say_its_width(tmp_path):
    old = embeddings()
    del old.about["width"], old.about["dtype"]
    save_embeddings(old, tmp_path / "old.safetensors")
    checked(tmp_path / "old.safetensors", old)


def test_a_vector_that_is_not_finite_is_named(tmp_path):
    old = embeddings()
    old.matrix[77, 3] = torch.nan
    save_embeddings(old, tmp_path / "old.parquet")
    with pytest.raises(DataError, match=r"the vector of 'a/77é.jpg' is not finite"):
        list(open_index(tmp_path / "old.parquet").blocks())


def test_names_that_are_not_as_many_as_vectors(tmp_path):
    save_embeddings(embeddings(), tmp_path / "old.npy")
    (tmp_path / "old.npy.names.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 names and a matrix of"):
        open_index(tmp_path / "old.npy")


@pytest.mark.parametrize("ending", [".parquet", ".safetensors", ".npy"])
def test_ranges_that_were_altered(ending, tmp_path):
    """They would restore other vectors: what reads a file whole refuses it as well."""
    found = embeddings("int8-per-dimension")
    save_embeddings(
        replace(found, ranges=replace(found.ranges, std=found.ranges.std.flip(0) * 3)), tmp_path / f"old{ending}"
    )
    for reader in (read_embeddings, open_index):
        with pytest.raises(DataError, match="the ranges are not those of their sha256"):
            reader(tmp_path / f"old{ending}")


@pytest.mark.parametrize("said", [{"names": "names.txt"}, {"name_column": "name"}, {"vectors": "embedding"}])
@pytest.mark.parametrize("ending", [".parquet", ".safetensors", ".npy"])
def test_nothing_is_said_of_what_says_it_itself(ending, said, tmp_path):
    save_embeddings(embeddings(), tmp_path / f"old{ending}")
    words = "does not exist|there is no" if (ending, *said) == (".npy", "names") else "leave it out"
    with pytest.raises(DataError, match=words):
        open_index(tmp_path / f"old{ending}", Layout(**said))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("old.parquet", b"nonsense", "no vectors that can be read"),
        ("old.safetensors", b"", "no vectors that can be read"),
        ("old.npy", b"\x93NUMPY\x01\x00", "no vectors that can be read"),
        ("old.txt", b"a", "the ending says what it is; known: .parquet, .safetensors, .npy, .faiss, .index, .usearch"),
    ],
)
def test_what_is_no_index(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_index(tmp_path / name)


def test_no_file_an_empty_one_and_a_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_index(tmp_path / "none.npy")
    with pytest.raises(DataError, match="holds no parquet files"):
        open_index(tmp_path)
    save_embeddings(Embeddings((), torch.zeros(0, 20), {}, dict(ABOUT)), tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="holds no vectors"):
        open_index(tmp_path / "none.safetensors")
