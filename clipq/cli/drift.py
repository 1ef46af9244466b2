"""`clipq drift`: whether a model can be used with an index that another one made."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..alignment.methods import METHODS
from ..drifting.defaults import SAMPLE
from ..errors import OutputError
from ..inputs.listing import Inputs
from ..inputs.scaling import DECODE, DECODES
from ..resources import check_output_path
from . import show
from .options import MODEL_HELP, add_machine, add_precision, check_model_path, load_model, positive, refuse_to_overwrite

if TYPE_CHECKING:
    from ..drifting import Drift
    from ..drifting.comparing import Cell
    from ..indexes import Index
    from ..models import Model

_SHOWN = 3  # differences of spaces that are named
_PAGES = (".html", ".htm", ".json")


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "drift",
        help="whether a model can be used with an index that another model made",
        description="Embeds a sample of what an index was made of, and says how much of what the old vectors find the "
        "model's own find: on the index as it is, and on one with rows of both. Ends in one line: keep the index, "
        "align the model to it, or embed it again. Nothing is written to the index.",
        epilog="example: clipq drift photos.parquet --model ViT-B-32-int8.safetensors --data photos/ --align",
    )
    help = (
        "what there is: a file or folder of `clipq embed`, a .npy, .parquet or .safetensors matrix, or a faiss "
        "(.faiss, .index) or usearch (.usearch) index"
    )
    parser.add_argument("old", metavar="OLD", type=Path, help=help)
    parser.add_argument("--model", metavar="MODEL", required=True, help=f"the new model: {MODEL_HELP}")
    parser.add_argument("--pretrained", metavar="TAG", help="an open_clip pretrained tag, or a weights file")
    help = "what OLD was made of: the folder of pictures, or the file of texts"
    parser.add_argument("--data", metavar="DATA", type=Path, required=True, help=help)
    _add_texts(parser)
    _add_layout(parser)
    help = "how many are embedded again and compared (default: %(default)s)"
    parser.add_argument("--sample", metavar="N", type=positive, default=SAMPLE, help=help)
    help = "also fit a map to the old space, on twice as many others: %(choices)s (default: the best by held-out pairs)"
    parser.add_argument("--align", nargs="?", const="best", choices=METHODS, metavar="METHOD", help=help)
    help = "write the model with the map folded in: FILE.safetensors, or a folder (with --align)"
    parser.add_argument("--save-aligned", metavar="FILE", type=Path, help=help)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write a page (.html) or all numbers (.json)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    add_precision(parser, towers=True)
    add_machine(parser)
    parser.set_defaults(run=run)


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", metavar="FILE", type=Path, help="text queries, one a line, for an index of pictures")
    help = (
        "the old model's embeddings of these texts, as OLD may be, with the texts as names (in it, or a line each in "
        "FILE.names.txt): what they found before is then known"
    )
    parser.add_argument("--old-texts", metavar="FILE", type=Path, help=help)
    help = "how JPEGs are decoded (default: as OLD says, else exact)"
    parser.add_argument("--decode", choices=DECODES, help=help)


def _add_layout(parser: argparse.ArgumentParser) -> None:
    help = "the names of OLD's rows, where it has none: a name a line, or JSON (default: OLD.names.txt)"
    parser.add_argument("--names", metavar="FILE", type=Path, help=help)
    parser.add_argument("--name-column", metavar="NAME", help="the column of a table that has the names")
    parser.add_argument("--vectors", metavar="NAME", help="the column or tensor that has the vectors")


def run(args: argparse.Namespace) -> int:
    from ..alignment.places import place_of
    from ..drifting.measuring import drift
    from ..drifting.spaces import differences
    from ..indexes import Layout, open_index

    _check(args)
    index = open_index(args.old, Layout(args.names, args.name_column, args.vectors))
    inputs = Inputs.of(args.data, args.decode or _decode(index))
    model = load_model(args)
    if args.save_aligned is not None:
        place_of(model, inputs.tower)  # before minutes of work that could not be saved
    _say_space(args.old, differences(index, model, inputs))
    given = {"texts": args.texts, "old_texts": args.old_texts, "sample": args.sample, "align": args.align or False}
    found = drift(index, model, inputs, **given)
    if args.json:
        show.as_json(found.to_dict())
    else:
        _print(found)
    if found.few_matched:
        show.note(f"clipq: only {found.matched}: is {args.data} what {args.old} was made of?")
    _write(args, found, model, inputs)
    return 0


def _say_space(old: Path, found: list[str] | None) -> None:
    """At once, before minutes of work."""
    if found == []:
        show.note(f"clipq: {old} says that it is of this very space, so nothing can drift; measuring it all the same")
    elif found:
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        show.note(f"clipq: {old} says that it is of another space: {'; '.join(found[:_SHOWN])}{more}")


def _check(args: argparse.Namespace) -> None:
    """What would fail after the work."""
    if args.output is not None:
        if args.output.suffix not in _PAGES:
            raise OutputError(f"cannot write {args.output}: give FILE.html for a page, or FILE.json for all numbers.")
        check_output_path(args.output)
        refuse_to_overwrite(args.output, args.force)
    if args.save_aligned is not None:
        args.align = args.align or "best"
        check_model_path(args.save_aligned)
        refuse_to_overwrite(args.save_aligned, args.force)


def _decode(index: Index) -> str:
    said = index.about.get("decode")
    return said if said in DECODES else DECODE


def _write(args: argparse.Namespace, found: Drift, model: Model, inputs: Inputs) -> None:
    from ..drifting.pages import save_report

    if args.output is not None:
        save_report(found, args.output)
    if args.save_aligned is not None and found.map is not None:
        from ..alignment import fold
        from ..files.saving import save

        if found.map.is_identity:
            show.note(f"clipq: no map is better than none, so {args.save_aligned} is the model as it was")
        save(fold(model, found.map, inputs.tower), args.save_aligned)


def _print(found: Drift) -> None:
    print(f"{found.verdict.sentence}\n{found.matched}\n")
    show.table(("cosine to the old vector", *(f">{name}" for name in _PERCENTILES)), _cosines(found))
    columns = (
        "queries",
        "index",
        ">rows",
        ">overlap@10",
        ">95 % interval",
        ">recall@1",
        ">@10",
        ">@100",
        ">rank overlap",
    )
    show.table(columns, (_row(cell) for cell in found.cells))
    if found.map is not None:
        method = "none is better" if found.map.is_identity else found.map.about["method"]
        print(f"map: {method}, by {found.map.about['pairs']} pairs that are not compared")
    for name, reason in found.data["broken"].items():
        show.note(f"clipq: left out {name}: {reason}")


_HOW = {"before": "without the map", "after": "with the map"}
_PERCENTILES = ("p1", "p5", "p50", "p95", "min")


def _cosines(found: Drift) -> Iterator[Iterable[str]]:
    for of, measured in (("", found.cosines), ("texts, ", found.texts)):
        for when, cosines in measured.items():
            title = f"{of}{_HOW[when]}" if len(measured) > 1 else of or "all"
            yield title.removesuffix(", "), *(f"{cosines[name][0]:.5f}" for name in _PERCENTILES)


def _row(cell: Cell) -> Iterable[str]:
    from ..drifting.words import index_in_words, queries_in_words

    ten = cell.overlap.get(10)
    recalls = (cell.recall.get(at) for at in (1, 10, 100))
    return (
        queries_in_words(cell.search),
        index_in_words(cell.search),
        f"{cell.rows:,}",
        "" if ten is None else f"{ten[0]:.4f}",
        "" if ten is None else f"{ten[1]:.4f} to {ten[2]:.4f}",
        *("" if one is None else f"{one[0]:.4f}" for one in recalls),
        f"{cell.rank_overlap[0]:.4f}",
    )
