"""A command watched to its end: the memory of its workers by the time and the shards done, and its kills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

WORKERS = {"local": "multiprocessing.spawn", "ray": "ray::_Maker", "daft": "daft.execution.udf_worker"}
"""What the command lines of an engine's workers have in them."""
_EVERY = 0.5  # seconds
_MB = 1e6


@dataclass
class Watch:
    """Samples of one run: seconds, shards done, MB of the main process and of its largest worker.

    kill_at: shards after which one worker is killed; stop_at: after which the whole command is.
    """

    unfinished: Path
    worker: str
    kill_at: int | None = None
    stop_at: int | None = None
    samples: list[tuple[float, int, float, float]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    stopped: bool = False

    def run(self, command: Sequence[str]) -> dict[str, Any]:
        """What the run was like. Kills only the processes that it started, by their ids."""
        begun = time.perf_counter()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # a full pipe would stop it
            with subprocess.Popen(command, stdout=out, stderr=err) as process:
                main = psutil.Process(process.pid)
                while process.poll() is None:
                    self._look(main, time.perf_counter() - begun)
                    time.sleep(_EVERY)
            return {
                "code": process.returncode,
                "seconds": round(time.perf_counter() - begun, 1),
                "said": self._said(_all_of(out)),
                "error": "" if process.returncode in (0, -signal.SIGKILL) else _all_of(err)[-500:],
            }

    def _look(self, main: psutil.Process, seconds: float) -> None:
        before = self.samples[-1][1] if self.samples else 0  # at the end the folder is put in its place
        done = max(before, len([*self.unfinished.glob("*/shards/shard-*.json")]))
        try:
            family = main.children(recursive=True)
            workers = [one for one in family if self.worker in " ".join(one.cmdline())]
            sizes = [one.memory_info().rss / _MB for one in workers]
            own = main.memory_info().rss / _MB
        except psutil.Error:  # one of them has ended meanwhile
            return
        self.samples.append((round(seconds, 1), done, round(own, 1), round(max(sizes, default=0.0), 1)))
        if self.kill_at is not None and not self.killed and done >= self.kill_at and workers:
            self.killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)
        if self.stop_at is not None and done >= self.stop_at:
            self.stopped = True
            for one in (main, *family):
                with_no_error(one.kill)

    @staticmethod
    def _said(out: str) -> dict[str, Any]:
        """The last line that `clipq embed` says of its time."""
        found = re.search(r"(\d+) rows, (\d+) bad rows; ([\d.]+) rows a second; seconds: (.+)", out)
        if found is None:
            return {}
        seconds = dict(part.rsplit(" ", 1) for part in found[4].split(", "))
        numbers = {what: float(value) for what, value in seconds.items()}
        return {"rows": int(found[1]), "bad": int(found[2]), "per_second": float(found[3]), "spent": numbers}

    def steady(self, shard: int) -> float | None:
        """Rows a second between the first tenth of the shards and the last: without starting and ending."""
        most = max((done for _, done, _, _ in self.samples), default=0)
        inner = [(seconds, done) for seconds, done, _, _ in self.samples if 0.1 * most <= done <= 0.9 * most]
        if len(inner) < 2 or inner[-1][0] == inner[0][0]:
            return None
        return round((inner[-1][1] - inner[0][1]) * shard / (inner[-1][0] - inner[0][0]), 2)

    def memory(self) -> dict[str, Any]:
        """MB of the main process and the largest worker: up to the first fifth of the shards, after it, and at the end,
        when all shards are there and the workers are gone.
        """
        all_of = max((done for _, done, _, _ in self.samples), default=0)
        ways = {
            "early": [s for s in self.samples if s[1] <= all_of / 5],
            "late": [s for s in self.samples if all_of / 5 < s[1] < all_of],
            "end": [s for s in self.samples if s[1] == all_of],
        }
        return {
            name: {when: max((s[place] for s in some), default=0.0) for when, some in ways.items()}
            for name, place in (("main", 2), ("worker", 3))
        }

    def log(self, most: int = 120) -> list[tuple[float, int, float, float]]:
        """At most so many of the samples, evenly spread."""
        step = max(1, -(-len(self.samples) // most))
        return self.samples[::step]


def _all_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def with_no_error(call: Any) -> None:
    try:
        call()
    except psutil.Error:  # it has ended by itself
        return
