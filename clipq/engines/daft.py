"""Daft: shards by processes that it starts, or by actors of Ray where Daft itself runs there.

Its expressions, which need Daft to be imported, are imported on first use: `ClipqProvider` and `embedded`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..embedding.jobs import Advance, Job, Made, make
from ..errors import ClipqError, EngineError, first_line
from ..exports.packages import package
from ..inputs.listing import Inputs
from ..lazy import lazily
from ..machine import cores
from ..work.work import Work
from .failures import MOST_DEATHS, check_counts, check_told, died, told

if TYPE_CHECKING:
    from .daft_provider import ClipqProvider, embedded

__all__ = ["ClipqProvider", "Daft", "embedded"]

__getattr__, __dir__ = lazily(__name__, {"ClipqProvider": "..daft_provider", "embedded": "..daft_provider"})


@dataclass(frozen=True)
class Daft:
    """Daft's own workers, by the runner that the caller has chosen (`daft.set_runner_ray`), else on this machine.

    workers: processes, or actors; None: as many as the machine's cores allow. threads: of each (default: 1).
    """

    workers: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_counts(workers=self.workers, threads=self.threads)

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        """As `Engine.made`. A dead worker ends a query of Daft; what it had not made is asked for again.

        A query that ends without an answer, and without an error, counts as one that a death has ended.
        """
        daft = package("daft", "daft", "the engine daft")
        threads = self.threads or 1
        workers = min(self.workers or max(1, cores() // threads), len(units))
        asking = _Asking(daft, job.with_threads(threads), inputs, workers, threads)
        left, deaths = {unit.start: unit for unit in units}, 0
        while left:
            before = len(left)
            for made in asking.answers(list(left.values())):
                deaths = 0
                yield made.taken(left.pop(made.entry["start"]), work, advance)
            if asking.death is not None or len(left) == before:
                deaths += 1
            if deaths > MOST_DEATHS:
                raise died(inputs, next(iter(left.values()))) from asking.death


class _Asking:
    """Queries for the shards of units; `death`: what ended the last one early."""

    def __init__(self, daft: Any, job: Job, inputs: Inputs, workers: int, threads: int):
        self.daft, self.job, self.inputs = daft, job, inputs
        self.workers, self.threads = workers, threads
        self.death: Exception | None = None

    def answers(self, units: Sequence[range]) -> Iterator[Made]:
        """Each as soon as Daft gives it, until all are there or a worker died."""
        self.death, rows = None, iter(self._query(units).iter_rows(results_buffer_size=None))
        while True:
            try:
                said = next(rows, None)
            except (RuntimeError, OSError, EOFError) as error:  # "UDF process closed the connection", a broken pipe
                self.death = error
                return
            except self.daft.exceptions.DaftCoreException as error:
                raise EngineError(f"Daft refuses the job: {first_line(error)}") from error
            if said is None:
                return
            yield _understood(said["made"])

    def _query(self, units: Sequence[range]) -> Any:
        """A table of the units, and what the workers say of each; the inputs are sent to a worker once."""
        daft = self.daft
        daft.method.batch(method=_Maker.make, return_dtype=daft.DataType.string(), batch_size=1)
        kind = daft.cls(_Maker, cpus=float(self.threads), max_concurrency=self.workers, use_process=True, max_retries=0)
        table = daft.from_pydict({"start": [unit.start for unit in units], "stop": [unit.stop for unit in units]})
        try:
            return table.select(kind(self.job, self.inputs).make(table["start"], table["stop"]).alias("made"))
        except ValueError as error:  # Daft's, of what cannot be sent to a worker
            raise (error.__cause__ if isinstance(error.__cause__, ClipqError) else error) from None


class _Maker:
    """In a worker of Daft."""

    def __init__(self, job: Job, inputs: Inputs):
        self.job, self.inputs = job, inputs

    def make(self, starts: Any, stops: Any) -> list[str]:
        """JSON of each unit: a `Made`, or the error, which Daft would not bring back as it is."""
        return [self._made(range(*unit)) for unit in zip(starts.to_pylist(), stops.to_pylist(), strict=True)]

    def _made(self, unit: range) -> str:
        try:
            return json.dumps(vars(make(self.job, self.inputs.part(unit), unit)))
        except Exception as error:
            return json.dumps(told(error, "Daft"))


def _understood(said: str) -> Made:
    """What a worker said of a unit. Raises the error it met."""
    found = json.loads(said)
    check_told(found)
    return Made(**found)
