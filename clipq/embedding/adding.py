"""What an output lacks of a source: embedded, and put behind what is there, in the same space or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..description import check_model
from ..errors import OutputError
from ..inputs.listing import Inputs
from ..inputs.scaling import DECODE
from ..matrices.broken import save_broken
from ..matrices.embeddings import Embeddings
from ..matrices.files import read_file
from ..matrices.folders import MANIFEST, ShardedFolder, extend, format_of, of_manifest, read_manifest, read_shards
from ..resources import check_output_folder, output_path
from ..same_space import space_of
from ..spaces.space import Space, check_equal
from ..vectors.ranges import Ranges
from ..work.processes import launched
from ..work.work import remove_kept, working
from .embedder import Embedder
from .jobs import InThisProcess, Job
from .rows import check_tower, encoded, joined, row_identity
from .sharded import entries_of

if TYPE_CHECKING:
    from ..models import Model


def add(
    model: Model,
    source: str | os.PathLike[str] | Inputs,
    to: Embeddings,
    *,
    batch_size: int = 32,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Embeddings | None:
    """`to`, and behind its rows, which stay as they are, one for each input of `source` that it lacks, by name.

    The rows are made as those of `to` were: dtype, ranges, length; inputs that could not be read are tried again. A
    file that was changed and kept its name is not seen. source, resume, progress and what is returned: as `embed`.
    Raises `SpaceError`, naming what differs, if the model's vectors would lie in another space, or `to` knows none; and
    what `embed` does.
    """
    space = space_of(to)
    inputs = source if isinstance(source, Inputs) else Inputs.of(source, space.components["decode"] or DECODE)
    _check(model, inputs, space)
    missing = inputs.without(to.names)
    if not missing.names:
        return to
    processes, normalize = launched(model.device.type), space.components["normalized"]
    with working(resume, processes, progress) as work:
        shards, folder = encoded(model, missing, batch_size, normalize, work)
    if not processes.is_main:
        return None
    found = joined(missing, shards, to.about, to.dtype, to.ranges, partial(Embedder(model).nothing, missing.tower))
    return replace(_behind(to, found), kept=folder)


def _behind(to: Embeddings, found: Embeddings) -> Embeddings:
    import torch

    new = set(map(str.strip, found.names))
    still = {name: why for name, why in to.broken.items() if name not in new}
    outside = {key: to.about[key] + found.about[key] for key in ("saturated",) if key in to.about}
    matrix = torch.cat([to.matrix, found.matrix])
    return replace(
        to, names=to.names + found.names, matrix=matrix, broken=still | found.broken, about={**to.about, **outside}
    )


def _check(model: Model, inputs: Inputs, space: Space) -> None:
    """Raise `SpaceError` unless the rows to come would lie in `space`."""
    check_model(model, needs_text=inputs.tower == "text")
    check_tower(model, inputs.tower, inputs.source)
    own = space_of(model, inputs.tower, decode=inputs.decode, normalized=space.components["normalized"])
    check_equal(space, own, ("the output", "the model"))


def add_into(
    model: Model | Embedder,
    source: str | os.PathLike[str] | Inputs,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    progress: bool | None = None,
) -> dict[str, Any] | None:
    """As `add`, to the folder of shards at `path`: new shards behind those that are there, which nobody touches.

    Until the new manifest takes the place of the old one, readers see the folder as it was. What is finished stands
    beside it as for `embed_into`, and the same call after a kill goes on there. Returns what the manifest says, `None`
    in other processes than the main one. model: an `Embedder` loads it by name, and may do without torch's towers.
    """
    there = _There.read(Path(path))
    embedder = there.embedder(model, batch_size)
    model = embedder.whole
    inputs = source if isinstance(source, Inputs) else Inputs.of(source, there.space.components["decode"] or DECODE)
    _check(model, inputs, there.space)
    normalize, processes = there.space.components["normalized"], launched(model.device.type)
    if processes.is_main:
        there.settle()
    missing = inputs.without(there.names)
    if not missing.names:
        return there.manifest
    check_output_folder(there.into.unfinished)
    key = {**row_identity(model, missing, batch_size, normalize), **embedder.described(missing.tower)}
    key["added to"] = there.key()
    with working(there.into.unfinished, processes, progress) as work:
        own = work.within(key)
        entries = list(entries_of(InThisProcess(), there.job(embedder, missing.tower, own.folder), missing, own))
        entries = sorted(processes.gathered(entries), key=lambda entry: entry["start"])
    return there.finished(entries, own.folder) if processes.is_main else None


@dataclass(frozen=True)
class _There:
    """A folder of shards, with all that has to be known of it before something is added."""

    into: ShardedFolder
    manifest: dict[str, Any]
    space: Space
    names: frozenset[str]
    broken: Mapping[str, str]
    ranges: Ranges | None

    @classmethod
    def read(cls, path: Path) -> _There:
        manifest = read_manifest(path)
        space, names, broken, ranges = space_of(path), set(), {}, None
        for shard in read_shards(path):  # all are read: what is added to is whole
            names.update(shard.names)
            broken |= shard.broken
            ranges = shard.ranges
        into = ShardedFolder(path, manifest["shard_size"], format_of(manifest))
        return cls(into, manifest, space, frozenset(names), broken, ranges)

    def key(self) -> str:
        """sha256 of the last shard: another add has been here if that is another."""
        return self.manifest["shards"][-1]["sha256"]

    def embedder(self, model: Model | Embedder, batch_size: int) -> Embedder:
        """What makes rows as those were made that are there."""
        made_as = {
            "batch_size": batch_size,
            "normalize": self.space.components["normalized"],
            "dtype": self.manifest["dtype"],
            "ranges": self.ranges,
        }
        return replace(model, **made_as) if isinstance(model, Embedder) else Embedder(model, **made_as)

    def job(self, embedder: Embedder, tower: str, folder: Path) -> Job:
        last = self.manifest["shards"][-1]
        places = len(self.manifest["shards"]), last["start"] + last["rows"] + last["broken"]
        about = {k: v for k, v in of_manifest(self.manifest).items() if k not in ("shard_size", "saturated")}
        about |= embedder.described(tower)
        return Job(embedder, self.into, folder / "shards", about, self.ranges, *places)

    def finished(self, entries: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        """Copy the new shards in, and put the new manifest in place of the old one; then all is as it will be.

        Where nothing came of it but what the manifest says already (inputs that are broken still), it stays as it is.
        """
        with _alone(self.into.path):
            return self._finished(entries, folder)

    def _finished(self, entries: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        if read_manifest(self.into.path) != self.manifest:
            raise OutputError(
                f"{self.into.path} was changed while this run added to it. Give the same command again, "
                "which adds what is still lacking."
            )
        broken = (name for entry in entries for name in read_file(folder / "shards" / entry["file"]).broken)
        if not any(entry["rows"] for entry in entries) and all(name in self.broken for name in broken):
            remove_kept(folder)
            return self.manifest
        for entry in entries:
            with output_path(self.into.path / entry["file"]) as temporary:
                shutil.copyfile(folder / "shards" / entry["file"], temporary)
        whole = extend(self.into.path, entries)
        save_broken(self.into.path)
        remove_kept(folder)
        return whole

    def settle(self) -> None:
        """What is left to do of an add that was killed when the manifest had what it added."""
        before = {entry["sha256"] for entry in self.manifest["shards"]} - {self.key()}
        for identity in self.into.unfinished.glob("*/identity.json"):
            with suppress(FileNotFoundError, ValueError):  # of a run that ends now, or of nobody
                if json.loads(identity.read_text(encoding="utf-8")).get("added to") in before:
                    save_broken(self.into.path)
                    remove_kept(identity.parent)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raise `OutputError` while another process puts its shards into `folder`; the lock of one that is killed ends."""
    try:
        import fcntl
    except ImportError:  # Windows: there the last one to come sees another manifest, or wins
        yield
        return
    path = folder / MANIFEST
    with path.open("rb+" if os.access(path, os.W_OK) else "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another run adds to {folder} at this moment; what was embedded is kept. Give the same command again."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
