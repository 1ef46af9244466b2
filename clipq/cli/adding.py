"""`clipq embed --add`: what an existing output lacks, put behind what it holds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError, SchemeError
from ..inputs.places import stamp_of
from ..inputs.scaling import DECODE
from ..work.work import remove_kept
from .options import load_model
from .reading import embedder_of, inputs_of
from .reporting import report_broken

if TYPE_CHECKING:
    from ..spaces.space import Space


def add_to_file(args: argparse.Namespace) -> int:
    """To a single file, which is written anew with the rows that it has and those that it lacks."""
    from ..embedding import add
    from ..matrices import check_output, read_embeddings, save_embeddings
    from ..same_space import space_of

    as_it_was, space = stamp_of(args.output), space_of(args.output)
    there = read_embeddings(args.output)
    _as_there(args, there.about, space)
    inputs = inputs_of(args)
    missing = inputs.without(there.names)
    check_output(args.output, (*there.names, *missing.names))
    if missing.tower == space.tower and not missing.names:
        return _report(args.output, len(there.names), 0, there.about, space.id)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = add(load_model(args), inputs, there, batch_size=args.batch_size, resume=unfinished)
    if found is None:
        return 0
    _refuse_if_changed(args.output, as_it_was)
    save_embeddings(found, args.output)
    remove_kept(found.kept)
    _report(args.output, len(there.names), len(found.names) - len(there.names), found.about, space.id)
    return report_broken(found.broken.items(), len(found.names), len(found.broken), args.strict)


def add_to_folder(args: argparse.Namespace) -> int:
    """To a folder of shards, as more of them."""
    from ..embedding import add_into
    from ..matrices import read_manifest
    from ..matrices.folders import format_of, read_broken
    from ..same_space import space_of

    space = space_of(args.output)
    there = read_manifest(args.output)
    _as_there(args, {**there, "format": format_of(there)}, space)
    inputs = inputs_of(args)
    about = add_into(embedder_of(args), inputs, args.output, batch_size=args.batch_size)
    if about is None:
        return 0
    _report(args.output, there["rows"], about["rows"] - there["rows"], about, space.id)
    return report_broken(read_broken(args.output), about["rows"], about["broken"], args.strict)


def _refuse_if_changed(path: Path, before: object) -> None:
    """Raise `OutputError` if somebody else wrote the file meanwhile, whose rows would be lost."""
    if stamp_of(path) != before:
        raise OutputError(
            f"{path} was changed while this run added to it; what was embedded is kept. Give the same command again."
        )


def _as_there(args: argparse.Namespace, about: Mapping[str, Any], space: Space) -> None:
    """Arguments that were not given are as the output's; raise `SchemeError` for one that says something else."""
    if args.ranges:
        raise SchemeError(f"rows that are added have to fit the ranges of {args.output}; leave out --ranges.")
    if args.engine not in (None, "local") or args.workers not in (None, 1):
        raise SchemeError("--add is done by this process alone, on --threads; leave out --engine and --workers.")
    there = {key: about.get(key) for key in ("normalized", "shard_size", "format")}
    there["dtype"] = about.get("dtype", "float32")
    asked = {"dtype": args.dtype, "normalized": args.normalize, "shard_size": args.shard_size, "format": args.format}
    for name, value in asked.items():
        if value not in (None, there[name]):
            option = "--normalize" if name == "normalized" else f"--{name.replace('_', '-')}"
            raise SchemeError(
                f"{args.output} has {name}={there[name]!r}, and {value!r} was asked for; leave out {option}, or write "
                "another file."
            )
    args.dtype, args.normalize = there["dtype"], there["normalized"]
    args.decode = args.decode or space.components["decode"] or DECODE


def _report(output: Path, before: int, added: int, about: Mapping[str, Any], space: str) -> int:
    what = f"{added} {about['tower']} embeddings" if added else "nothing"
    print(f"{what} added to the {before} in {output} (space {space})")
    return 0
