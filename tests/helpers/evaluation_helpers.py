"""What the evaluation tests share: a tiny CLIP that really runs, and a task for it."""

from __future__ import annotations

from pathlib import Path

import torch
from picture_helpers import COLOURS

from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.methods.quantization import quantize
from clipq.models import Model


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
