"""The tables of engines, and the watch over a run: what grew, what differed and what failed is said."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import measure_engines
import pytest
from engine_runs.tables import digest, make_table
from engine_runs.watching import Watch
from pyarrow import parquet
from result_tables import engines

ENVIRONMENT = {"versions": {"torch": "2"}, "processor": "a processor", "threads": 2}


def line(what: str, name: str, **more) -> dict:
    memory = {"main": {"early": 100.0, "late": 100.0}, "worker": {"early": 50.0, "late": 51.0}}
    base = {"what": what, "name": name, "engine": "ray", "workers": 2, "threads": 1, "code": 0, "model": "m"}
    base |= {
        "count": 100,
        "shard_size": 10,
        "side": 64,
        "environment": ENVIRONMENT,
        "memory": memory,
        "same_bytes": True,
    }
    return {**base, "said": {"rows": 99, "bad": 1, "per_second": 5.0}, "steady": 20.0, **more}


def test_tables(tmp_path):
    assert engines.runs_table(tmp_path) == engines.memory_table(tmp_path) == engines.costs_table(tmp_path)
    log = [[60.0 * i, i, 100.0 + i, 50.0] for i in range(100)]
    lines = [
        line("equality", "local", engine="local", workers=1, threads=2, steady=25.0),
        line("equality", "ray", steady=1.0),
        line("equality", "ray", steady=20.0, killed=1),
        line("equality", "daft", same_bytes=False, stopped=[{}], memory={}),
        line("million", "ray", log=log),
        line("costs", "256 x 256", side=256, bytes_in=2_000_000, bytes_out=100_000),
    ]
    (tmp_path / "engines.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    runs = engines.runs_table(tmp_path)
    assert (
        "| ray | 20.0 | 0.80 | 51 | a worker | yes |" in runs
        and "| daft | 20.0 | 0.80 |  | everything, once | NO |" in runs
    )
    memory = engines.memory_table(tmp_path).splitlines()
    assert memory[2] == "| 0.0 | 0 | 100 | 50 |" and memory[11] == "| 99.0 | 990 | 199 | 50 |"
    costs = engines.costs_table(tmp_path)
    assert "| 256 x 256 | 50.00 | 20.0 | 1000 | 1,389, 2.0, 100 | 13,889, 20.0, 1,000 |" in costs


def test_what_is_not_as_it_should_be():
    assert measure_engines.failures(line("equality", "ray"), 10) == []
    grown = {"main": {"early": 100.0, "late": 150.0}, "worker": {"early": 0.0, "late": 99.0}}
    assert "from 100 to 150" in measure_engines.failures(line("million", "ray", memory=grown), 10)[0]
    wrong = line("equality", "ray", same_bytes=False, code=1, error="why")
    assert len(measure_engines.failures(wrong, 10)) == 2


def test_a_table_of_pictures(tmp_path):
    make_table(tmp_path / "in", 300, 16, rows=200)
    table = parquet.read_table(tmp_path / "in")
    assert len(set(table["id"].to_pylist())) == 300 and table["image"][123].as_py() == b"broken"
    make_table(tmp_path / "again", 300, 16, rows=200)
    assert digest(tmp_path / "in") == digest(tmp_path / "again") and len(list((tmp_path / "in").iterdir())) == 2


_SLOW = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "key" / "shards"
folder.mkdir(parents=True, exist_ok=True)
for i in range(10):
    (folder / f"shard-{i}.parquet.json").touch()
    time.sleep(0.15)
print("9 rows, 1 bad rows; 12.5 rows a second; seconds: decoding 1.0, preprocessing 2.0, encoding 3.5")
"""


@pytest.mark.parametrize("stop", [None, 3])
def test_a_run_is_watched(tmp_path, monkeypatch, stop):
    monkeypatch.setattr("engine_runs.watching._EVERY", 0.05)
    watch = Watch(tmp_path, "no such worker", stop_at=stop)
    found = watch.run([sys.executable, "-c", _SLOW, str(tmp_path)])
    made = len([*Path(tmp_path, "key", "shards").iterdir()])
    if stop:
        assert watch.stopped and found["code"] == -signal.SIGKILL and stop <= made < 10 and found["said"] == {}
        return
    spent = {"decoding": 1.0, "preprocessing": 2.0, "encoding": 3.5}
    assert found["code"] == 0 and found["said"] == {"rows": 9, "bad": 1, "per_second": 12.5, "spent": spent}
    assert watch.memory()["main"]["late"] > 1 and 5 < watch.steady(10) < 200 and len(watch.log(5)) <= 5
