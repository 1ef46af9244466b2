"""The host's own call of a quantized model beside `clipq.Model`'s and torch's fp32: one run, in turns, ViT-B/32.

    python scripts/measuring/bench_host_calls.py --out eval/results/host-calls-vit-b-32.jsonl

Weights are random, images noise, captions of mixed lengths. For each host, tower and batch size one JSON line: the
medians, quartiles and ranges in milliseconds, and the ratios of the medians. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import clipq
from clipq.benchmark import captions
from clipq.description import described_environment
from clipq.timing import alternate
from clipq.work.processes import Processes

Call = Callable[[], object]
Encoder = Callable[[nn.Module, Tensor], object]


def _open_clip() -> nn.Module:
    import open_clip

    return open_clip.create_model("ViT-B-32", load_weights=False)


def _transformers() -> nn.Module:
    import transformers

    config = transformers.CLIPConfig(projection_dim=512)  # its defaults are ViT-B/32
    config.text_config.eos_token_id = 49407  # as real checkpoints' tokens end
    return transformers.CLIPModel(config)


def _timm() -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch32_clip_224", pretrained=False, num_classes=0)


def _text_features(module: nn.Module, ids: Tensor) -> object:
    mask = (ids != 0).long()  # as a processor gives it beside the ids
    return module.get_text_features(input_ids=ids, attention_mask=mask)


HOSTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Encoder]]] = {
    "open_clip": (
        _open_clip,
        {"image": lambda module, x: module.encode_image(x), "text": lambda module, x: module.encode_text(x)},
    ),
    "transformers": (
        _transformers,
        {"image": lambda module, x: module.get_image_features(pixel_values=x), "text": _text_features},
    ),
    "timm": (_timm, {"image": lambda module, x: module(x)}),
}


def inputs(tower: str, batch: int) -> Tensor:
    if tower == "image":
        return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    import open_clip

    return open_clip.tokenize(captions(batch))


def contestants(host: str) -> tuple[nn.Module, clipq.Model]:
    """The fp32 module and the int8 model of the same weights."""
    torch.manual_seed(0)
    base = HOSTS[host][0]().eval()
    return base, clipq.Model(clipq.quantize(deepcopy(base)))


def calls(host: str, tower: str, base: nn.Module, model: clipq.Model, x: Tensor) -> dict[str, Call]:
    encode = HOSTS[host][1][tower]
    own = model.encode_image if tower == "image" else model.encode_text
    return {
        "fp32": lambda: encode(base, x),
        "host": lambda: encode(model.module, x),
        "model": lambda: own(x),
    }


def measured(host: str, towers: Sequence[str], batches: Sequence[int], runs: int) -> list[dict[str, Any]]:
    base, model = contestants(host)
    rows = []
    for tower in HOSTS[host][1]:
        for batch in batches if tower in towers else ():
            found = calls(host, tower, base, model, inputs(tower, batch))
            samples = dict(zip(found, alternate(list(found.values()), runs, torch.device("cpu")), strict=True))
            medians = {name: statistics.median(one) for name, one in samples.items()}
            rows.append(
                {
                    "host": host,
                    "tower": tower,
                    "batch_size": batch,
                    "ms": {name: _summary(one) for name, one in samples.items()},
                    "host_of_model": medians["model"] / medians["host"],
                    "host_of_fp32": medians["fp32"] / medians["host"],
                    "model_of_fp32": medians["fp32"] / medians["model"],
                }
            )
            print(_line(rows[-1]), flush=True)
    return rows


def _summary(samples: Sequence[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "min": min(samples), "max": max(samples)}


def _line(row: dict[str, Any]) -> str:
    ms = ", ".join(f"{k} {v['median']:.2f} ({v['min']:.2f}-{v['max']:.2f})" for k, v in row["ms"].items())
    ratios = f"host/model {row['host_of_model']:.3f} x, host/fp32 {row['host_of_fp32']:.2f} x"
    return f"{row['host']} {row['tower']} batch {row['batch_size']}: {ms} ms a call; {ratios}"


def main() -> None:
    """Measure every host and append the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=list(HOSTS))
    parser.add_argument("--towers", nargs="+", choices=("image", "text"), default=["image", "text"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--label", default=clipq.__version__, help="what this run is, kept in its lines")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    warnings.simplefilter("ignore")
    about = {"label": args.label, "runs": args.runs, "environment": described_environment(Processes())}
    for host in args.hosts:
        rows = measured(host, args.towers, args.batches, args.runs)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps({**row, **about}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
