"""Shards by Daft: the bytes of the local run for every dtype, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_jobs import OddJob
from pyarrow import Table, array, parquet, struct

import clipq
from clipq.cli import main
from clipq.embedding import Embedder, ShardedFolder
from clipq.embedding.sharded import embed_with
from clipq.engines.local import Local
from clipq.engines.table import engine_named
from clipq.errors import EngineError, OutputError, SchemeError
from clipq.inputs.listing import Inputs
from clipq.matrices import open_rows, read_embeddings
from clipq.resources import resource
from clipq.work.processes import Processes
from clipq.work.work import Work

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

ROOT = Path(__file__).resolve().parents[2]
COUNT, SIZE = 240, 20
BROKEN = (7, 130)


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    pytest.importorskip("daft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("DAFT_RUNNER", "native")  # `set_runner_native` is refused the second time in a process
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """240 drawings in two parquet files, as Daft and datasets have them; two of them are broken."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = parquet.read_table(resource("eval", "data", "drawings.parquet"), columns=["image"])["image"][:COUNT]
    held = [{"bytes": row["bytes"], "path": None} for row in rows.to_pylist()]
    for row in BROKEN:
        held[row]["bytes"] = b"no picture"
    for number, half in enumerate((held[: COUNT // 2], held[COUNT // 2 :])):
        column = array(half, struct([("bytes", "binary"), ("path", "string")]))
        parquet.write_table(Table.from_arrays([column], names=["image"]), folder / f"{number}.parquet")
    return folder


def made(engine, pictures: Path, folder: Path, dtype: str = "float32", model="clipq-tiny") -> dict[str, bytes]:
    """The files of the output."""
    into = ShardedFolder(folder, SIZE, "parquet")
    embed_with(engine, Embedder(model, batch_size=16, dtype=dtype), pictures, into, progress=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_bytes_are_those_of_the_local_run(pictures, tmp_path):
    local = made(Local(threads=1), pictures, tmp_path / "local", "int8")
    found = made(engine_named("daft", 2, 1), pictures, tmp_path / "daft", "int8")
    assert found == local and len(local) >= 1 + COUNT // SIZE
    rows = open_rows(tmp_path / "daft")
    assert len(rows) == COUNT - len(BROKEN) and rows.dtype == "int8"
    assert len(read_embeddings(tmp_path / "daft").broken) == len(BROKEN)


def test_by_the_command(pictures, tmp_path, capsys):
    for engine in ("local", "daft"):
        given = ["--engine", engine, "--workers", "1", "--threads", "1", "--shard-size", "120", "--dtype", "ubinary"]
        assert main(["embed", "clipq-tiny", str(pictures), "-o", str(tmp_path / engine), *given]) == 0
        said = capsys.readouterr()
        assert f"{COUNT - len(BROKEN)} image embeddings of width 192 in int8, kept as ubinary" in said.out
        assert f"{len(BROKEN)} of {COUNT} inputs could not be read" in said.err
    local, daft = ({one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("local", "daft"))
    assert local == daft


def test_a_killed_command_goes_on_where_it_stopped(pictures, tmp_path):
    given = ["embed", "clipq-tiny", str(pictures), "-o", str(tmp_path / "x"), "--engine", "daft", "--workers", "1"]
    given += ["--threads", "1", "--shard-size", "30"]
    killed = subprocess.Popen([sys.executable, "-m", "clipq", *given], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (finished := [*tmp_path.glob("x.unfinished/*/shards/*.parquet.json")]) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() != 0 and finished
    kept = {one.stem: one.with_suffix("").stat().st_mtime_ns for one in finished}
    assert main(given) == 0
    assert kept == {name: (tmp_path / "x" / name).stat().st_mtime_ns for name in kept}  # not made again
    assert not (tmp_path / "x.unfinished").exists()
    assert main([*given[:4], str(tmp_path / "y"), *given[5:6], "local", *given[7:]]) == 0
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "xy")
    assert one == other


def workers_of_daft() -> list[int]:
    """The processes that Daft started from this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"daft.execution.udf_worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):  # it is no process, or has ended
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_worker_is_replaced_and_the_bytes_are_the_same(pictures, tmp_path):
    local = made(Local(threads=1), pictures, tmp_path / "local")
    killed = []

    def kill() -> None:
        """The worker, once it has finished a shard: Daft (0.7) waits for ever for one that dies before it connects."""
        while not any(tmp_path.glob("daft.unfinished/*/shards/*.json")):
            time.sleep(0.01)
        for worker in workers_of_daft():
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = made(engine_named("daft", 1, 1), pictures, tmp_path / "daft")
    killer.join()
    assert killed and [*found] == [*local] and found == local


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """`answers(kind)`: the entries that two workers of Daft give of six units, one of which goes wrong in that way."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")]))  # of the workers

    def of(kind: str) -> list[int]:
        inputs = Inputs(tmp_path, "text", tuple(map(str, range(60))), "")
        units, advanced = [range(i, i + 10) for i in range(0, 60, 10)], []
        work = Work(None, Processes(), lambda title, total: lambda rows: None)
        job = OddJob(kind, str(tmp_path / "tried"))
        found = [e["start"] for e in engine_named("daft", 2, 1).made(job, inputs, units, work, advanced.append)]
        assert sum(advanced) == 60 and work.spent.rows == 60
        return found

    return of


def test_a_worker_that_dies_twice_is_replaced_twice(answers, tmp_path):
    assert sorted(answers("dies twice")) == [0, 10, 20, 30, 40, 50]
    assert (tmp_path / "tried").read_text() == "xxx"


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("dies", EngineError, r"inputs 31 to 40 \(30 to 39\) died 4 times"),
        ("is full", OutputError, "no room"),
        ("is odd", EngineError, "a worker of Daft failed: KeyError: 'what'"),
    ],
)
def test_what_does_not_help_to_try_again_is_a_typed_error(kind, error, words, answers):
    with pytest.raises(error, match=words):
        answers(kind)


def test_queries_that_end_without_a_word_are_no_endless_loop(answers, monkeypatch):
    monkeypatch.setattr("clipq.engines.daft._Asking.answers", lambda self, units: iter(()))
    with pytest.raises(EngineError, match=r"inputs 1 to 10 \(0 to 9\) died 4 times"):
        answers("fine")


def test_what_cannot_be_is_said_before_the_work(pictures, tmp_path):
    with pytest.raises(SchemeError, match="a model in memory"):
        made(engine_named("daft", 1), pictures, tmp_path / "x", model=clipq.load("clipq-tiny"))
    with pytest.raises(EngineError, match="CPUs"):
        made(engine_named("daft", 1, 10_000), pictures, tmp_path / "y")
