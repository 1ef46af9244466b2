"""The processes that share one evaluation: this one alone, or those that `accelerate launch` started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_WORLD_SIZES = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
"""Where launchers say how many processes they started: torch's (and accelerate's), and three MPIs'."""


@dataclass(frozen=True)
class Processes:
    """Which of `count` processes this is. Work is dealt out by index, so no two do the same."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def mine(self, work: Sequence[T]) -> Sequence[T]:
        """This process's share: every `count`-th piece, so that all shares are about equally long."""
        return work[self.index :: self.count]

    def gathered(self, done: list[T]) -> list[T]:
        """The pieces of all processes, in every process."""
        if self.count == 1:
            return done
        from accelerate.utils import gather_object

        return gather_object(done)


def launched(device_type: str) -> Processes:
    """The processes of this run. A run that nothing launched is left as it is: accelerate's state is global."""
    from accelerate import PartialState
    from accelerate.utils import get_int_from_env

    if get_int_from_env(_WORLD_SIZES, 1) <= 1:
        return Processes()

    state = PartialState(cpu=device_type == "cpu")
    return Processes(state.process_index, state.num_processes)
