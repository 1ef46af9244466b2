"""`clipq embed --shard-size` and `--engine`: a folder of numbered files, by one process or many."""

from __future__ import annotations

import argparse
import time

from ..engines.table import engine_named
from .reading import SHARD_SIZE, embedder_of, inputs_of
from .reporting import report_broken, report_ranges, report_rows, report_time


def in_shards(args: argparse.Namespace) -> int:
    """Embed INPUT into a folder of shards by --engine."""
    from ..embedding import ShardedFolder, embed_with
    from ..matrices import read_ranges, read_shards
    from ..matrices.folders import read_broken
    from ..work.spent import Spent

    format = args.format or ("parquet" if args.engine else "safetensors")
    into = ShardedFolder(args.output, args.shard_size or SHARD_SIZE, format)
    into.check(args.force)
    engine = engine_named(args.engine or "local", args.workers, args.threads)
    inputs, ranges = inputs_of(args), read_ranges(args.ranges) if args.ranges else None
    embedder, spent, begun = embedder_of(args), Spent(), time.monotonic()
    about = embed_with(engine, embedder, inputs, into, ranges=ranges, spent=spent)
    if about is None:  # under `accelerate launch`, the main process writes
        return 0
    report_rows(about["rows"], about, f"{args.output} ({len(about['shards'])} shards)")
    report_time(about["rows"], about["broken"], spent, time.monotonic() - begun)
    report_ranges(about, about["rows"], next(read_shards(args.output)).ranges if "ranges" in about else None)
    return report_broken(read_broken(args.output), about["rows"], about["broken"], args.strict)
