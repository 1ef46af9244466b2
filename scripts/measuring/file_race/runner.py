"""One contestant in a process of its own: `python runner.py NAME FOLDER`; paths on stdin, seconds on stdout, by lines.

FOLDER holds the model: weights.safetensors (open_clip's state dict), hf/ (of transformers), image.onnx. With another
version of clipq on PYTHONPATH that version is measured, so nothing is imported from clipq but what 0.2 had, or else.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ARCH = "ViT-B-32"
BATCH = 32
Embed = Callable[[Path], Any]
"""From a folder of JPEGs, or a text file, to a matrix of normalized embeddings."""


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def parts(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def open_clip_model(folder: Path) -> tuple[Any, Any]:
    import open_clip
    from safetensors.torch import load_file

    model = open_clip.create_model(ARCH, load_weights=False).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model, open_clip.image_transform(224, is_train=False)


def clipq_model(folder: Path) -> Any:
    import clipq
    from clipq.models import Model

    place = "clipq.inputs.tokenization" if importlib.util.find_spec("clipq.inputs") else "clipq.tokenization"  # 0.2
    TokenizerSpec = importlib.import_module(place).TokenizerSpec  # noqa: N806 (a class)
    module, _ = open_clip_model(folder)
    tokenizer = TokenizerSpec({"kind": "open_clip", "context_length": 77})
    preprocessing = {"kind": "open_clip", "size": 224}
    return clipq.quantize(Model(module, preprocessing=preprocessing, tokenizer=tokenizer, source={"name": ARCH}))


def clipq_way(decode: str) -> Callable[[Path], Embed]:
    def make(folder: Path) -> Embed:
        from clipq.embedding import Inputs, embed

        model = clipq_model(folder)
        return lambda source: embed(model, Inputs.of(source, decode), batch_size=BATCH, progress=False).matrix

    return make


def clipq_earlier(folder: Path) -> Embed:
    from clipq.embedding import embed

    model = clipq_model(folder)
    return lambda source: embed(model, source, batch_size=BATCH, progress=False).matrix


def open_clip_way(workers: int) -> Callable[[Path], Embed]:
    def make(folder: Path) -> Embed:
        import open_clip
        import torch
        from PIL import Image
        from torch.utils.data import DataLoader

        model, preprocess = open_clip_model(folder)
        tokenizer = open_clip.get_tokenizer(ARCH)

        class Photos(torch.utils.data.Dataset):
            def __init__(self, paths: list[Path]):
                self.paths = paths

            def __len__(self) -> int:
                return len(self.paths)

            def __getitem__(self, i: int) -> torch.Tensor:
                return preprocess(Image.open(self.paths[i]))

        @torch.no_grad()
        def embed(source: Path) -> torch.Tensor:
            if source.is_file():
                made = [model.encode_text(tokenizer(part), normalize=True) for part in parts(lines_of(source))]
            else:
                loader = DataLoader(Photos(files_in(source)), batch_size=BATCH, num_workers=workers)
                made = [model.encode_image(batch, normalize=True) for batch in loader]
            return torch.cat(made)

        return embed

    return make


def sentence_transformers_way(folder: Path) -> Embed:
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "hf"), device="cpu")

    def embed(source: Path) -> Any:
        if source.is_file():
            return model.encode(lines_of(source), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        made = []
        for part in parts(files_in(source)):  # all of them opened at once would not fit into memory
            pictures = [Image.open(path) for path in part]
            made += list(model.encode(pictures, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False))
        return made

    return embed


def onnx_runtime_way(folder: Path) -> Embed:
    import numpy
    import onnxruntime
    from PIL import Image

    _, preprocess = open_clip_model(folder)
    session = onnxruntime.InferenceSession(folder / "image.onnx", providers=["CPUExecutionProvider"])
    pool = ThreadPoolExecutor()

    def opened(path: Path) -> Any:
        return preprocess(Image.open(path)).numpy()

    def embed(source: Path) -> Any:
        if source.is_file():
            raise ValueError("only its image tower is measured")
        made = []
        for part in parts(files_in(source)):
            (rows,) = session.run(None, {"input": numpy.stack(list(pool.map(opened, part)))})
            made.append(rows / numpy.linalg.norm(rows, axis=1, keepdims=True))
        return numpy.concatenate(made)

    return embed


CONTESTANTS: dict[str, Callable[[Path], Embed]] = {
    "clipq exact": clipq_way("exact"),
    "clipq scaled": clipq_way("scaled"),
    "clipq 0.2": clipq_earlier,
    **{f"open_clip fp32, {workers} workers": open_clip_way(workers) for workers in range(3)},
    "sentence-transformers fp32": sentence_transformers_way,
    "ONNX Runtime fp32": onnx_runtime_way,
}


def answer(embed: Embed, source: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        rows = embed(source)
    except ValueError as error:
        return {"left out": str(error)}
    return {"seconds": time.perf_counter() - begun, "rows": len(rows), "first": [float(x) for x in rows[0][:4]]}


def main() -> None:
    """Load the model, say so, and answer until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        embed = CONTESTANTS[sys.argv[1]](Path(sys.argv[2]))
        print(json.dumps({"ready": True}), file=answers, flush=True)
    except ImportError as error:
        print(json.dumps({"left out": f"not installed: {error}"}), file=answers, flush=True)
        return
    for line in sys.stdin:
        print(json.dumps(answer(embed, Path(line.strip()))), file=answers, flush=True)


if __name__ == "__main__":
    main()
