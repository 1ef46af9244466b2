"""What every contestant starts from: a folder with the model in fp32 and int8, the inputs, and some to calibrate on.

Everything is in files, so that a fresh process can measure one contestant without what the others need (nor torch, if
it does without). Nothing heavy is imported before it is used, for the same reason.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import ClipqError, DataError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor, nn

    from clipq.models import Model

INPUTS = {"image": ("images",), "text": ("captions", "full")}
"""The inputs of each tower: pictures; captions of 6 to 40 tokens; texts that fill the context."""

CAPTION_WORDS = (11, 6, 17, 9, 4, 13, 24, 8, 15, 7, 10, 31, 12, 5, 19, 9, 14, 8, 38, 10, 6, 21, 11, 13, 7, 27, 9, 16, 5)
"""Words of the captions, about one token each, plus two for start and end: most are short, a few long."""

_PROSE = (
    "a brown dog runs along the beach with a red ball in its mouth while two children in yellow coats watch from the "
    "pier behind them an old wooden boat lies on the sand and a woman is painting it blue the sky is grey but there is "
    "some light over the water near the horizon a train crosses the bridge above the river at night in the station a "
    "man with a black umbrella is reading a newspaper on the bench next to a small white cat in the kitchen a bowl of "
    "green apples stands on the table beside a glass of milk and a plate with bread cheese and tomatoes outside the "
    "window snow is falling on the roofs of the town and smoke rises from a few of the houses on the hill a group of "
    "people on bicycles waits at the traffic light in front of a tall glass building with a clock on its tower"
)


@dataclass(frozen=True)
class Workspace:
    """The folder, the threads each contestant may use, and the towers and largest batch that are measured."""

    folder: Path
    threads: int
    towers: tuple[str, ...]
    largest: int

    def file(self, name: str) -> Path:
        return self.folder / name

    def inputs(self, kind: str) -> np.ndarray:
        """float32 pixels [largest, 3, height, width], or int64 token ids [largest, context]."""
        import numpy as np

        return np.load(self.file(f"{kind}.npy"))

    def calibration(self, tower: str) -> np.ndarray:
        """Inputs to calibrate a static quantization on; none of them is measured."""
        import numpy as np

        return np.load(self.file(f"calibration-{tower}.npy"))


def prepare(workspace: Workspace, model: Model, samples: int, images: Path | None = None) -> dict[str, Any]:
    """Write the model's files and inputs; returns what they are, for the result."""
    import numpy as np

    import clipq

    workspace.file("config.json").write_text(json.dumps(model.config), encoding="utf-8")
    fp32 = clipq.save(model, workspace.file("fp32.safetensors"))
    clipq.save(clipq.load(fp32, precision="int8"), workspace.file("int8.safetensors"))
    about: dict[str, Any] = {"calibration_samples": samples}
    if "image" in workspace.towers:
        pixels = [model.preprocess(p).numpy() for p in pictures(images, workspace.largest + samples)]
        np.save(workspace.file("images.npy"), np.stack(pixels[: workspace.largest]))
        np.save(workspace.file("calibration-image.npy"), np.stack(pixels[workspace.largest :]))
        about["images"] = "the drawings of clipq's own task" if images is None else "pictures from a folder"
    if "text" in workspace.towers:
        tokens = {kind: model.tokenizer(prompts) for kind, prompts in texts(workspace.largest, samples).items()}
        for kind, ids in tokens.items():
            np.save(workspace.file(f"{kind}.npy"), ids.numpy().astype(np.int64))
        about["tokens"] = {kind: lengths(tokens[kind]) for kind in INPUTS["text"]}
    return about


def open_model(arch: str, weights: str | None) -> Model:
    """The fp32 model: `weights` through clipq (a file, a folder, a name), or `arch` of open_clip with random weights.

    Raises `UnknownNameError` for an architecture open_clip has not, `ClipqError` for a model that is not open_clip's.
    """
    import clipq

    if weights is None:
        return _random(arch)
    model = clipq.load(weights, precision="fp32")
    if model.host.name != "open_clip" or set(model.precision.values()) != {"fp32"}:
        raise ClipqError(f"{weights}: peers are made from fp32 open_clip models; this is {model.host.name}, {model}.")
    return model


def _random(arch: str) -> Model:
    import open_clip
    import torch

    from clipq.inputs.tokenizer_files import TokenizerSpec
    from clipq.models import Model

    config = open_clip.get_model_config(arch)
    if config is None:
        raise unknown_name("architecture", arch, open_clip.list_models())
    torch.manual_seed(0)
    return Model(
        open_clip.create_model(arch, load_weights=False).eval(),
        config={"arch": arch, **config},
        preprocessing={"kind": "open_clip", "size": config["vision_cfg"]["image_size"]},
        tokenizer=TokenizerSpec({"kind": "open_clip", "context_length": config["text_cfg"].get("context_length", 77)}),
        source={"name": arch},
    )


def plain_module(workspace: Workspace) -> nn.Module:
    """open_clip's own fp32 model, built by open_clip and with nothing of clipq in it."""
    from safetensors.torch import load_file

    from clipq.hosts import host_named

    module = host_named("open_clip").build(json.loads(workspace.file("config.json").read_text(encoding="utf-8")))
    tensors = load_file(workspace.file("fp32.safetensors"))  # the host's names; clipq's tokenizer may lie beside them
    module.load_state_dict({name: tensors[name] for name in module.state_dict()}, assign=True)
    return module.eval().requires_grad_(False)


def tower_module(workspace: Workspace, tower: str) -> nn.Module:
    """One tower as a module of its own, from pixels or token ids to embeddings: what exporters take."""
    from torch import nn

    class TowerModule(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

        def forward(self, inputs: Tensor) -> Tensor:
            return self.module.encode_image(inputs) if tower == "image" else self.module.encode_text(inputs)

    return TowerModule(plain_module(workspace)).eval()


def lengths(tokens: Tensor) -> dict[str, float]:
    """How many tokens the texts have, padding left out: the run of one id that a row ends in, but for its first."""
    counts = []
    for row in tokens.tolist():
        last = max((i for i, token in enumerate(row) if token != row[-1]), default=-1) + 1
        counts.append(last if last < len(row) - 1 else len(row))
    return {"min": min(counts), "mean": sum(counts) / len(counts), "max": max(counts)}


def texts(count: int, samples: int) -> dict[str, list[str]]:
    captions = [_words(13 * i, CAPTION_WORDS[i % len(CAPTION_WORDS)]) for i in range(count)]
    calibration = [_words(11 * i + 3, CAPTION_WORDS[(i + 5) % len(CAPTION_WORDS)]) for i in range(samples)]
    full = [_words(5 * i, 2 * len(_PROSE.split())) for i in range(count)]
    return {"captions": captions, "full": full, "calibration-text": calibration}


def _words(start: int, count: int) -> str:
    words = _PROSE.split()
    return " ".join(words[(start + i) % len(words)] for i in range(count))


def pictures(folder: Path | None, count: int) -> Iterator[Image]:
    """`count` pictures of `folder` (None: the drawings), always the same ones; repeated if there are too few."""
    from PIL import Image

    sources = _drawings() if folder is None else _files(folder)
    if not sources:
        raise DataError(f"no pictures in {folder}; give a folder with .jpg or .png files in it.")
    for i in range(count):
        source = sources[i % len(sources)]
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image.convert("RGB")


def _files(folder: Path) -> Sequence[Path]:
    found = [path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    return sorted(found, key=lambda path: hashlib.sha256(path.name.encode()).digest())


def _drawings() -> Sequence[bytes]:
    from pyarrow import parquet

    from clipq.resources import resource

    images = parquet.read_table(resource("eval", "data", "drawings.parquet"), columns=["image"])["image"].to_pylist()
    return sorted((image["bytes"] for image in images), key=lambda data: hashlib.sha256(data).digest())
