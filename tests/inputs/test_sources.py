"""Where inputs lie: paths and URLs that workers elsewhere read too, and sources that fail while they are read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow
import pytest
from picture_helpers import encoded, picture, write_tar
from pyarrow import parquet

from clipq.inputs.listing import Inputs

PNG = encoded(picture((200, 0, 0), 1))


def _sources(folder: Path) -> None:
    (folder / "photos" / "sub").mkdir(parents=True)
    (folder / "photos" / "sub" / "a.png").write_bytes(PNG)
    parquet.write_table(pyarrow.table({"image": [PNG], "where": ["photos/sub/a.png"]}), folder / "t.parquet")
    (folder / "tars").mkdir()
    write_tar(folder / "tars" / "x.tar", [("a.png", PNG)])


@pytest.mark.parametrize(
    ("source", "name", "options"),
    [
        ("photos", "sub/a.png", {}),
        ("t.parquet", "t.parquet#0", {}),
        ("*.parquet", "t.parquet#0", {"column": "where"}),
        ("tars", "x.tar/a.png", {}),
    ],
)
def test_relative_sources_are_read_from_another_working_folder(tmp_path, monkeypatch, source, name, options):
    _sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    found, whole = Inputs.of(source, **options), Inputs.of(tmp_path / source, **options)
    assert list(found.names) == [name] == list(whole.names)
    assert found.digest == whole.digest and str(found.source) == source
    sent = pickle.dumps(found.part(range(1)))
    monkeypatch.chdir("/")
    assert pickle.loads(sent).entry(0).read() == PNG == found.entry(0).read()


def test_more_tables_than_files_may_be_open(tmp_path):
    resource = pytest.importorskip("resource")
    for part in range(80):
        parquet.write_table(
            pyarrow.table({"text": [f"text {part}"], "id": [f"id {part}"]}), tmp_path / f"{part}.parquet"
        )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        found = Inputs.of(tmp_path)
        assert sorted(found.text(row) for row in range(80)) == sorted(f"text {part}" for part in range(80))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
