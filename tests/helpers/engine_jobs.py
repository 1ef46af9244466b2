"""Jobs that go wrong, for what engines make of that; small, so that workers are there soon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipq.errors import OutputError
from clipq.inputs.listing import Inputs

AT = 30
"""The first input of the unit that goes wrong."""


@dataclass(frozen=True)
class OddJob:
    """Stands for a `clipq.embedding.jobs.Job` that makes nothing. tried: a file with an "x" for each try of a unit."""

    kind: str
    tried: str

    def with_threads(self, threads: int | None) -> OddJob:
        return self

    def made(self, inputs: Inputs, units: list[range], work: Any, advance: Any) -> Iterator[dict[str, Any]]:
        for unit in units:
            if unit.start == AT:
                self.go_wrong()
            work.spent.done(len(inputs.names))
            yield {"start": unit.start}

    def go_wrong(self) -> None:
        with Path(self.tried).open("a") as file:
            file.write("x")
        tries = len(Path(self.tried).read_text())
        if self.kind == "dies" or (self.kind == "dies twice" and tries < 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "is full":
            raise OutputError("there is no room")
        if self.kind == "is odd":
            raise KeyError("what")
