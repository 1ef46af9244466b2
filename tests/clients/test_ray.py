"""Ray for real: a cluster of this machine, workers killed by their pid, and the same bytes as without it."""

from __future__ import annotations

import io
import logging
import os
import signal
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import clipq
from clipq.embedding import Embedder, ShardedFolder, embed_with
from clipq.engines.local import Local
from clipq.errors import DataError, EngineError, OutputError, SpaceError
from clipq.matrices import read_embeddings, read_manifest
from clipq.work.spent import Spent

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tests tell nobody
ray = pytest.importorskip("ray", reason="pip install 'clipq[ray]'")
psutil = pytest.importorskip("psutil")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("default"),  # Ray has its own
    pytest.mark.filterwarnings("error::clipq.errors.ClipqWarning"),
]

ROWS, BAD = 600, (5, 77, 78, 599)
TINY = "clipq-tiny"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """600 little pictures in two parquet files, four of them broken."""
    folder, random = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    for start in (0, 400):
        rows = range(start, min(start + 400, ROWS))
        table = {"id": [f"p{row:03d}" for row in rows], "image": [_picture(random, row) for row in rows]}
        parquet.write_table(pyarrow.table(table), folder / f"{start}.parquet", row_group_size=100)
    return folder


def _picture(random: np.random.Generator, row: int) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((40, 32)).save(file, "JPEG")
    return b"broken" if row in BAD else file.getvalue()


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory) -> Path:
    """What this process makes of it."""
    path = tmp_path_factory.mktemp("whole") / "out"
    embed_with(Local(1, 2), Embedder(TINY), table, ShardedFolder(path, 50, "parquet"), progress=False)
    return path


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class _Killer(threading.Thread):
    """Kills one actor, of this process's own cluster, once there is a first result in a folder."""

    def __init__(self, name: str, folder: Path, pattern: str):
        super().__init__(daemon=True)
        self.kind, self.folder, self.pattern, self.killed, self.over = name, folder, pattern, [], False

    def run(self) -> None:
        while not self.killed and not self.over:
            if any(self.folder.glob(self.pattern)):
                found = [one for one in psutil.Process().children(recursive=True) if self._fits(one)]
                for one in found[:1]:
                    os.kill(one.pid, signal.SIGKILL)
                    self.killed.append(one.pid)
            time.sleep(0.01)

    def _fits(self, process) -> bool:
        try:
            return " ".join(process.cmdline()).startswith(f"ray::{self.kind}")
        except psutil.Error:
            return False


def test_the_same_bytes_by_two_workers_one_of_which_is_killed(table, whole, tmp_path):
    from clipq.engines.ray import Ray

    into = ShardedFolder(tmp_path / "out", 50, "parquet")
    killer = _Killer("_Maker", into.unfinished, "*/shards/*.json")
    killer.start()
    spent = Spent()
    embed_with(Ray(2, 1), Embedder(TINY), table, into, progress=False, spent=spent)
    killer.over = True
    killer.join()
    assert killer.killed and _files(into.path) == _files(whole)
    assert spent.rows == ROWS - len(BAD) and {"decode", "preprocess", "encode"} <= set(spent.seconds)


def _same_rows(path: Path, whole: Path) -> None:
    found, expected = read_embeddings(path), read_embeddings(whole)
    order = np.argsort(found.names)
    assert [found.names[row] for row in order] == list(expected.names)  # each of them once
    np.testing.assert_array_equal(found.matrix.numpy()[order], expected.matrix.numpy())
    assert found.broken == expected.broken
    table = parquet.read_table(path / "broken.parquet").to_pydict()
    assert dict(zip(table["name"], table["error"], strict=True)) == expected.broken


def test_a_dataset_stopped_and_begun_again_with_an_actor_killed(table, whole, tmp_path, monkeypatch):
    from clipq.engines import ray_data
    from clipq.engines.ray import embed

    class Stopped(Exception):
        pass

    lines = ray_data._lines

    def few(*given):
        for count, line in enumerate(lines(*given)):
            if count == 3:
                raise Stopped
            yield line

    monkeypatch.setattr(ray_data, "_lines", few)
    with pytest.raises(Stopped):
        embed(str(table), TINY, tmp_path / "out", rows=50)
    assert not (tmp_path / "out" / "manifest.json").exists() and len(_files(tmp_path / "out")) >= 6
    monkeypatch.undo()
    (torn,) = sorted((tmp_path / "out").glob("*.parquet"))[:1]
    torn.write_bytes(torn.read_bytes()[:-100])
    before = set(_files(tmp_path / "out"))
    killer = _Killer("MapWorker", tmp_path / "out", "shard-*.json")
    killer.start()
    spent = Spent()
    about = embed(str(table), TINY, tmp_path / "out", rows=50, spent=spent)
    killer.over = True
    killer.join()
    assert killer.killed and 0 < spent.rows < ROWS
    assert (about["rows"], about["broken"]) == (ROWS - len(BAD), len(BAD)) and about == read_manifest(tmp_path / "out")
    assert before - {f"{torn.name}.json"} - set(_files(tmp_path / "out")) <= {f"{name}.json" for name in before}
    _same_rows(tmp_path / "out", whole)


def test_a_dataset_that_has_grown_and_one_of_another_space(table, whole, tmp_path):
    from clipq.engines.ray import embed

    first = ray.data.read_parquet(str(table / "0.parquet"))
    assert embed(first, TINY, tmp_path / "out", rows=100)["rows"] == 397
    spent = Spent()
    assert embed(ray.data.read_parquet(str(table)), TINY, tmp_path / "out", rows=100, spent=spent)["rows"] == 596
    assert spent.rows == 199
    _same_rows(tmp_path / "out", whole)
    with pytest.raises(SpaceError, match="normalized"):
        embed(first, Embedder(TINY, normalize=False), tmp_path / "out")
    with pytest.raises(DataError, match="another dtype"):
        embed(first, Embedder(TINY, dtype="float16"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("")
    with pytest.raises(OutputError, match="diary"):
        embed(first, TINY, tmp_path / "mine")


def test_columns_for_whatever_ray_writes(table, whole, tmp_path):
    from clipq.engines.ray import embedded

    found = embedded(str(table / "0.parquet"), TINY).drop_columns(["image"])
    found.write_parquet(str(tmp_path / "out"))
    rows = parquet.read_table(tmp_path / "out").sort_by("id").to_pylist()
    assert len(rows) == 400 and [row["id"] for row in rows if row["error"]] == ["p005", "p077", "p078"]
    expected = read_embeddings(whole)
    good = np.array([row["embedding"] for row in rows if row["embedding"] is not None], np.float32)
    np.testing.assert_array_equal(good, expected.matrix.numpy()[:397])
    assert {row["space_id"] for row in rows} == {expected.about["space_id"]}


def test_folders_tars_and_urls(table, tmp_path):
    from clipq.engines.ray import embed

    pictures = parquet.read_table(table / "0.parquet")["image"].to_pylist()[10:16]
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for row, content in enumerate(pictures):
            (tmp_path / "in" / f"{row}.jpg").write_bytes(content)
            member = tarfile.TarInfo(f"{row}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    expected = clipq.runtime.load(TINY, towers="image").encode_image(pictures, normalize=True)
    embed(str(tmp_path / "in"), TINY, tmp_path / "folder")
    embed(f"file://{tmp_path}/x.tar", TINY, f"file://{tmp_path}/tar")
    for name in ("folder", "tar"):
        found = read_embeddings(tmp_path / name)
        order = np.argsort(found.names)
        np.testing.assert_array_equal(found.matrix.numpy()[order], expected)


def test_what_cannot_be_is_said_first(table, tmp_path):
    from clipq.engines.ray import Ray, embed, embedded

    with pytest.raises(EngineError, match="2 threads needs as many CPUs and 1 more"):
        embedded(str(table), TINY, threads=2)
    with pytest.raises(DataError, match="which of them"):
        embedded(ray.data.from_items([{"id": 1}]), TINY)
    with pytest.raises(DataError, match="key='id'"):
        embed(ray.data.from_items([{"image": b"x"}]), TINY, tmp_path / "out")
    with pytest.raises(DataError, match="none of the 2 rows can be embedded"):
        embed(ray.data.from_items([{"image": b"x", "id": row} for row in range(2)]), TINY, tmp_path / "none")
    into = ShardedFolder(tmp_path / "shards", 100)
    for workers in (None, 2):
        with pytest.raises(EngineError, match="this Ray cluster has 2"):
            embed_with(Ray(workers, 3), Embedder(TINY), table, into, progress=False)


def test_texts_by_themselves_and_keys_that_are_not_different(tmp_path, monkeypatch):
    from clipq.engines.ray import embed

    texts = ray.data.from_items([{"text": f"a cat {row}", "id": row % 3} for row in range(4)])
    assert embed(texts, TINY, tmp_path / "texts", key="text")["rows"] == 4
    assert sorted(read_embeddings(tmp_path / "texts").names) == [f"a cat {row}" for row in range(4)]
    with pytest.raises(DataError, match="^2 of 4 rows have the 'id' '0'") as raised:
        embed(texts.repartition(1), TINY, tmp_path / "out", key="id")
    assert type(raised.value) is DataError and "Traceback" not in str(raised.value)
    with pytest.raises(DataError, match="more than one row has the key '0'"):
        embed(texts.repartition(1), TINY, tmp_path / "out", key="id", rows=3)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_workers_take_the_threads_that_ray_gives_them():
    from clipq.machine import granted_cores

    assert granted_cores() is None
    assert ray.get(ray.remote(num_cpus=2)(granted_cores).remote()) == 2
