"""Parquet files and webdataset tars as inputs: local, by pattern, by URL; in any order, from any thread."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from clipq.errors import DataError, SourceError
from clipq.inputs import table_rows
from clipq.inputs.listing import Inputs

COUNT = 500


def content(row: int) -> bytes:
    return f"picture {row} ".encode() * (1 + row % 7)


@pytest.fixture
def folder(tmp_path) -> Path:
    """500 rows in three files, with row groups of several sizes."""
    for part, (start, stop, group) in enumerate(((0, 200, 30), (200, 210, 10), (210, COUNT, 1000))):
        rows = range(start, stop)
        table = pyarrow.table({"id": [f"p{row}" for row in rows], "image": [content(row) for row in rows]})
        parquet.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=group)
    return tmp_path


def test_rows_of_a_folder_a_file_and_a_pattern(folder):
    found = Inputs.of(folder)
    assert found.tower == "image" and list(found.names) == [f"p{row}" for row in range(COUNT)]
    assert [found.entry(row).read() for row in range(COUNT)] == [content(row) for row in range(COUNT)]
    assert Inputs.of(folder / "*.parquet").digest == found.digest
    one = Inputs.of(folder / "part-1.parquet")
    assert list(one.names) == [f"p{row}" for row in range(200, 210)] and one.digest != found.digest


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_any_order_and_from_threads(folder, seed):
    found, rows = Inputs.of(folder), list(range(COUNT))
    random.Random(seed).shuffle(rows)
    rows = rows[:150]
    assert [found.entry(row).read() for row in rows] == [content(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: found.entry(row).read(), range(COUNT))) == [*map(content, range(COUNT))]


def test_going_on_reads_each_row_group_once(folder, monkeypatch):
    begun = []
    begin = table_rows._Stream._begin
    monkeypatch.setattr(table_rows._Stream, "_begin", lambda self, row: (begun.append(row), begin(self, row))[1])
    table_rows._streams.clear()
    found = Inputs.of(folder)
    assert all(found.entry(row).read() for row in range(COUNT))
    assert begun == [0, 0, 0]


def test_a_part_keeps_its_numbers_and_is_small(folder):
    part = pickle.loads(pickle.dumps(Inputs.of(folder).part(range(190, 215))))
    assert [part.name(row) for row in range(190, 215)] == [f"p{row}" for row in range(190, 215)]
    assert [part.entry(row).read() for row in range(190, 215)] == [content(row) for row in range(190, 215)]
    assert len(pickle.dumps(part)) < 200 * 25


def test_columns(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"from a path")
    path = tmp_path / "t.parquet"
    structs = [{"bytes": b"one", "path": "x"}, {"bytes": None, "path": "a.jpg"}, None]
    table = {"photo": structs, "caption": ["a", None, "c"], "where": ["a.jpg", "a.jpg", None], "uid": [7, 8, None]}
    parquet.write_table(pyarrow.table(table), path)
    auto = Inputs.of(path)
    assert auto.tower == "image" and list(auto.names) == ["7", "8", "t.parquet#2"]
    assert auto.entry(0).read() == b"one"
    with pytest.raises(OSError, match="--column"):
        auto.entry(1).read()
    with pytest.raises(OSError, match="no picture"):
        auto.entry(2).read()
    assert Inputs.of(path, column="photo").entry(1).read() == b"from a path"
    paths = Inputs.of(path, column="where", names="caption")
    assert paths.tower == "image" and paths.entry(0).read() == b"from a path" and paths.name(0) == "a"
    texts = Inputs.of(path, column="caption")
    assert texts.tower == "text" and [texts.text(row) for row in range(3)] == ["a", None, "c"]
    for options, words in (({"column": "x"}, "photo"), ({"names": "x"}, "uid")):
        with pytest.raises(DataError, match=words):
            Inputs.of(path, **options)
    with pytest.raises(DataError, match="no table"):
        Inputs.of(tmp_path / "lines.txt", column="x")


def test_what_is_not_clear_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    for columns, words in (
        ({"a": [b"x"], "b": [b"y"]}, "not clear"),
        ({"a": ["x"], "b": ["y"]}, "not clear"),
        ({"where": ["a.jpg"]}, "not clear"),
        ({"n": [1]}, "not clear"),
        ({"image": pyarrow.array([], pyarrow.binary())}, "no rows"),
    ):
        parquet.write_table(pyarrow.table(columns), path)
        with pytest.raises(DataError, match=words):
            Inputs.of(path)
    path.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(SourceError, match="cannot be read as parquet"):
        Inputs.of(path)


def test_files_that_do_not_agree(tmp_path):
    parquet.write_table(pyarrow.table({"image": [b"x"]}), tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="do not agree"):
        Inputs.of(tmp_path)


def test_a_file_that_breaks_while_it_is_read_ends_the_work(folder):
    """No row is to blame, so none may be left out."""
    found = Inputs.of(folder)
    table_rows._streams.clear()
    path = folder / "part-0.parquet"
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + bytes(3000) + raw[3100:])
    with pytest.raises(SourceError, match="part-0"):
        [found.entry(row).read() for row in range(200)]
    path.unlink()
    table_rows._streams.clear()
    with pytest.raises(SourceError, match="part-0"):
        found.entry(0).read()


def test_the_digest_sees_other_rows(folder):
    before = Inputs.of(folder).digest
    table = parquet.read_table(folder / "part-1.parquet")
    changed = table.set_column(1, "image", pyarrow.array([b"other"] + table["image"].to_pylist()[1:]))
    parquet.write_table(changed, folder / "part-1.parquet", row_group_size=10)
    assert Inputs.of(folder).digest != before


def test_tables_and_tars_by_url(folder, tmp_path):
    system = fsspec.filesystem("memory")
    for path in folder.glob("*.parquet"):
        system.pipe_file(f"/tables/{path.name}", path.read_bytes())
    system.pipe_file("/tars/a.tar", _tar({"x/1.jpg": b"one", "x/1.json": b"{}", "2.png": b"two"}))
    found, local = Inputs.of("memory://tables"), Inputs.of(folder)
    assert found.digest == local.digest and list(found.names) == list(local.names)
    assert [found.entry(row).read() for row in range(COUNT)] == [content(row) for row in range(COUNT)]
    tars = Inputs.of("memory://tars/*.tar")
    assert tars.names == ("a.tar/x/1.jpg", "a.tar/2.png")
    assert [tars.entry(row).read() for row in (1, 0, 1)] == [b"two", b"one", b"two"]
    with pytest.raises(DataError, match=r"no \.parquet"):
        Inputs.of("memory://nothing")


def _tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return file.getvalue()


def test_tars_of_a_folder(tmp_path):
    (tmp_path / "b.tar").write_bytes(_tar({"3.webp": b"three", "3.txt": b"text", ".4.jpg": b"hidden"}))
    (tmp_path / "a.tar").write_bytes(_tar({"1.jpg": b"one", "1.cls": b"5", "2.JPG": b"two"}))
    found = Inputs.of(tmp_path)
    assert found.names == ("a.tar/1.jpg", "a.tar/2.JPG", "b.tar/3.webp") and found.tower == "image"
    assert [found.entry(row).read() for row in range(3)] == [b"one", b"two", b"three"]
    with pytest.raises(DataError, match="no table"):
        Inputs.of(tmp_path, column="jpg")
    (tmp_path / "a.tar").write_bytes(b"junk" * 500)
    with pytest.raises(DataError, match="uncompressed tar"):
        Inputs.of(tmp_path)


def test_a_folder_of_pictures_stays_one(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(b"")
    assert Inputs.of(folder).names == ("sub/a.png",)


def test_altered_tables_are_refused_and_nothing_else(tmp_path):
    """Bytes changed anywhere, mostly where the footer is: what is read or refused by name is well."""
    choose, path = random.Random(0), tmp_path / "t.parquet"
    table = pyarrow.table({"image": [b"x" * row for row in range(50)], "id": [f"a{row}" for row in range(50)]})
    parquet.write_table(table, path, row_group_size=10)
    raw, refused = path.read_bytes(), 0
    for _ in range(200):
        changed = bytearray(raw)
        for _ in range(choose.randint(1, 6)):
            changed[choose.randrange(choose.choice([0, len(raw) - 700]), len(raw))] = choose.randrange(256)
        path.write_bytes(changed)
        table_rows._streams.clear()
        try:
            found = Inputs.of(path)
            assert all(found.name(row) and found.entry(row).read() is not None for row in range(len(found.names)))
        except DataError:
            refused += 1
    assert refused > 50
