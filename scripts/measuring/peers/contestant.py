"""What a contestant is, and why one cannot take part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from clipq.machine import cpu_flags

if TYPE_CHECKING:
    import numpy as np

    from .workspace import Workspace

Encode = Callable[["np.ndarray"], "np.ndarray"]
"""From pixels or token ids to embeddings [batch, width], in the caller's own array type: no conversion is timed."""

Settings = dict[str, Callable[[], Encode]]
"""Ways to run one contestant by name, each opened by a call: a process that measures memory opens only the first."""

Open = Callable[["Workspace", str, int], Settings]


def _nothing(workspace: Workspace, tower: str) -> None:
    return None


def no_obstacle() -> str | None:
    return None


@dataclass(frozen=True)
class Contestant:
    """One way to run the model.

    kind: "fp32", "bf16" or "int8". packages: the distributions it needs. modules: what a process that only runs it
    imports. export(workspace, tower): write the files it runs from. settings(workspace, tower, batch): ways to encode
    batches of that size, by name; the fastest counts. obstacle(): why this processor should not run it. about: how it
    is made, for the result. flag: takes part only if this is asked for. compiles: what its process needs is mostly a
    compiler's memory, so it is not measured.
    """

    name: str
    kind: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    settings: Open
    export: Callable[[Workspace, str], None] = _nothing
    obstacle: Callable[[], str | None] = no_obstacle
    about: str = ""
    flag: str | None = None
    compiles: bool = False

    def versions(self) -> dict[str, str | None]:
        """Installed versions of its packages; None for one that is missing."""
        return {name: _version(name) for name in self.packages}


def reason_to_skip(contestant: Contestant, everything: bool, flags: frozenset[str]) -> str | None:
    """Why it does not take part, or None. `everything` overrules the processor, not a package that is missing."""
    if missing := [name for name, version in contestant.versions().items() if version is None]:
        return f"not installed: {', '.join(missing)}"
    if everything:
        return None
    if contestant.flag and contestant.flag not in flags:
        return f"only with --{contestant.flag}"
    return contestant.obstacle()


def no_native_bf16() -> str | None:
    """bf16 on a processor without bf16 instructions is emulated: slower than fp32, and no peer's recommendation."""
    native = {"avx512_bf16", "amx_bf16", "bf16"}  # "bf16" is Arm's
    return None if native & cpu_flags() else "this processor has no bf16 instructions (--all runs it anyway)"


def no_vnni() -> bool:
    """Whether products of 8-bit numbers saturate in 16 bits here, so that weights must keep to 7 bits."""
    flags = cpu_flags()
    x86 = "avx2" in flags
    return x86 and not flags & {"avx512_vnni", "avx_vnni"}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
