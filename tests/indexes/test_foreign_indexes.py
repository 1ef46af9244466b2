"""Matrices and tables that others wrote: their vectors, with names from wherever these are."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save_file

from clipq.errors import DataError, UnknownNameError
from clipq.indexes import Index, Layout, foreign, open_index, raw

NAMES = [f"photos/{i}.jpg" for i in range(40)]


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for module in (foreign, raw):
        monkeypatch.setattr(module, "ROWS", 15)


def read(path, layout=None):
    found = open_index(path, layout)
    blocks = [block for _, block in found.blocks()]
    assert all(block.dtype == torch.float32 and len(block) <= 15 for block in blocks)
    return tuple(found.names), torch.cat(blocks).numpy()


def named(path, names=NAMES):
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f4"])
def test_arrays_with_names_beside_them(dtype, matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix.astype(dtype))
    named(tmp_path / "old.npy.names.txt")
    names, found = read(tmp_path / "old.npy")
    assert names == tuple(NAMES)
    np.testing.assert_array_equal(found, matrix.astype(dtype).astype(np.float32))


def test_an_array_in_another_order(matrix, tmp_path):
    np.save(tmp_path / "old.npy", np.asfortranarray(matrix))
    named(tmp_path / "old.npy.names.txt")
    np.testing.assert_array_equal(read(tmp_path / "old.npy")[1], matrix)


def test_an_array_that_was_cut_off_behind_our_back(matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    named(tmp_path / "old.npy.names.txt")
    found = open_index(tmp_path / "old.npy")
    (tmp_path / "old.npy").write_bytes((tmp_path / "old.npy").read_bytes()[:-100])
    with pytest.raises(DataError, match="ends before row 40 of 40"):
        list(found.blocks())


def test_names_as_json_and_of_numbers(matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    for content in (NAMES, {str(i): name for i, name in enumerate(NAMES)}):
        (tmp_path / "names.json").write_text(json.dumps(content), encoding="utf-8")
        assert read(tmp_path / "old.npy", Layout(tmp_path / "names.json"))[0] == tuple(NAMES)


@pytest.mark.parametrize("ending", ["txt", "json"])
def test_one_name_too_many_is_a_headline(ending, matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    listed = ["filename", *NAMES]
    text = json.dumps(listed) if ending == "json" else "\n".join(listed) + "\n"
    (tmp_path / f"names.{ending}").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="has 41 names and .* 40 vectors; .* no headline"):
        open_index(tmp_path / "old.npy", Layout(tmp_path / f"names.{ending}"))


def test_vectors_that_are_none(matrix, tmp_path):
    named(tmp_path / "old.npy.names.txt")
    np.save(tmp_path / "old.npy", matrix.astype(np.longdouble))
    with pytest.raises(DataError, match="of 64 bits at most"):
        open_index(tmp_path / "old.npy")
    matrix[[3, 5]] = 0
    np.save(tmp_path / "old.npy", matrix)
    with pytest.raises(DataError, match=r"the vector of 'photos/3.jpg' is 0 \(2 such in rows 0 to 14\)"):
        list(open_index(tmp_path / "old.npy").blocks())


def test_a_reader_that_breaks_is_an_error_of_the_data(tmp_path):
    def read():
        yield torch.ones(2, 3)
        raise IndexError("of another library\nand more")

    with pytest.raises(DataError, match="cannot be read: IndexError: of another library"):
        list(Index(tmp_path / "old", "a test", ["a", "b", "c"], 3, read).blocks())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"0": "a"}', "has no name for 1"),
        ("[1, 2]", "a name is no string"),
        ('{"a": "b"}', "no JSON list"),
        ("7", "no JSON list"),
    ],
)
def test_names_that_do_not_do(content, words, matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    (tmp_path / "names.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        open_index(tmp_path / "old.npy", Layout(tmp_path / "names.json"))


def test_arrays_without_names_or_floats(matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    with pytest.raises(DataError, match="--names"):
        open_index(tmp_path / "old.npy")
    np.save(tmp_path / "codes.npy", matrix.astype(np.int8))
    with pytest.raises(DataError, match="an index is an array of floats"):
        open_index(tmp_path / "codes.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        open_index(tmp_path / "objects.npy")


def test_a_tensor_of_several(matrix, tmp_path):
    path, other = tmp_path / "old.safetensors", torch.ones(40, 9)
    save_file({"embeddings": torch.from_numpy(matrix).bfloat16(), "other": other, "scale": torch.ones(3)}, path)
    named(tmp_path / "old.safetensors.names.txt")
    names, found = read(path)
    assert names == tuple(NAMES)
    np.testing.assert_array_equal(found, torch.from_numpy(matrix).bfloat16().float().numpy())
    assert read(path, Layout(vectors="other"))[1].shape == (40, 9)
    with pytest.raises(DataError, match="Did you mean 'other'"):
        open_index(path, Layout(vectors="othr"))


def test_tensors_of_which_none_is_meant(matrix, tmp_path):
    save_file({"a": torch.from_numpy(matrix), "b": torch.ones(40, 6)}, tmp_path / "old.safetensors")
    with pytest.raises(DataError, match="which tensor is meant cannot be told; there are: 'a', 'b'"):
        open_index(tmp_path / "old.safetensors")


def lists(kind, matrix):
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    item = {"list": pa.float32(), "double": pa.float64(), "large": pa.float32(), "half": pa.float16()}[kind]
    wanted = (pa.large_list if kind == "large" else pa.list_)(item)
    rows = list(matrix.astype(np.float16)) if kind == "half" else matrix.tolist()
    return pa.array(rows, wanted)


@pytest.mark.parametrize("kind", ["fixed", "list", "double", "large", "half"])
def test_tables(kind, matrix, tmp_path):
    table = pa.table({"vector": lists(kind, matrix), "label": list(range(40)), "path": NAMES})
    parquet.write_table(table, tmp_path / "old.parquet", row_group_size=7)
    names, found = read(tmp_path / "old.parquet")
    assert names == tuple(NAMES)
    np.testing.assert_allclose(found, matrix, atol=0 if kind != "half" else 3e-3)


def test_a_folder_of_tables_and_columns_by_name(matrix, tmp_path):
    for part in range(2):
        some = slice(20 * part, 20 * part + 20)
        columns = {"clip": lists("list", matrix[some]), "id": list(range(40))[some], "where": NAMES[some]}
        parquet.write_table(pa.table(columns), tmp_path / f"part-{part}.parquet")
    assert read(tmp_path)[0] == tuple(map(str, range(40)))
    names, found = read(tmp_path, Layout(name_column="where", vectors="clip"))
    assert names == tuple(NAMES)
    np.testing.assert_array_equal(found, matrix)
    with pytest.raises(DataError, match="unknown column of names 'wher'"):
        open_index(tmp_path, Layout(name_column="wher"))
    assert read(tmp_path, Layout(named(tmp_path / "names.txt")))[0] == tuple(NAMES)


def test_vectors_whose_widths_add_up(tmp_path):
    table = pa.table({"path": list("abcd"), "vector": [[1.0] * n for n in (3, 5, 4, 4)]})
    parquet.write_table(table, tmp_path / "old.parquet")
    with pytest.raises(DataError, match="one of another width"):
        open_index(tmp_path / "old.parquet")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": ["c"], "vec": [[1.0, 2.0]]}, r"1.parquet has no column 'embedding' of vectors"),
        ({"path": ["c"], "embedding": [[1.0, 2.0]]}, r"1.parquet has no column 'name' of names"),
        ({"name": pa.array([None], pa.string()), "embedding": [[1.0, 2.0]]}, r"1.parquet: 1 rows have no 'name'"),
    ],
)
def test_a_folder_whose_tables_do_not_agree(second, words, tmp_path):
    parquet.write_table(pa.table({"name": ["a"], "embedding": [[1.0, 2.0]]}), tmp_path / "0.parquet")
    parquet.write_table(pa.table(second), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=words):
        open_index(tmp_path)


def test_what_is_said_in_vain(matrix, tmp_path):
    np.save(tmp_path / "old.npy", matrix)
    with pytest.raises(DataError, match="--name-column says what such a file"):
        open_index(tmp_path / "old.npy", Layout(named(tmp_path / "names.txt"), name_column="path"))
    parquet.write_table(pa.table({"path": NAMES, "vector": lists("list", matrix)}), tmp_path / "old.parquet")
    with pytest.raises(DataError, match="give one of --names and --name-column"):
        open_index(tmp_path / "old.parquet", Layout(tmp_path / "names.txt", name_column="path"))


def test_tables_with_gaps(matrix, tmp_path):
    rows = [*matrix.tolist()[:10], None, [1.0], *matrix.tolist()[12:]]
    parquet.write_table(pa.table({"vector": rows, "path": NAMES}), tmp_path / "old.parquet")
    with pytest.raises(DataError, match="have no vector, or one of another width"):
        list(open_index(tmp_path / "old.parquet").blocks())
    parquet.write_table(pa.table({"path": NAMES}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="there are: none"):
        open_index(tmp_path / "none.parquet")


def test_the_error_of_an_unknown_name_is_a_data_error_here():
    assert not issubclass(UnknownNameError, DataError)
