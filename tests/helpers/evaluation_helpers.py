"""What the evaluation tests share: a tiny CLIP that really runs, and small real files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clipq.inputs.tokenization import TokenizerSpec
from clipq.methods.quantization import quantize
from clipq.models import Model

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "dark_grey": (70, 70, 70)}


def tiny_clip(noise: float = 0.0, precision: str = "fp32") -> Model:
    """A CLIP of open_clip with random weights, always the same: 32 x 32 pixels, 16 wide, a layer in each tower.

    noise: disturb every weight by about this share, as a coarse quantization would.
    """
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
        module = CLIP(16, {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}, text).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1 + noise * torch.randn_like(parameter))
    model = Model(
        module,
        preprocessing={"kind": "open_clip", "size": [32, 32]},
        tokenizer=TokenizerSpec({"kind": "open_clip", "context_length": 77}),
        source={"arch": "tiny", "tag": f"noise-{noise}"},
    )
    return model if precision == "fp32" else quantize(model, precision)


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A noisy patch of one colour."""
    noise = np.random.default_rng(seed).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def colour_folder(root: Path, per_class: int = 3) -> Path:
    """A folder of class folders, `per_class` pictures each."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            picture(colour, 100 * number + i).save(root / name / f"{i}.png")
    return root


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def colour_tar(path: Path, per_class: int = 3) -> Path:
    """The pictures of `colour_folder` as webdataset samples."""
    members = []
    for label, colour in enumerate(COLOURS.values()):
        for i in range(per_class):
            members.append((f"{label}_{i}.png", encoded(picture(colour, 100 * label + i))))
            members.append((f"{label}_{i}.cls", f"{label}\n".encode()))
    return write_tar(path, members)


def colour_task(folder: Path, name: str = "colours", version: int = 1) -> Path:
    """A task file over the four colours, with data named by `data=`."""
    names = ", ".join(f'"{one}"' for one in COLOURS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nversion = {version}\ntitle = "colours"\nmetric = "top1"\n'
        f'[dataset]\nkind = "class-folder"\n'
        f'[prompts]\nclassnames = [{names}]\ntemplates = ["{{c}}", "a {{c}} patch"]\n',
        encoding="utf-8",
    )
    return path
