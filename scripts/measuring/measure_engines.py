"""Do all engines write the same bytes, through kills, in flat memory, and how fast?

    python scripts/measuring/measure_engines.py --part equality --out eval/results/engines.jsonl  # 20,000 pictures
    python scripts/measuring/measure_engines.py --part million --out eval/results/engines.jsonl  # 1,000,000 rows
    python scripts/measuring/measure_engines.py --part costs --out eval/results/engines.jsonl  # for the cost model

equality: a table of little pictures by one process of two threads, by two processes, by Ray's and Daft's workers, by
Ray with a worker killed by its pid, and by Ray with the whole job killed and begun again; then the same table as a data
set of Ray (`clipq.engines.ray.embed`), its rows compared one by one. million: tiny pictures and a tiny model, by Ray,
with a log of memory over time. costs: core-seconds and bytes a picture, by the size of pictures.
A JSON line for each run. It exits with 1 if bytes differ, a run fails, or memory grew by more than --most MB after the
first fifth. On a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine_runs.tables import digest, make_table, stored_bytes
from engine_runs.watching import WORKERS, Watch
from measure_shards import make_model

from clipq.description import described_environment
from clipq.resources import append_line
from clipq.work.processes import Processes

_WAYS: tuple[dict[str, Any], ...] = (
    {"name": "local, 1 process", "engine": "local", "workers": 1, "threads": 2},
    {"name": "local, 2 processes", "engine": "local", "workers": 2, "threads": 1},
    {"name": "ray, 2 workers", "engine": "ray", "workers": 2, "threads": 1},
    {"name": "ray, a worker killed", "engine": "ray", "workers": 2, "threads": 1, "kill": 0.4},
    {"name": "ray, all killed and begun again", "engine": "ray", "workers": 2, "threads": 1, "stop": 0.5},
    {"name": "daft, 2 workers", "engine": "daft", "workers": 2, "threads": 1},
)
_SIDES = (256, 512, 1024, 2048)


def command_of(args: argparse.Namespace, model: str, table: Path, output: Path, way: dict[str, Any]) -> list[str]:
    """`clipq embed` by one engine."""
    command = [sys.executable, "-m", "clipq", "embed", model, str(table), "-o", str(output), "--engine", way["engine"]]
    command += ["--workers", str(way["workers"]), "--threads", str(way["threads"])]
    return [*command, "--shard-size", str(args.shard_size), "--batch-size", str(args.batch_size)]


def one_run(args: argparse.Namespace, model: str, table: Path, output: Path, way: dict[str, Any]) -> dict[str, Any]:
    """A run to its end, begun again where it was stopped; what it was like."""
    shards, command = -(-args.count // args.shard_size), command_of(args, model, table, output, way)
    unfinished, worker = output.with_name(f"{output.name}.unfinished"), WORKERS[way["engine"]]
    runs = []
    if "stop" in way:
        first = Watch(unfinished, worker, stop_at=max(1, int(way["stop"] * shards)))
        runs.append({**first.run(command), "stopped": first.stopped})
    watch = Watch(unfinished, worker, kill_at=max(1, int(way["kill"] * shards)) if "kill" in way else None)
    runs.append(watch.run(command))
    found = {
        **{key: way[key] for key in ("name", "engine", "workers", "threads")},
        **runs[-1],
        "steady": watch.steady(args.shard_size),
        "memory": watch.memory(),
        "log": watch.log(),
        "killed": len(watch.killed),
        "stopped": runs[:-1],
        "bytes_out": stored_bytes(output) if output.is_dir() else 0,
    }
    print(json.dumps({key: value for key, value in found.items() if key != "log"}), flush=True)
    return found


def equality(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Every way to make the same folder; the first says what it has to be."""
    make_table(folder / "in", args.count, args.side)
    expected = None
    for number, way in enumerate(_WAYS):
        if number and not way["engine"].startswith(args.only):
            continue
        output = folder / f"out-{number}"
        found = one_run(args, args.model, folder / "in", output, way)
        made = digest(output) if output.is_dir() else "nothing"
        expected = expected or made
        yield {**found, "same_bytes": made == expected, "bytes_in": stored_bytes(folder / "in")}
    if "ray".startswith(args.only):
        yield dataset(args, folder)


def dataset(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The table as a data set of Ray: each row once, and each the same as that of the first way."""
    import numpy as np
    import ray

    from clipq.embedding import Embedder
    from clipq.engines.ray import embed
    from clipq.matrices import read_embeddings
    from clipq.work.spent import Spent

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    spent, begun = Spent(), time.perf_counter()
    about = embed(str(folder / "in"), Embedder(args.model), folder / "set", rows=args.shard_size, spent=spent)
    seconds = time.perf_counter() - begun
    ray.shutdown()
    found, expected = read_embeddings(folder / "set"), read_embeddings(folder / "out-0")
    order = np.argsort(found.names)
    same = [found.names[row] for row in order] == list(expected.names) and found.broken == expected.broken
    same = same and bool((found.matrix[order] == expected.matrix).all())
    rows = {"rows": about["rows"], "bad": about["broken"], "per_second": round(spent.rows / seconds, 2)}
    return {
        "name": "ray, a data set, 1 worker",
        "engine": "ray data",
        "workers": 1,
        "threads": 1,
        "code": 0,
        "seconds": round(seconds, 1),
        "said": {**rows, "spent": {key: round(value, 1) for key, value in spent.seconds.items()}},
        "same_bytes": same,
    }


def tiny_file(folder: Path) -> str:
    """An int8 file of a model with random weights, as workers get one."""
    import clipq

    return str(clipq.save(clipq.load(make_model(folder / "model")), folder / "tiny.safetensors"))


def million(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """So many rows that anything which grows with them shows."""
    model = args.model if args.given_model else tiny_file(folder)
    make_table(folder / "in", args.count, 32)
    yield one_run(args, model, folder / "in", folder / "out", _WAYS[2])


def costs(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One process of one thread: all of it is seconds of one core."""
    for side in _SIDES:
        table = folder / f"in-{side}"
        make_table(table, args.count, side)
        way = {"name": f"{side} x {side}", "engine": "local", "workers": 1, "threads": 1}
        found = one_run(args, args.model, table, folder / f"out-{side}", way)
        yield {**found, "side": side, "bytes_in": stored_bytes(table)}


_PARTS = {"equality": (equality, 20_000), "million": (million, 1_000_000), "costs": (costs, 2000)}


def failures(found: dict[str, Any], most: float) -> list[str]:
    """What is not as it should be."""
    wrong = [] if found["code"] == 0 else [f"it ended with {found['code']}: {found.get('error')}"]
    if not found.get("same_bytes", True):
        wrong.append("its bytes are others")
    for name, size in found.get("memory", {}).items():
        if size["early"] and size["late"] - size["early"] > most:
            wrong.append(f"the {name} process grew from {size['early']:.0f} to {size['late']:.0f} MB")
    return [f"{found['name']}: {one}" for one in wrong]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--part", choices=_PARTS, required=True)
    add("--model", help="what clipq.load takes (default: clipq-tiny; million: a smaller one with random weights)")
    add("--only", default="", help="of equality, beside the first way those of one engine: local, ray or daft")
    add("--count", type=int, help="rows (default: 20000, 1000000 or 2000)")
    add("--side", type=int, default=64, help="of the pictures of equality, in pixels")
    add("--shard-size", type=int, default=500)
    add("--batch-size", type=int, default=32)
    add("--most", type=float, default=60.0, help="MB that memory may grow after the first fifth")
    add("--out", type=Path)
    args = parser.parse_args()
    args.given_model, args.model = args.model is not None, args.model or "clipq-tiny"
    args.count = args.count or _PARTS[args.part][1]
    return args


def main() -> None:
    """Measure, print, append."""
    args = arguments()
    about = {"what": args.part, "model": args.model, "count": args.count, "shard_size": args.shard_size}
    about |= {"environment": described_environment(Processes()), "side": args.side}
    wrong = []
    with tempfile.TemporaryDirectory(prefix="engines-") as folder:
        for found in _PARTS[args.part][0](args, Path(folder)):
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            wrong += failures(found, args.most)
            if args.out:
                append_line(args.out, json.dumps({**about, "date": now, **found}))
    if wrong:
        sys.exit("not as it should be: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
