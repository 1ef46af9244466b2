"""Make one entry of the zoo: the quantized file, its model card, and the lines for zoo/models.toml.

    python scripts/building/build_zoo.py ViT-B-32/openai --out build/ViT-B-32-openai  # a folder to publish
    python scripts/building/build_zoo.py clipq-tiny --base FOLDER                  # the embedded model, into zoo/

With `--task` the file is measured against its float base first, and the numbers go into its header and card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import clipq
from clipq.models import Model
from clipq.zoo import hub, registry
from clipq.zoo.registry import Artefact, Entry

ROOT = Path(__file__).resolve().parents[2]


def measured(model: Model, base: Model, task: str, data: str | None) -> dict[str, float]:
    """What quantization cost on `task`: the numbers that go into the header and the card."""
    result = clipq.evaluate(model, task, data=data, baseline=base)
    found = {"task": result.task, "n": result.n, "top1": result.metrics["top1"]}
    return found | {"drop_points": result.comparison["drop_points"], "agreement": result.comparison["agreement"]}


def lines(artefact: Artefact, file: Path) -> str:
    """The registry's lines for `file`."""
    place = {"path": artefact.path} if artefact.embedded else {"repo": artefact.repo, "filename": artefact.filename}
    if not artefact.embedded:
        place["revision"] = "THE COMMIT IT WAS PUBLISHED AS"
    text = {"precision": artefact.precision, **place, "sha256": hub.file_sha256(file)}
    rows = [f'{key} = "{value}"' for key, value in text.items()]
    return "\n".join(["[[models.artefacts]]", *rows, f"size = {file.stat().st_size}", ""])


def build_embedded(entry: Entry, folder: str) -> None:
    """Write the files of an embedded model from its open_clip folder, each where the registry says it lies."""
    for artefact in entry.artefacts:
        model = clipq.load(f"local-dir:{folder}", precision=artefact.precision)
        source = {"name": entry.name, "arch": entry.arch, "tag": entry.tag, "licence": entry.licence}
        model.source |= source
        file = clipq.save(model, ROOT / artefact.path)
        print(lines(artefact, file))


def build(entry: Entry, args: argparse.Namespace) -> None:
    """Write the folder to publish for one precision of `entry`."""
    artefact = registry.artefact(entry, args.precision)
    if artefact is None:
        sys.exit(f"zoo/models.toml plans no {args.precision} file of {entry.name}; add it there first.")
    base = clipq.load(args.base or entry.name, precision="fp32", cache_dir=args.cache_dir)
    model = clipq.load(args.base or entry.name, precision=args.precision, cache_dir=args.cache_dir)
    results = measured(model, base, args.task, args.data) if args.task else None
    folder = clipq.save(model, args.out or Path("build", artefact.repo.rpartition("/")[2]), results=results)
    print(f"{folder}: publish it with `hf upload {artefact.repo} {folder}`; then, in zoo/models.toml:\n")
    print(lines(artefact, folder / artefact.filename))


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a name of `clipq list`")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--base", help="base weights: a folder or name, instead of the registry's")
    parser.add_argument("--out", type=Path, help="the folder to write")
    parser.add_argument("--task", help="measure on this task first")
    parser.add_argument("--data", help="where the task's images lie")
    parser.add_argument("--cache-dir", type=Path)
    args = parser.parse_args()
    entry = registry.find(args.name)
    if entry.embedded:
        build_embedded(entry, args.base or parser.error("an embedded model needs --base FOLDER"))
    else:
        build(entry, args)


if __name__ == "__main__":
    main()
