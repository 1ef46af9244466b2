"""ViT-B/32 from open_clip and from transformers, random weights: coverage, size, reload, memory, speed against fp32.

    python scripts/measuring/measure_vit_b_32.py --out eval/results/vit-b-32-random.jsonl

Random weights say nothing about accuracy, but everything else is that of the real model. One JSON line a host.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import clipq
from clipq.benchmark import benchmark, memory
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.models import Model

ARCH = "ViT-B-32"
TOKENIZER = TokenizerSpec({"kind": "open_clip", "context_length": 77})
PREPROCESSING = {"kind": "open_clip", "size": 224}


def from_open_clip() -> nn.Module:
    import open_clip

    return open_clip.create_model(ARCH, load_weights=False)


def from_transformers() -> nn.Module:
    import transformers

    return transformers.CLIPModel(transformers.CLIPConfig(projection_dim=512))  # its defaults are ViT-B/32


HOSTS: dict[str, Callable[[], nn.Module]] = {"open_clip": from_open_clip, "transformers": from_transformers}


def build(host: str) -> Model:
    """The fp32 model, always with the same weights."""
    torch.manual_seed(0)
    return Model(HOSTS[host]().eval(), preprocessing=PREPROCESSING, tokenizer=TOKENIZER, source={"name": ARCH})


def measure(host: str, runs: int, folder: Path) -> dict[str, Any]:
    """Everything about one host's model."""
    base, model = build(host), clipq.quantize(build(host))
    files = {
        "fp32": clipq.save(base, folder / f"{host}-fp32.safetensors"),
        "int8": clipq.save(model, folder / f"{host}-int8.safetensors"),
    }
    report = clipq.coverage(model)
    return {
        "what": f"{ARCH} with random weights from {host}",
        "coverage": {
            "matrix_weights": report.weight_share,
            "block_weights": report.block_share,
            "macs": {name: tower.mac_share for name, tower in report.towers.items()},
        },
        "bytes": {name: file.stat().st_size for name, file in files.items()},
        "reload_bit_equal": reload_is_equal(model, files["int8"]),
        "memory": {name: memory({"name_or_path": file, "precision": name}, 1) for name, file in files.items()},
        **benchmark(model, base, (1, 32), runs),
    }


def reload_is_equal(model: Model, file: Path) -> bool:
    """Whether the file's embeddings are, bit for bit, those of the model it was made from."""
    again, pixels = clipq.load(file, model.precision), torch.randn(4, 3, 224, 224)  # a float file would become int8
    texts = ["a cat", "a photo of a dog on a beach"]
    images_equal = torch.equal(model.encode_image(pixels), again.encode_image(pixels))
    return images_equal and torch.equal(model.encode_text(texts), again.encode_text(texts))


def main() -> None:
    """Measure both hosts and append the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, args.out.open("a", encoding="utf-8") as lines:
        for host in HOSTS:
            found = measure(host, args.runs, Path(folder))
            lines.write(json.dumps(found) + "\n")
            for row in found["rows"]:
                print(
                    host, row["tower"], row["batch_size"], f"{row['ms']['median']:.1f} ms, {row['speedup']:.2f} x fp32"
                )


if __name__ == "__main__":
    main()
