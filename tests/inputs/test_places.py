"""Where inputs lie: paths and URLs that workers elsewhere read too, and sources that fail while they are read."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pytest
from picture_helpers import encoded, picture, write_tar
from pyarrow import parquet

from clipq.embedding.rows import picture_reader
from clipq.errors import DataError, MissingPackageError, SourceError
from clipq.inputs.listing import Inputs
from clipq.work.spent import Spent

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


def test_what_is_said_of_a_picture_has_no_other_folders_in_it(tmp_path, monkeypatch):
    _sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    found, opened = Inputs.of("photos"), os.open

    def refuse(path, *args):
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    assert read(found) == "PermissionError: [Errno 13] Permission denied: 'photos/sub/a.png'"


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


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder in parts, as object stores give them; all of them 503 while `failing`."""

    failing = False

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        self.answer(200, content, len(content), body=False)

    def do_GET(self):
        if Handler.failing:
            self.send_error(503)
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        if asked := self.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            self.answer(206, content[int(start) : int(end or len(content)) + 1], len(content), int(start))
        else:
            self.answer(200, content, len(content))

    def answer(self, status, content, total, start=0, body=True):
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{total}")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """The URL of `tmp_path`."""
    pytest.importorskip("aiohttp")
    own = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    threading.Thread(target=own.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{own.server_port}"
    Handler.failing = False
    own.shutdown()
    own.server_close()


class Plain:
    preprocess = staticmethod(len)


def read(found: Inputs, row: int = 0) -> object:
    return picture_reader(lambda row: found.entry(row).read(), Plain(), Spent())(row)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:600])])
def test_a_tar_that_fails_is_no_pictures_fault(tmp_path, harm):
    path = write_tar(tmp_path / "x.tar", [("a.png", PNG), ("b.png", PNG)])
    found, content = Inputs.of(path), path.read_bytes()
    harm(path)
    with pytest.raises(SourceError, match=r"x\.tar cannot be read.*same command"):
        read(found)
    path.write_bytes(content)
    assert read(found) == len(PNG)


def test_a_server_that_fails_is_no_pictures_fault(server, tmp_path):
    write_tar(tmp_path / "x.tar", [("a.png", PNG), ("b.png", PNG)])
    found = Inputs.of(f"{server}/x.tar")
    Handler.failing = True
    with pytest.raises(SourceError, match=r"x\.tar cannot be read.*503"):
        read(found)
    Handler.failing = False
    assert read(found) == len(PNG) == read(found, 1)


@pytest.mark.parametrize("error", [MissingPackageError, MemoryError, SourceError])
def test_what_no_picture_is_to_blame_for_is_raised(error):
    def failing(row: int) -> None:
        raise error("what")

    with pytest.raises(error):
        picture_reader(failing, Plain(), Spent())(0)


def test_a_table_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "t.parquet"
    for words in ("old", "new"):
        parquet.write_table(pyarrow.table({"text": [f"{words} {row}" for row in range(9)]}), path)
        found = Inputs.of(path)
        assert [found.text(row) for row in range(9)] == [f"{words} {row}" for row in range(9)]
        path.unlink()
    with pytest.raises(SourceError, match="t.parquet cannot be read"):
        found.text(0)


def test_a_remote_tar_that_was_written_anew_is_read_anew(server, tmp_path):
    for seed in (1, 2):
        content = encoded(picture((200, 0, 0), seed))
        write_tar(tmp_path / "x.tar", [("a.png", content)])
        assert Inputs.of(f"{server}/x.tar").entry(0).read() == content


def test_a_signature_of_a_url_is_no_part_of_names(server, tmp_path):
    _sources(tmp_path)
    for path, name in (("t.parquet", "t.parquet#0"), ("tars/x.tar", "x.tar/a.png")):
        found, plain = Inputs.of(f"{server}/{path}?sig=SECRET/*"), Inputs.of(f"{server}/{path}")
        assert list(found.names) == [name] and found.digest == plain.digest
        assert found.entry(0).read() == PNG
    followed = Inputs.of(f"{server}/t.parquet?sig=a/b", column="where")
    assert followed.entry(0).read() == PNG


def test_what_is_there_is_no_pattern(tmp_path):
    (tmp_path / "a*b").mkdir()
    (tmp_path / "a*b" / "x.png").write_bytes(PNG)
    (tmp_path / "c*.txt").write_text("a cat\n")
    assert Inputs.of(tmp_path / "a*b").names == ("x.png",) and Inputs.of(tmp_path / "c*.txt").names == ("a cat",)
    with pytest.raises(DataError, match="correct the URL or the pattern"):
        Inputs.of(tmp_path / "d*")
