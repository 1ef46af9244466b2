"""Every export of a model in its runtime, beside the model, on a classification task: top-1, agreement, cosines, time.

    python scripts/measuring/measure_exports.py MODEL --task imagenet1k-7 --data FOLDER --output NAME.jsonl
    python scripts/measuring/measure_exports.py clipq-tiny --task drawings --only onnx:int8,openvino:fp16

Class names go through the exported text tower, pictures through the exported image tower. "Agreement" is with the
clipq model that was exported, in the same precision. One JSON line for each export; `make_tables.py` then writes
docs/exports.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import clipq
from clipq.description import described_environment
from clipq.errors import ClipqError, ClipqWarning
from clipq.evaluation import load_task
from clipq.evaluation.data import task_images
from clipq.evaluation.prompts import templates
from clipq.exports import graph_files
from clipq.exports.targets import TARGETS
from clipq.inputs.images import decode
from clipq.resources import append_line
from clipq.work.processes import Processes

ALL = {
    "onnx": ("fp32", "fp16", "int8", "int8-best", "int8-static", "int8-weight-only", "int4-gptq"),
    "openvino": ("fp32", "fp16", "int8", "int8-static", "int8-weight-only"),
    "mnn": ("fp32", "fp16", "int8", "int8-weight-only"),
    "tensorrt": ("fp16", "int8-static-symmetric", "fp8-static"),
}
"""What is measured, by target."""

_BATCH = 32


@dataclass(frozen=True)
class Data:
    """Pixels of all pictures, ids of all prompts ([classes, templates, context]), and the labels."""

    pixels: Tensor
    ids: Tensor
    labels: Tensor

    @classmethod
    def of(cls, model: clipq.Model, args: argparse.Namespace) -> Data:
        task, limit = load_task(args.task), args.limit
        images = task_images(task, args.data)
        entries = images.entries[:: max(1, len(images) // limit)] if limit else images.entries
        pixels = torch.stack([model.preprocess(decode(entry)) for entry in entries])
        forms = templates(task)[: args.templates]
        ids = model.tokenizer([form(one) for one in images.classes for form in forms])
        ids = ids.view(len(images.classes), len(forms), -1)
        return cls(pixels, ids, torch.tensor([entry.label for entry in entries]))


@dataclass(frozen=True)
class Answers:
    """Embeddings of length 1, and the class that each picture gets."""

    images: Tensor
    texts: Tensor

    @property
    def top1(self) -> Tensor:
        return (self.images @ self.texts.T).argmax(-1)


def answers(data: Data, encode_image: Any, encode_text: Any) -> Answers:
    """With encoders from tensors to tensors."""
    images = torch.cat([encode_image(part) for part in data.pixels.split(_BATCH)])
    classes, templates, context = data.ids.shape
    texts = torch.cat([encode_text(part) for part in data.ids.view(-1, context).split(_BATCH)])
    texts = normalize(texts, dim=-1).view(classes, templates, -1).mean(1)
    return Answers(normalize(images, dim=-1), normalize(texts, dim=-1))


def exported_answers(folder: Path, to: str, data: Data, report: dict[str, Any]) -> Answers:
    """By the files of `folder` alone."""
    target = TARGETS[to]

    def encoder(tower: str) -> Any:
        session = graph_files.opened(target, folder / f"{tower}{target.suffix}")
        name, output = report["inputs"][tower], report["outputs"][tower]
        return lambda part: torch.from_numpy(np.array(session({name: part.numpy()}, output)))

    return answers(data, encoder("image"), encoder("text"))


def measured(model: clipq.Model, to: str, data: Data, own: Answers) -> dict[str, Any]:
    """One line of results."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "export")
        report = clipq.export(model, folder, to).report
        found = exported_answers(folder, to, data, report)
    cosines = (found.images.double() * own.images.double()).sum(-1)
    text_cosines = (found.texts.double() * own.texts.double()).sum(-1)
    return {
        "export": report,
        "n": len(data.labels),
        "classes": len(data.ids),
        "top1": (found.top1 == data.labels).double().mean().item(),
        "clipq_top1": (own.top1 == data.labels).double().mean().item(),
        "agreement": (found.top1 == own.top1).double().mean().item(),
        "image_cosine": {"mean": cosines.mean().item(), "worst": cosines.min().item()},
        "text_cosine": {"mean": text_cosines.mean().item(), "worst": text_cosines.min().item()},
        "graph_bytes": sum(one["bytes"] for name, one in report["files"].items() if not name.endswith(".json")),
        "environment": described_environment(Processes()),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def told(line: dict[str, Any]) -> str:
    """A line of results as one to read."""
    worst = " / ".join(f"{line[f'{tower}_cosine']['worst']:.5f}" for tower in ("image", "text"))
    speed = line["export"]["parity"]["image"]
    return (
        f"{line['to']:10s} {line['precision']:22s} top-1 {line['top1']:.4f} (clipq {line['clipq_top1']:.4f})  "
        f"agreement {line['agreement']:.4f}  worst {worst}  {line['graph_bytes'] / 1e6:.1f} MB  {speed['ms']} ms "
        f"(clipq {speed['clipq_ms']})"
    )


def main() -> None:
    """Measure what is asked for, and append each line as soon as it is there."""
    args = parse_args()
    warnings.simplefilter("ignore", ClipqWarning)
    base = clipq.load(args.model, "fp32")
    data = Data.of(base, args)
    asked = [one.split(":") for one in args.only] or [(to, name) for to, names in ALL.items() for name in names]
    for precision in dict.fromkeys(name for _, name in asked):
        model = clipq.quantize(clipq.load(args.model, "fp32"), precision)
        own = answers(data, model.encode_image, model.encode_text)
        for to in (to for to, name in asked if name == precision and to in TARGETS):
            try:
                line = {"task": args.task, "to": to, "precision": precision, **measured(model, to, data, own)}
            except ClipqError as error:
                print(f"{to:10s} {precision:22s} {error}", flush=True)
                continue
            print(told(line), flush=True)
            if args.output:
                append_line(args.output, json.dumps(line))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, help="at most about so many pictures, evenly chosen")
    parser.add_argument("--templates", type=int, help="of the task, the first so many (default: all)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="TARGET:PRECISION,...")
    parser.add_argument("--output", type=Path, help="the .jsonl file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
