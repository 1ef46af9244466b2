"""What is lost by keeping a model's embeddings as float16, int8 or bits: recall@10 against exact float32 search.

    python scripts/measuring/measure_vectors.py clipq-tiny --photos FOLDER --output eval/results/vectors-NAME.jsonl

The sets are the drawings that ship with clipq and, with --photos, ImageNet photos in wnid folders. Every picture is a
query against the others, and every class name against all pictures. The ranges are clipq's own and, second, those of
the set that is searched. One JSON line for each set and kind of query; `make_tables.py` then writes
docs/use-it-with.md.

--offset adds a vector of that length to every picture (and half of it, negative, to texts) before all else: along one
dimension, or with --spread in a random direction. That is what the common direction of larger CLIPs does, which these
small models hardly have. Such lines are no part of the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

import clipq
from clipq.description import described_environment, described_model
from clipq.evaluation import load_task
from clipq.evaluation.data import task_images
from clipq.inputs.images import decode
from clipq.resources import append_line
from clipq.vectors import Ranges, default_ranges, quantize, queries, ranges_of, rescore
from clipq.vectors.defaults import default_embeddings
from clipq.work.processes import Processes

K = 10
SETS = {"drawings": ("drawings", "a drawing of {}"), "photos": ("imagenet1k-7", "a photo of a {}")}
"""The task that has the pictures and the names, and what is made of a name."""


@dataclass(frozen=True)
class Search:
    """Rows to find, what to find them with, and the ranges of both. alike: the queries are the rows."""

    rows: Tensor
    asked: Tensor
    ranges: Ranges
    asked_ranges: Ranges
    alike: bool

    def nearest(self, scores: Tensor, k: int = K) -> Tensor:
        """[queries, k] the rows of the highest scores; of equals the first, and never the query itself."""
        scores = scores.double()
        if self.alike:
            scores.fill_diagonal_(-torch.inf)
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]

    def exact(self) -> Tensor:
        return self.nearest(self.asked.double() @ self.rows.double().T)

    def as_they_are(self, dtype: str, k: int = K) -> Tensor:
        """Queries are kept as the rows are, and multiplied with them."""
        rows, _ = quantize(self.rows, dtype, self.ranges)
        asked, _ = quantize(self.asked, dtype, self.asked_ranges)
        if dtype == "ubinary":
            rows, asked = signs(rows), signs(asked)
        return self.nearest(asked.double() @ rows.double().T, k)

    def by_queries(self, dtype: str) -> Tensor:
        rows, _ = quantize(self.rows, dtype, self.ranges)
        return self.nearest(queries(self.asked, dtype, self.ranges).double() @ rows.double().T)

    def not_centred(self) -> Search:
        """The same search by bits around zero."""
        around = [replace(one, mean=torch.zeros_like(one.mean)) for one in (self.ranges, self.asked_ranges)]
        return replace(self, ranges=around[0], asked_ranges=around[1])

    def rescored(self, dtype: str, candidates: int, by: str) -> Tensor:
        """The first `candidates` by `dtype`, sorted anew by float32 queries and the rows kept as `by`."""
        found = self.as_they_are(dtype, candidates)
        kept, _ = quantize(self.rows, by, self.ranges)
        best = rescore(self.asked, found, kept, K, dtype=by, ranges=self.ranges, unit=by != "float32")
        return torch.from_numpy(best.rows)


WAYS: dict[str, tuple[str, Callable[[Search], Tensor]]] = {
    "float16": ("float16", lambda search: search.as_they_are("float16")),
    "int8": ("int8", lambda search: search.as_they_are("int8")),
    "int8, 40 rescored by float32 queries": ("int8", lambda search: search.rescored("int8", 40, "int8")),
    "int8, 40 rescored by float32": ("int8", lambda search: search.rescored("int8", 40, "float32")),
    "int8-per-dimension, compared as they are": (
        "int8-per-dimension",
        lambda search: search.as_they_are("int8-per-dimension"),
    ),
    "int8-per-dimension, `queries`": ("int8-per-dimension", lambda search: search.by_queries("int8-per-dimension")),
    "ubinary": ("ubinary", lambda search: search.as_they_are("ubinary")),
    "ubinary around zero instead of the mean": ("ubinary", lambda search: search.not_centred().as_they_are("ubinary")),
    "ubinary, 100 rescored by int8": ("ubinary", lambda search: search.rescored("ubinary", 100, "int8")),
    "ubinary, 100 rescored by float32": ("ubinary", lambda search: search.rescored("ubinary", 100, "float32")),
    "ubinary, 400 rescored by int8": ("ubinary", lambda search: search.rescored("ubinary", 400, "int8")),
}
"""How a set is kept and searched."""


def signs(codes: Tensor) -> Tensor:
    """[n, D / 8] packed bits as [n, D] of -1 and 1: their product falls as the Hamming distance rises."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)
    return ((codes[:, :, None] >> shifts) & 1).flatten(1).float() * 2 - 1


def recall(found: Tensor, wanted: Tensor) -> float:
    """The mean share of the `wanted` [n, k] that are among the `found`."""
    return (wanted[:, :, None] == found[:, None, :]).any(dim=-1).double().mean().item()


def embedded(model: clipq.Model, name: str, data: Path | None) -> tuple[Tensor, Tensor]:
    """The pictures of a set, and its class names."""
    task, template = SETS[name]
    images = task_images(load_task(task), data)
    entries = [images.entries[i : i + 32] for i in range(0, len(images), 32)]
    pixels = (torch.stack([model.preprocess(decode(entry)) for entry in some]) for some in entries)
    pictures = torch.cat([model.encode_image(batch, normalize=True) for batch in pixels])
    return pictures, model.encode_text([template.format(one) for one in images.classes], normalize=True)


@dataclass(frozen=True)
class Shift:
    """A vector that is added to every row of a tower, which is of unit length again after it."""

    offset: float
    spread: bool

    def __call__(self, matrix: Tensor, tower: str) -> Tensor:
        if not self.offset:
            return matrix
        width, made = matrix.shape[1], torch.Generator().manual_seed(0)
        direction = torch.randn(width, generator=made) if self.spread else torch.eye(width)[0]
        return normalize(matrix + {"image": 1.0, "text": -0.5}[tower] * self.offset * normalize(direction, dim=0))


def frozen(model: clipq.Model, tower: str, shift: Shift) -> Ranges:
    if not shift.offset:
        return default_ranges(model, tower)
    origin, matrix = default_embeddings(model, tower, normalize=True)
    return ranges_of(shift(matrix, tower), {}, origin)


def lines(model: clipq.Model, sets: dict[str, Path | None], shift: Shift) -> Iterator[dict[str, Any]]:
    """One for each set and kind of query."""
    ranges = {tower: frozen(model, tower, shift) for tower in ("image", "text")}
    about = {"model": described_model(model), "environment": described_environment(Processes()), "k": K}
    for name, data in sets.items():
        matrices = dict(zip(("image", "text"), embedded(model, name, data), strict=True))
        matrices = {tower: shift(matrix, tower) for tower, matrix in matrices.items()}
        own = {tower: ranges_of(matrix, {}, "the set itself") for tower, matrix in matrices.items()}
        for tower, asked in matrices.items():
            rows = [
                row
                for source in (ranges, own)
                for row in measured(Search(matrices["image"], asked, source["image"], source[tower], tower == "image"))
            ]
            yield {
                **about,
                "set": name,
                "queries": tower,
                "offset": shift.offset,
                "spread": shift.spread,
                "n": len(matrices["image"]),
                "n_queries": len(asked),
                "width": asked.shape[1],
                "unevenness": ranges["image"].unevenness,
                "rows": rows,
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }


def measured(search: Search) -> Iterator[dict[str, Any]]:
    """Every way of keeping the rows and of searching them."""
    wanted = search.exact()
    for name, (dtype, find) in WAYS.items():
        codes, saturated = quantize(search.rows, dtype, search.ranges)
        yield {
            "way": name,
            "dtype": dtype,
            "ranges": search.ranges.about["origin"],
            "bytes": codes.nbytes // len(codes),
            "recall": recall(find(search), wanted),
            "saturated": saturated / search.rows.numel(),
        }


def main() -> None:
    """Measure one model and append its lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what clipq.load takes")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="wnid folders of ImageNet photos")
    parser.add_argument("--offset", type=float, default=0.0)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--output", type=Path, help="the .jsonl file to append to")
    args = parser.parse_args()
    sets = {"drawings": None, **({"photos": args.photos} if args.photos else {})}
    for line in lines(clipq.load(args.model, args.precision), sets, Shift(args.offset, args.spread)):
        print(f"{line['set']} by {line['queries']}: {line['n_queries']} queries, {line['n']} rows of {line['width']}")
        for row in line["rows"]:
            print(f"  {row['recall']:.4f}  {row['saturated']:.5f}  {row['way']}  ({row['ranges']})", flush=True)
        if args.output:
            append_line(args.output, json.dumps(line))


if __name__ == "__main__":
    main()
