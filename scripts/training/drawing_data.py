"""The drawings as the training takes them: rendered pictures by concept and set, and the held-out style's file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import drawings
import numpy as np
import packing
import torch
from deit import SIZE

from clipq.resources import atomic_path


@dataclass
class TrainingSet:
    """Rendered drawings with their concepts: what one run trains on."""

    pixels: np.ndarray  # [drawings, size, size, 4] uint8, on disk
    groups: list[list[int]]  # rows of one concept in one set; the untinted drawing comes first
    concept_of: torch.Tensor  # by drawing
    concepts: list[str]
    names: list[list[str]]  # by concept, its own name first

    def flips(self, rows: list[int]) -> torch.Tensor:
        """Which of these drawings may be mirrored."""
        return torch.tensor([drawings.can_flip(self.concepts[self.concept_of[row]]) for row in rows])


def read_sets(cache: Path) -> tuple[drawings.Icons, list[drawings.Icons]]:
    """Fetch and read the held-out set and the training sets."""
    held_out = drawings.read_set(drawings.HELD_OUT, drawings.fetch_set(drawings.HELD_OUT, cache))
    return held_out, [drawings.read_set(s, drawings.fetch_set(s, cache)) for s in drawings.TRAINING_SETS]


def fold(held_out: drawings.Icons, training: list[drawings.Icons]) -> drawings.Concepts:
    """The concepts of all sets whose names can be trusted."""
    return drawings.fold_concepts(held_out, [s for s in training if s.source.name not in drawings.LOOSE_SETS])


def gather(training: list[drawings.Icons], folded: drawings.Concepts, cache: Path) -> TrainingSet:
    """Collect and render the training drawings, grouped by concept and set."""
    chosen = []
    for icons in training:
        loose = drawings.loose_names(icons, folded) if icons.source.name in drawings.LOOSE_SETS else None
        chosen += sorted(drawings.drawings_of(icons, folded, loose), key=lambda d: (d.concept, d.tone))
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, drawing in enumerate(chosen):
        rows[drawing.set_name, drawing.concept].append(row)
    concepts = sorted({drawing.concept for drawing in chosen})
    index = {concept: i for i, concept in enumerate(concepts)}
    other = folded.names()
    names = [[c, *(n for n in other[c] if n != c and not n.startswith("flag-"))] for c in concepts]
    pixels = render_all(chosen, cache / f"drawings-{SIZE}.npy")
    return TrainingSet(pixels, list(rows.values()), torch.tensor([index[d.concept] for d in chosen]), concepts, names)


def render_all(chosen: list[drawings.Drawing], path: Path) -> np.ndarray:
    """Render every drawing once, in parallel, and keep the pixels on disk for the next run."""
    if not path.is_file():
        with atomic_path(path) as fresh, Pool() as pool:
            pixels = np.lib.format.open_memmap(fresh, "w+", np.uint8, (len(chosen), SIZE, SIZE, 4))
            for row, picture in enumerate(pool.imap(_render, chosen, chunksize=32)):
                pixels[row] = picture
            pixels.flush()
    return np.load(path, mmap_mode="r")


def _render(drawing: drawings.Drawing) -> np.ndarray:
    return drawings.render(drawing, SIZE)


def held_out_drawings(icons: drawings.Icons, folded: drawings.Concepts) -> Iterator[drawings.Drawing]:
    """One plain drawing a concept of the held-out style, in the order of the concepts' names."""
    coded, plain = set(icons.codes.values()), {}
    for name in sorted(icons.svg, key=lambda n: (n in coded, n.endswith("-facing-right"), n)):
        concept = folded.find(drawings.fold_name(name, icons.svg))
        if not drawings.split_tone(name, icons.svg)[1] and not (concept in plain and name.endswith("-facing-right")):
            plain[concept] = drawings.Drawing(concept, icons.source.name, "", icons.svg[name])
    return (plain[concept] for concept in sorted(plain))


def write_held_out(icons: drawings.Icons, folded: drawings.Concepts, data: Path, names: Path) -> None:
    """Write the held-out pictures, one a concept, and the concepts' names in class order."""
    chosen = list(held_out_drawings(icons, folded))
    with Pool() as pool:
        pictures = map(drawings.on_white, pool.map(_render, chosen, chunksize=32))
        packing.write_parquet(data, ((picture, i) for i, picture in enumerate(pictures)))
    names.write_text("".join(f"{drawings.words(drawing.concept)}\n" for drawing in chosen), encoding="utf-8")
