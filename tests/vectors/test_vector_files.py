"""Embeddings of every dtype as files: self-describing, readable, with the ranges beside; damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from pyarrow import parquet
from pyarrow.dataset import dataset
from safetensors import safe_open
from safetensors.torch import save_file

from clipq.errors import DataError
from clipq.matrices import Embeddings, read_about, read_embeddings, read_ranges, save_embeddings
from clipq.vectors import DTYPES, ranges_of

ABOUT = {"fingerprint": "f", "tower": "image", "normalized": True, "dtype": "float32", "width": 12}
RANGED = ("int8", "int8-per-dimension", "ubinary")
ENDINGS = (".safetensors", ".npy")


@pytest.fixture
def floats() -> Embeddings:
    matrix = torch.nn.functional.normalize(torch.randn(150, 12))
    return Embeddings(tuple(f"p{i}.png" for i in range(150)), matrix, {"x.png": "broken"}, ABOUT)


def ranges(floats: Embeddings):
    return ranges_of(floats.matrix * 0.9, ABOUT, "a test")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_read(floats, dtype, ending, tmp_path):
    path = tmp_path / f"x{ending}"
    kept = floats.as_dtype(dtype, ranges(floats))
    save_embeddings(kept, path)
    found = read_embeddings(path)
    assert found.matrix.equal(kept.matrix) and found.matrix.dtype == kept.matrix.dtype
    assert (found.names, found.broken, found.about) == (kept.names, kept.broken, kept.about)
    assert (found.about["dtype"], found.about["width"]) == (dtype, 12)
    assert ("ranges" in found.about) == (dtype in RANGED) == (found.ranges is not None)
    back = found.restore()
    assert back.matrix.shape == (150, 12) and back.dtype == "float32"
    assert torch.cosine_similarity(back.matrix, floats.matrix).mean() > (0.7 if dtype == "ubinary" else 0.999)
    if dtype in RANGED:
        assert found.about["ranges"]["origin"] == "a test" and found.about["ranges"]["rows"] == 150
        assert read_ranges(path).described() == ranges(floats).described()


def test_other_peoples_readers_read_it(floats, tmp_path):
    kept = floats.as_dtype("int8", ranges(floats))
    for ending in ENDINGS:
        save_embeddings(kept, tmp_path / f"x{ending}")
    assert numpy.array_equal(numpy.load(tmp_path / "x.npy"), kept.matrix.numpy())
    assert json.loads((tmp_path / "x.npy.json").read_text())["dtype"] == "int8"
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert sorted(file.keys()) == ["embeddings", "ranges.limit", "ranges.mean", "ranges.std"]
        assert file.get_tensor("embeddings").dtype == numpy.int8


def test_float32_written_over_int8_leaves_no_ranges(floats, tmp_path):
    path = tmp_path / "x.npy"
    save_embeddings(floats.as_dtype("int8", ranges(floats)), path)
    assert (tmp_path / "x.npy.ranges.safetensors").exists()
    save_embeddings(floats, path)
    assert not (tmp_path / "x.npy.ranges.safetensors").exists()
    assert read_embeddings(path).ranges is None


def test_a_float32_file_gives_the_ranges_of_its_rows(floats, tmp_path):
    save_embeddings(floats, tmp_path / "x.safetensors")
    found = read_ranges(tmp_path / "x.safetensors")
    assert found.about["origin"] == "the embeddings of x.safetensors"
    torch.testing.assert_close(found.mean, floats.matrix.mean(dim=0))
    save_embeddings(floats.as_dtype("float16"), tmp_path / "y.safetensors")
    with pytest.raises(DataError, match="float16 and holds no ranges"):
        read_ranges(tmp_path / "y.safetensors")


def test_files_of_before_the_dtypes_are_float32(floats, tmp_path):
    about = {key: value for key, value in ABOUT.items() if key not in ("dtype", "width")}
    old = Embeddings(floats.names, floats.matrix, {}, about)
    save_embeddings(old, tmp_path / "x.npy")
    found = read_embeddings(tmp_path / "x.npy")
    assert found.dtype == "float32" and found.as_dtype("int8", ranges(floats)).about["width"] == 12


def test_codes_are_not_converted_again_nor_by_ranges_of_another_model(floats):
    kept = floats.as_dtype("int8", ranges(floats))
    with pytest.raises(DataError, match="int8 already"):
        kept.as_dtype("ubinary", ranges(floats))
    assert kept.restore().as_dtype("int8", ranges(floats)).matrix.equal(kept.matrix)
    other = ranges_of(floats.matrix, {**ABOUT, "fingerprint": "of another"}, "elsewhere")
    with pytest.raises(DataError, match="fingerprint"):
        floats.as_dtype("int8", other)


def forged(path: Path, **changes) -> None:
    """The file with some tensors replaced (None: left out), or with other metadata."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["clipq"])
    about |= changes.pop("about", {})
    tensors |= {name.replace("_", "."): value for name, value in changes.items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, {"clipq": json.dumps(about)})


@pytest.mark.parametrize(
    "change",
    [
        {"embeddings": torch.zeros(150, 12)},
        {"embeddings": torch.zeros(149, 12, dtype=torch.int8)},
        {"embeddings": torch.zeros(150, 11, dtype=torch.int8)},
        {"ranges_std": torch.zeros(12)},
        {"ranges_std": None},
        {"ranges_mean": None, "ranges_std": None, "ranges_limit": None},
        {"ranges_limit": torch.tensor(0.5)},
        {"about": {"dtype": "int7"}},
        {"about": {"dtype": "float32"}},
        {"about": {"dtype": ["int8"]}},
        {"about": {"ranges": 3}},
        {"about": {"names": 3}},
        {"about": {"names": {}}},
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(floats, change, tmp_path):
    path = tmp_path / "x.safetensors"
    save_embeddings(floats.as_dtype("int8", ranges(floats)), path)
    assert read_embeddings(path)
    forged(path, **change)
    with pytest.raises(DataError, match=r"x.safetensors holds no embeddings that clipq wrote"):
        read_embeddings(path)


def test_what_is_no_file_of_embeddings(floats, tmp_path):
    (tmp_path / "foreign.safetensors").write_bytes(b"\x00" * 50)
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    numpy.save(tmp_path / "alone.npy", numpy.zeros((2, 2)))
    (tmp_path / "x.pt").write_bytes(b"")
    for name in ("foreign.safetensors", "weights.safetensors", "alone.npy", "missing.npy", "x.pt"):
        with pytest.raises(DataError, match=name):
            read_embeddings(tmp_path / name)


def test_every_parquet_file_names_its_rows_in_text(floats, tmp_path):
    """One of a name that is no Unicode too: those who read several files at once want one type of column."""
    own = [Embeddings((name, "b"), floats.matrix[:2], {}, ABOUT) for name in ("a", "x\udcff.png")]
    for number, one in enumerate(own):
        save_embeddings(one, tmp_path / f"{number}.parquet")
    assert dataset(tmp_path).to_table()["name"].to_pylist() == ["a", "b", "x\\xff.png", "b"]
    assert [read_embeddings(tmp_path / f"{number}.parquet").names for number in (0, 1)] == [one.names for one in own]
    assert "raw_names" not in read_about(tmp_path / "1.parquet")
    table = parquet.read_table(tmp_path / "0.parquet")  # clipq 0.7 wrote bytes where a name was no Unicode
    table = table.set_column(0, "name", [[b"a\xff", b"b"]])
    parquet.write_table(table, tmp_path / "old.parquet")
    assert read_embeddings(tmp_path / "old.parquet").names == ("a\udcff", "b")
