"""Shards by processes of this machine: the same bytes as by one, also where one of them is killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent import futures
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from clipq.cli import main
from clipq.embedding import Embedder, Inputs, ShardedFolder, embed_with
from clipq.embedding.jobs import Made
from clipq.engines import local
from clipq.engines.local import Local
from clipq.engines.table import ENGINES, engine_named
from clipq.errors import EngineError, SchemeError, SpaceError, UnknownNameError
from clipq.matrices import read_embeddings, read_manifest
from clipq.work.processes import Processes
from clipq.work.work import Work

ROWS, BAD = 60, (3, 30, 31, 59)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """60 pictures in a parquet file, four of them broken."""
    pictures, random = [], np.random.default_rng(0)
    for row in range(ROWS):
        file = io.BytesIO()
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((50, 40)).save(file, "JPEG")
        pictures.append(b"broken" if row in BAD else file.getvalue())
    path = tmp_path_factory.mktemp("table") / "in.parquet"
    names = [f"row {row}" for row in range(ROWS)]
    parquet.write_table(pyarrow.table({"image": pictures, "name": names}), path, row_group_size=7)
    return path


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory) -> Path:
    """What one process makes of it."""
    path = tmp_path_factory.mktemp("whole") / "out"
    embed_with(Local(1, 1), Embedder("clipq-tiny"), table, ShardedFolder(path, 5, "parquet"), progress=False)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_one_process(table, whole):
    found, about = read_embeddings(whole), read_manifest(whole)
    assert (about["rows"], about["broken"]) == (ROWS - len(BAD), len(BAD))
    assert (about["encoder"], about["vectors_depend_on"], len(about["space_id"])) == ("clipq.runtime", "row", 16)
    assert found.names == tuple(f"row {row}" for row in range(ROWS) if row not in BAD)
    broken = parquet.read_table(whole / "broken.parquet").to_pydict()
    assert broken["name"] == [f"row {row}" for row in BAD] and "UnidentifiedImageError" in broken["error"][0]
    pictures = parquet.read_table(table)["image"].to_pylist()
    rows = Embedder("clipq-tiny", batch_size=7, threads=2)({"image": pictures})
    good = [row for row in range(ROWS) if row not in BAD]
    np.testing.assert_array_equal(rows["embedding"][good], found.matrix.numpy())


def test_two_processes_one_of_which_is_killed(table, whole, tmp_path):
    into, killed = ShardedFolder(tmp_path / "out", 5, "parquet"), []

    def kill() -> None:
        while not killed:
            if any(into.unfinished.glob("*/shards/*.json")) and (alive := multiprocessing.active_children()):
                os.kill(alive[0].pid, signal.SIGKILL)
                killed.append(alive[0].pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    embed_with(Local(2, 1), Embedder("clipq-tiny"), table, into, progress=False)
    killer.join()
    assert killed and files(into.path) == files(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not multiprocessing.active_children()


class Deadly(Embedder):
    """Its process does not survive it."""

    def batches(self, inputs, spent):
        os._exit(1)


def test_what_no_process_survives_is_an_error_that_names_it(table, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "MOST_DEATHS", 0)
    with pytest.raises(EngineError, match=r"inputs 1 to 30 \(row 0 to row 29\).*memory"):
        embed_with(Local(2, 1), Deadly("clipq-tiny"), table, ShardedFolder(tmp_path / "out", 30), progress=False)
    assert not (tmp_path / "out").exists()


class Elsewhere(Embedder):
    """Another one by the time that a worker has it, as a model is whose file was replaced."""

    def __setstate__(self, state):
        vars(self).update(state, normalize=False)


def test_a_worker_with_another_model_makes_no_rows(table, tmp_path):
    with pytest.raises(SpaceError, match="space [0-9a-f]{16} in this worker.*Give every machine the same file"):
        embed_with(Local(2, 1), Elsewhere("clipq-tiny"), table, ShardedFolder(tmp_path / "out", 30), progress=False)
    assert not (tmp_path / "out").exists()


def test_a_model_in_memory_stays_in_this_process(table, tmp_path):
    import clipq

    embedder = Embedder(clipq.load("clipq-tiny"))
    with pytest.raises(SchemeError, match="save it"):
        embed_with(Local(2, 1), embedder, table, ShardedFolder(tmp_path / "out", 30), progress=False)


def test_engines_by_name():
    assert engine_named("local", 3, 2) == Local(3, 2) and {"local", "ray"} <= set(ENGINES)
    with pytest.raises(UnknownNameError, match="ray"):
        engine_named("rey")


def test_a_missing_package_is_said_with_the_command_before_any_work(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["embed", "no-such-model", str(table), "-o", str(tmp_path / "out"), "--engine", "ray"]) == 1
    assert "pip install 'clipq[ray]'" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_the_command(table, whole, tmp_path, capsys):
    argv = ["embed", "clipq-tiny", str(table), "-o", str(tmp_path / "out"), "--engine", "local", "--threads", "1"]
    assert main([*argv, "--shard-size", "5", "--column", "image"]) == 0
    said, err = capsys.readouterr()
    assert f"{ROWS - len(BAD)} rows, {len(BAD)} bad rows; " in said and " rows a second; seconds: decoding " in said
    assert "left out row 30" in err
    named = Inputs.of(table, column="image")
    assert named.digest == Inputs.of(table).digest
    assert files(tmp_path / "out") == files(whole)
    assert main(["embed", "clipq-tiny", str(table), "-o", str(tmp_path / "x.npy"), "--workers", "2"]) == 1
    assert "--engine" in capsys.readouterr().err


class _Pool:
    """In place of a pool of processes that dies with whoever is given input 10."""

    made, given = 0, 0

    def __init__(self, *_):
        _Pool.made, _Pool.given, self.units = _Pool.made + 1, 0, {}

    def submit(self, make, inputs, unit):
        _Pool.given += 1
        if _Pool.given == 3 and _Pool.made == 1:
            raise BrokenProcessPool
        return _Unit(unit)

    def shutdown(self, **_):
        pass


class _Unit(Future):
    def __init__(self, unit):
        super().__init__()
        self.unit = unit


def _wait(begun, return_when):
    """All that were begun are done, or died together."""
    for one in begun:
        if any(other.unit.start == 10 and other.unit.stop == 20 for other in begun):
            one.set_exception(BrokenProcessPool())
        else:
            one.set_result(Made({"start": one.unit.start}, {}, 10))
    return futures.wait(begun)


def _starts(monkeypatch, units) -> list[int]:
    monkeypatch.setattr(local, "ProcessPoolExecutor", _Pool)
    monkeypatch.setattr(local, "wait", _wait)
    monkeypatch.setattr(_Pool, "made", 0)
    inputs = Inputs(Path(), "text", tuple(map(str, range(60))), "")
    work = Work(None, Processes(), lambda title, total: lambda rows: None)
    return sorted(one["start"] for one in local._Processes(None, inputs, 2).made(units, work, lambda rows: None))


def test_no_unit_is_lost_where_a_process_dies_while_one_is_given(monkeypatch):
    assert _starts(monkeypatch, [range(i, i + 5) for i in range(0, 60, 5)]) == [*range(0, 60, 5)]


def test_the_unit_that_kills_is_the_one_that_is_named(monkeypatch):
    with pytest.raises(EngineError, match=r"inputs 11 to 20 \(10 to 19\) died 4 times"):
        _starts(monkeypatch, [range(i, i + 10) for i in range(0, 60, 10)])
