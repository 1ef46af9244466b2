"""What becomes of an index of a model's fp32 vectors when a quantized model, or another one, takes over.

    python scripts/measuring/measure_drift.py clipq-tiny --output eval/results/drift-clipq-tiny.jsonl
    python scripts/measuring/measure_drift.py DEIT_CLIP --photos FOLDER --output eval/results/drift-deit-clip.jsonl
    python scripts/measuring/measure_drift.py clipq-tiny --new DEIT_CLIP --precisions int8 --output ...

The index is written by the fp32 model and read back as any OLD index is. The sets are the drawings that ship with clipq
or, with --photos, ImageNet photos in wnid folders; text queries are the names of their classes. All are compared as
they are; then a map is fitted on two thirds, and the last third is compared with and without it. The model with the
map folded in is saved and loaded again. One JSON line for each precision; `make_tables.py` then writes docs/drift.md.

    python scripts/measuring/measure_drift.py --rows 1000000 --output eval/results/drift-rows.jsonl

measures nothing but memory and time: an index of that many random vectors of width 512, on disk, and some queries.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

import clipq
from clipq.alignment import Map, fold
from clipq.alignment.aligning import fitted
from clipq.alignment.pairs import paired, sampled, subset
from clipq.description import described_environment, described_model
from clipq.drifting.measuring import Sample, Texts
from clipq.drifting.verdicts import Known, verdict
from clipq.embedding import Inputs, embed, save_embeddings
from clipq.evaluation import load_task
from clipq.evaluation.data import task_images
from clipq.indexes import open_index
from clipq.resources import append_line
from clipq.retrieval.intervals import mean_interval
from clipq.retrieval.ranks import overlap
from clipq.retrieval.search import in_blocks, nearest
from clipq.work.processes import Processes

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
FOLDED = 60  # pictures that the folded model is compared on
PRECISIONS = ("fp16", "bf16", "int8-weight-only", "int8-best", "int8", "int4")
SETS = {"drawings": ("drawings", "a drawing of {}"), "photos": ("imagenet1k-7", "a photo of a {}")}
"""The task that has the pictures and the names, and what is made of a name."""


def inputs_of(name: str, data: Path | None) -> tuple[Inputs, list[str]]:
    """The pictures of a set, and its text queries."""
    task, template = SETS[name]
    images = task_images(load_task(task), data)
    names = tuple(entry.key for entry in images.entries)
    texts = [template.format(one) for one in dict.fromkeys(images.classes)]
    return Inputs(Path(name), "image", names, images.digest(), images.entries), texts


def lines(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One for each precision."""
    name = "photos" if args.photos else "drawings"
    inputs, texts = inputs_of(name, args.photos)
    old = clipq.load(args.model, "fp32")
    save_embeddings(embed(old, inputs), folder / "old.parquet")
    index, old_texts = open_index(folder / "old.parquet"), old.encode_text(texts, normalize=True)
    for precision in args.precisions.split(","):
        model = clipq.load(args.new or args.model, precision)
        (chosen,) = sampled(index, inputs, (len(index),))
        pairs = paired(model, index, inputs, chosen)
        asked = Texts(model.encode_text(texts), old_texts)
        kept, fitting = parts(len(pairs))
        found = fitted(model, "image", pairs.new[fitting], pairs.old[fitting])
        yield {
            "old": Path(args.model).name,
            "new": Path(args.new or args.model).name,
            "precision": precision,
            "set": name,
            "model": {**described_model(model), "source": None},
            "every": numbers(Sample(index, "image", pairs, asked), None),
            "aligned": numbers(Sample(index, "image", pairs.some(kept), asked), found),
            "grown": grown(pairs.old, pairs.new),
            "folded": refolded(folder, found, model, inputs, pairs.new),
            "environment": described_environment(Processes()),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def parts(count: int) -> tuple[Tensor, Tensor]:
    """A third to be compared, and the other two, that fit the map."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: count // 3].sort().values, order[count // 3 :].sort().values


def numbers(sample: Sample, found: Map | None) -> dict[str, Any]:
    """As a report has them."""
    cosines = {"cosines": sample.cosines(found), "text_cosines": sample.text_cosines(found)}
    cells = tuple(sample.cells(found))
    judged = verdict(cells, Known(tried=found is not None))
    alignment = None if found is None else dict(found.about)
    searches = [cell.to_dict() for cell in cells]
    return {**cosines, "searches": searches, "alignment": alignment, "verdict": judged.to_dict()}


def grown(old: Tensor, new: Tensor) -> list[dict[str, Any]]:
    """overlap@10 of old and of new queries on an index of which a share of the rows, chosen at random, is new."""
    if old.shape[1] != new.shape[1]:
        return []
    own, order = torch.arange(len(old)), torch.randperm(len(old), generator=torch.Generator().manual_seed(0))
    truth, found = nearest(old, in_blocks(old), own), []
    for share in SHARES:
        rows = order[: round(share * len(old))]
        both = normalize(old).index_copy(0, rows, normalize(new)[rows])
        ranked = {name: nearest(one, in_blocks(both), own) for name, one in (("old", old), ("new", new))}
        overlaps = {name: mean_interval(overlap(truth, one, 10)) for name, one in ranked.items()}
        found.append({"share": share, **overlaps})
    return found


def refolded(folder: Path, found: Map, model: clipq.Model, inputs: Inputs, new: Tensor) -> dict[str, Any]:
    """How far what the model gives that has the map in it, saved and loaded, is from what the map makes of `new`."""
    clipq.save(fold(model, found), folder / "aligned.safetensors")
    some = range(0, len(inputs.names), max(1, len(inputs.names) // FOLDED))
    rows = embed(
        clipq.load(folder / "aligned.safetensors", model.precision_name), subset(inputs, some), normalize=False
    )
    mapped = found(new[torch.tensor(some)])
    return {
        "n": len(mapped),
        "largest_difference": float(((rows.matrix - mapped).norm(dim=1) / mapped.norm(dim=1)).max()),
    }


def long_index(rows: int, width: int, folder: Path, queries: int = 2000) -> dict[str, Any]:
    """Memory and time of a search over an index that is far larger than a block."""
    import numpy

    random, header = numpy.random.default_rng(0), {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    with (folder / "long.npy").open("wb") as file:  # not mapped: those pages would count as this process's memory
        numpy.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, 1 << 14):
            file.write(random.standard_normal((min(1 << 14, rows - start), width), numpy.float32).tobytes())
    (folder / "long.npy.names.txt").write_text("".join(f"{i:08d}.jpg\n" for i in range(rows)), encoding="utf-8")
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    index = open_index(folder / "long.npy")
    found = nearest(torch.randn(queries, width), index.blocks())
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(index),
        "width": width,
        "queries": len(found.rows),
        "seconds": round(seconds, 1),
        "index_mb": rows * width * 4 // 10**6,
        "peak_mb_before": before // 1000,
        "peak_mb": after // 1000,
        "environment": described_environment(Processes()),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def shown(line: dict[str, Any]) -> str:
    """A line for whoever waits."""
    if "rows" in line:
        return f"{line['rows']} rows: {line['seconds']} s, {line['peak_mb']} MB (before: {line['peak_mb_before']} MB)"
    asked = {"queries": "new", "index": "old", "scope": "index"}
    cells = [
        cell
        for cell in [*line["every"]["searches"], *line["aligned"]["searches"]]
        if asked.items() <= cell["search"].items()
    ]
    said = "; ".join(
        f"{cell['search']['of']}{' mapped' if cell['search']['aligned'] else ''} {cell['queries']}: "
        + " ".join(f"{one:.4f}" for one in cell["overlap"]["10"])
        for cell in cells
    )
    return f"{line['new']} {line['precision']}, {line['set']}: {said}; {line['aligned']['alignment']['method']}"


def main() -> None:
    """Measure one model and append its lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="clipq-tiny", help="what clipq.load takes: it makes the index")
    parser.add_argument("--new", help="the model that takes over, if it is another one")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="wnid folders of ImageNet photos")
    parser.add_argument("--rows", type=int, help="memory and time over so many rows, and nothing else")
    parser.add_argument("--queries", type=int, default=2000, help="with --rows")
    parser.add_argument("--output", type=Path, help="the .jsonl file to append to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = (
            iter([long_index(args.rows, 512, Path(folder), args.queries)]) if args.rows else lines(args, Path(folder))
        )
        for line in found:
            print(shown(line), flush=True)
            if args.output:
                append_line(args.output, json.dumps(line))


if __name__ == "__main__":
    main()
