"""`clipq embed --add`: what an existing output lacks, put behind what it holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import DataError, SchemeError
from .options import load_model
from .reading import embedder_of, inputs_of
from .reporting import clear, report_broken


def add_to_file(args: argparse.Namespace) -> int:
    """To a single file, which is written anew with the rows that it has and those that it lacks."""
    from ..embedding import add
    from ..matrices import check_output, read_embeddings, save_embeddings
    from ..same_space import space_of

    space = space_of(args.output)
    inputs = inputs_of(args)
    there = read_embeddings(args.output)
    _check(args, there.about)
    check_output(args.output, (*there.names, *inputs.names))
    missing = inputs.without(there.names)
    if missing.tower == space.tower and not missing.names:
        return _report(args.output, len(there.names), 0, there.about, space.id)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = add(load_model(args), inputs, there, batch_size=args.batch_size, resume=unfinished)
    if found is None:
        return 0
    save_embeddings(found, args.output)
    clear(found.kept)
    _report(args.output, len(there.names), len(found.names) - len(there.names), found.about, space.id)
    return report_broken(found.broken.items(), len(found.names), len(found.broken), args.strict)


def add_to_folder(args: argparse.Namespace) -> int:
    """To a folder of shards, as more of them."""
    from ..embedding import add_into
    from ..matrices import read_manifest
    from ..matrices.folders import read_broken
    from ..same_space import space_of

    space = space_of(args.output)
    there = read_manifest(args.output)
    _check(args, there)
    inputs = inputs_of(args)
    about = add_into(embedder_of(args), inputs, args.output, batch_size=args.batch_size)
    if about is None:
        return 0
    _report(args.output, there["rows"], about["rows"] - there["rows"], about, space.id)
    return report_broken(read_broken(args.output), about["rows"], about["broken"], args.strict)


def _check(args: argparse.Namespace, about: dict[str, Any]) -> None:
    """Raise `ClipqError` for arguments that say something else than what is there."""
    if args.ranges:
        raise SchemeError(
            f"--add takes the ranges of {args.output}, which the rows to come have to fit; leave --ranges."
        )
    kept = about.get("dtype", "float32")
    if args.dtype not in (None, kept):
        raise DataError(f"{args.output} holds {kept} vectors, and --dtype {args.dtype} are others; leave out --dtype.")
    if args.shard_size not in (None, about.get("shard_size")):
        raise DataError(
            f"{args.output} has shards of {about.get('shard_size')} inputs, not of {args.shard_size}; leave out "
            "--shard-size."
            if "shard_size" in about
            else f"{args.output} is a single file, which has no shards; leave out --shard-size."
        )


def _report(output: Path, before: int, added: int, about: dict[str, Any], space: str) -> int:
    what = f"{added} {about['tower']} embeddings" if added else "nothing"
    print(f"{what} added to the {before} in {output} (space {space})")
    return 0
