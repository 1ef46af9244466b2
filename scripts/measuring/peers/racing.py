"""One run: every contestant that can take part, each tower, input and batch size, in turns."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from .contestant import Contestant, Encode, reason_to_skip
from .measuring import Key, attempted, cosine, memory, quietest, single
from .torch_peers import CLIPQ, EAGER
from .trust import WARM_SECONDS, WarmUp, misconfigured, summary, warmed
from .workspace import INPUTS, Workspace

if TYPE_CHECKING:
    import numpy as np

HOPELESS = 1.5
"""A setting whose call takes this many times as long as that of the contestant's best one is not timed further."""

TOO_SLOW, SECONDS = 4.0, 1.0
"""Who needs this many times torch fp32's time for a call, and at least this many seconds, is timed once and left out of
larger batches: the run has to end. clipq never is."""


@dataclass
class Race:
    """The contestants, how they are measured, and what has been found so far.

    `flags` are those contestants' flags that were asked for; `everything` also runs what the processor is not made for.
    `warm_seconds` bound the warm-up of each setting in each cell.
    """

    workspace: Workspace
    contestants: Sequence[Contestant]
    batch_sizes: Sequence[int]
    runs: int
    flags: frozenset[str] = frozenset()
    everything: bool = False
    warm_seconds: float = WARM_SECONDS
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    slow: set[tuple[str, str]] = field(default_factory=set)
    dropped: dict[str, str] = field(default_factory=dict)

    def skipped(self) -> dict[str, str]:
        """Why, for each contestant that does not take part."""
        reasons = {one.name: reason_to_skip(one, self.everything, self.flags) for one in self.contestants}
        return {name: reason for name, reason in reasons.items() if reason}

    def run(self) -> None:
        """Measure everything; `rows`, `failures` and `dropped` hold the outcome."""
        skipped = self.skipped()
        taking_part = [one for one in self.contestants if one.name not in skipped]
        for tower in self.workspace.towers:
            ready = [one for one in taking_part if self._exported(one, tower)]
            for batch in sorted(self.batch_sizes):
                opened = self._opened(ready, tower, batch)
                for kind in INPUTS[tower]:
                    here = {key: encode for key, encode in opened.items() if key[0] not in self.dropped}
                    say(f"{tower}, {kind}, batch {batch}: {', '.join(sorted({name for name, _ in here}))}")
                    self._measure(here, tower, kind, batch)
                    self._drop_misconfigured()
                here.clear()
                opened.clear()
                gc.collect()

    def measure_memory(self) -> None:
        """Each contestant that was measured, in its own fresh process."""
        measured = {row["contestant"] for row in self.rows}
        for one in self.contestants:
            if one.name in measured and not one.compiles:
                say(f"memory: {one.name}")
                found, error = attempted(partial(memory, one, self.workspace))
                if error:
                    self._fail(one.name, "memory", None, None, error)
                else:
                    self.memory[one.name] = found

    def entries(self) -> list[dict[str, Any]]:
        """What is recorded of each contestant: its versions, how it was made, and whether it was measured."""
        skipped, measured = self.skipped(), {row["contestant"] for row in self.rows}
        return [
            {
                "name": one.name,
                "kind": one.kind,
                "versions": one.versions(),
                "about": one.about,
                "status": self._status(one.name, skipped, measured),
                "reason": skipped.get(one.name) or self.dropped.get(one.name) or self._first_failure(one.name),
                "memory": self.memory.get(one.name),
            }
            for one in self.contestants
        ]

    def _status(self, name: str, skipped: Mapping[str, str], measured: set[str]) -> str:
        if name in skipped:
            return "skipped"
        return "dropped" if name in self.dropped else "measured" if name in measured else "failed"

    def _drop_misconfigured(self) -> None:
        """Who is so slow that it must have been set up wrongly is in no cell, with a sentence in its place."""
        for name, reason in misconfigured(self.rows, EAGER.name, [CLIPQ.name]).items():
            say(f"DROPPED {name}: {reason}")
            self.dropped[name] = reason
            self.rows = [row for row in self.rows if row["contestant"] != name]
            self.failures = [failure for failure in self.failures if failure["contestant"] != name]

    def _first_failure(self, name: str) -> str | None:
        return next((failure["error"] for failure in self.failures if failure["contestant"] == name), None)

    def _exported(self, contestant: Contestant, tower: str) -> bool:
        say(f"{tower}: preparing {contestant.name}")
        with quiet():
            _, error = attempted(partial(contestant.export, self.workspace, tower))
        if error:
            self._fail(contestant.name, tower, None, None, error)
        return error is None

    def _opened(self, contestants: Sequence[Contestant], tower: str, batch: int) -> dict[Key, Encode]:
        found: dict[Key, Encode] = {}
        for one in contestants:
            if one.name in self.dropped:
                continue
            if (one.name, tower) in self.slow:
                self._fail(
                    one.name, tower, None, batch, f"left out: over {TOO_SLOW:.0f} times torch fp32's time before"
                )
                continue
            for setting, opened in one.settings(self.workspace, tower, batch).items():
                with quiet():
                    encode, error = attempted(opened)
                if error:
                    self._fail(one.name, tower, None, batch, f"{setting}: {error}")
                else:
                    found[one.name, setting] = encode
        return found

    def _measure(self, opened: Mapping[Key, Encode], tower: str, kind: str, batch: int) -> None:
        inputs = self.workspace.inputs(kind)[:batch]
        where = {"tower": tower, "input": kind, "batch_size": batch}
        outputs: dict[Key, np.ndarray] = {}
        warm: dict[Key, WarmUp] = {}
        for key, encode in opened.items():
            with quiet():
                found, error = attempted(partial(_first_calls, encode, inputs, self.warm_seconds))
            if error:
                self._fail(key[0], tower, kind, batch, f"{key[1]}: {error}")
            else:
                outputs[key], warm[key] = found
        once = {key: found.call_seconds for key, found in warm.items()}
        worth = promising(once)
        slow = {key: [1000 * once[key]] for key in worth if too_slow(key, once)}
        self.slow |= {(name, tower) for name, _ in slow}
        timed = {key: opened[key] for key in worth if key not in slow}
        samples, errors, tries = quietest(timed, inputs, self.runs, once)
        for (name, setting), error in errors.items():
            self._fail(name, tower, kind, batch, f"{setting}: {error}")
        reference = next((output for key, output in outputs.items() if key[0] == EAGER.name), None)
        for row in best_rows({**samples, **slow}, once):
            key = row["contestant"], row["setting"]
            near = None if reference is None else cosine(outputs[key], reference)
            self.rows.append({**where, **row, "cosine": near, "attempts": tries, "warm_up": warm[key].described()})
            say(f"    {row['ms']['median'] / batch:9.2f} ms an item  {row['contestant']}")

    def _fail(self, name: str, tower: str, kind: str | None, batch: int | None, error: str) -> None:
        say(f"FAILED {name} ({tower}): {error}")
        self.failures.append({"contestant": name, "tower": tower, "input": kind, "batch_size": batch, "error": error})


def promising(once: Mapping[Key, float]) -> list[Key]:
    """The settings worth timing: of each contestant its fastest at one call, and those not hopelessly behind it."""
    best: dict[str, float] = {}
    for (name, _), seconds in once.items():
        best[name] = min(seconds, best.get(name, seconds))
    return [key for key, seconds in once.items() if seconds <= HOPELESS * best[key[0]]]


def too_slow(key: Key, once: Mapping[Key, float]) -> bool:
    """Whether one call of it, compared with one of torch fp32, says that the run should not wait for more."""
    eager = min((seconds for (name, _), seconds in once.items() if name == EAGER.name), default=math.inf)
    return key[0] != CLIPQ.name and once[key] > max(TOO_SLOW * eager, SECONDS)


def best_rows(samples: Mapping[Key, list[float]], once: Mapping[Key, float]) -> Iterator[dict[str, Any]]:
    """One row a contestant: its fastest setting by the median; the others beside it."""
    medians = {key: summary(found)["median"] for key, found in samples.items()}
    names = dict.fromkeys(name for name, _ in samples)
    best = {name: min((key for key in samples if key[0] == name), key=medians.__getitem__) for name in names}
    yardstick = medians[best[CLIPQ.name]] if CLIPQ.name in best else None
    for name, key in best.items():
        others = {setting: medians.get((n, setting), 1000 * once[n, setting]) for n, setting in once if n == name}
        del others[key[1]]
        yield {
            "contestant": name,
            "setting": key[1],
            "ms": summary(samples[key]),
            "samples": len(samples[key]),
            "ratio": yardstick and medians[key] / yardstick,
            "other_settings_ms": others,
        }


def _first_calls(encode: Encode, inputs: np.ndarray, limit: float) -> tuple[np.ndarray, WarmUp]:
    """The output of the first call, which packs and compiles, and the calls after it until their time is stable.

    The output is copied: some contestants write every call's into the same memory.
    """
    import numpy as np

    found = np.array(encode(inputs), np.float32)
    if not np.isfinite(found).all():
        raise ValueError("the embeddings are not finite")
    return found, warmed(lambda: single(encode, inputs), limit)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print, warn and log at length about things that nobody who compares them can change."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
