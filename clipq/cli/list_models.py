"""`clipq list`: the zoo, or the precisions."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..arithmetic.precisions import ABOUT, PRECISIONS
from . import show

if TYPE_CHECKING:
    from ..zoo.registry import Entry


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "list",
        help="the models of the zoo",
        description="The models that clipq knows by name. Top-1 is the published zero-shot accuracy of the fp32 base "
        "weights on ImageNet-1k, for reference. Any other model of open_clip or transformers can be loaded as well.",
    )
    parser.add_argument("--precisions", action="store_true", help="the precisions instead, each in a line")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.precisions:
        return _print_precisions(args.json)
    from ..zoo.registry import entries

    models = entries()
    if args.json:
        show.as_json([{"name": entry.name, "status": status(entry), **asdict(entry)} for entry in models])
    else:
        show.table(("name", "precisions", "licence", ">fp32 top-1", "in one native call", "status"), map(_row, models))
    return 0


def _print_precisions(as_json: bool) -> int:
    from ..methods.steps import is_calibrated

    if as_json:
        show.as_json([{"name": name, "about": ABOUT[name], **one.to_dict()} for name, one in PRECISIONS.items()])
    else:
        looks = {True: "pictures or texts", False: ""}
        rows = [(name, looks[is_calibrated(one)], ABOUT[name]) for name, one in PRECISIONS.items()]
        show.table(("precision", "looks at", "what it is"), rows)
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    precisions = ", ".join(artefact.precision for artefact in entry.artefacts)
    top1 = "" if entry.top1 is None else f"{entry.top1:.1f} %"
    return entry.name, precisions, entry.licence, top1, towers(entry), status(entry)


def towers(entry: Entry) -> str:
    """What of its int8 towers the native library runs in one call; docs/how-it-works.md has other models."""
    return f"{entry.needs_torch}: the blocks" if entry.needs_torch else "both towers"


def status(entry: Entry) -> str:
    """Where the model comes from when it is loaded."""
    if entry.embedded:
        return "embedded"
    return "published" if any(artefact.published for artefact in entry.artefacts) else "built on first use"
