"""Make clipq-tiny: a pretrained image tower fitted to drawings and photos at once, and texts fitted to what it sees.

One command does everything, from fetching to the measured numbers; a CPU is enough:

    python scripts/training/train_tiny.py --out tiny                    # DeiT-Tiny's weights from timm, downloaded
    python scripts/training/train_tiny.py --out tiny --deit FOLDER      # ... from an open_clip folder that holds them

It needs npm (to fetch the drawings) and the Python packages resvg_py, open_clip_torch, transformers and Pillow.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import captions
import closed_form
import deit
import drawing_data
import drawings
import image_tower
import packing
import rotation
import text_tower

from clipq.resources import atomic_path

LOGIT_SCALE = 36.0  # from cosines to logits; with it the first answers are about as sure as they are right
ROOT = Path(__file__).resolve().parents[2]


def deit_tower(state: dict[str, torch.Tensor]) -> CLIP:
    """A CLIP whose image tower is DeiT-Tiny; its text tower is only there because a CLIP has one."""
    vision = CLIPVisionCfg(**deit.vision_config())
    model = CLIP(deit.WIDTH, vision, CLIPTextCfg(vocab_size=8, context_length=8, width=64, heads=1, layers=1)).eval()
    model.visual.load_state_dict(state | {"proj": torch.eye(deit.WIDTH)})
    return model


@torch.inference_mode()
def plain_features(model: CLIP, data: drawing_data.TrainingSet) -> tuple[torch.Tensor, float]:
    """Class token and mean of the patches of every drawing on white, [drawings, 2 * width]; the token's mean spread."""
    features, spread = [], 0.0
    for rows in torch.arange(len(data.pixels)).split(64):
        drawn = torch.from_numpy(data.pixels[rows.numpy()]).permute(0, 3, 1, 2).float() / 255
        hidden = image_tower.lower_tokens(model.visual, drawn[:, :3] * drawn[:, 3:] + 1 - drawn[:, 3:])
        for block in model.visual.transformer.resblocks[image_tower.FROZEN :]:
            hidden = block(hidden)
        spread += hidden[:, 0].std(1, correction=0).sum().item() / len(data.pixels)
        normed = model.visual.ln_post(hidden)
        features.append(torch.cat([normed[:, 0], normed[:, 1:].mean(1)], 1))
    return torch.cat(features), spread


def fit_images(
    args: argparse.Namespace, data: drawing_data.TrainingSet
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The image tower's state, and the anchors of all concepts and classes, [anchors, width]."""
    state, rows = deit.load(args.deit)
    model = deit_tower(state)
    files = [args.cache / f"tokens-{number}.pt" for number in range(args.passes)]
    for number, file in enumerate(files):
        image_tower.cache_tokens(model, data, number, args.strength, file)
    features, spread = plain_features(model, data)
    start = closed_form.start(features, data.concept_of, rows, model.visual.ln_post, spread)
    norm = copy.deepcopy(model.visual.ln_post)
    model.visual.ln_post.bias.data -= start.centre
    model.visual.transformer.resblocks.append(start.block)
    fit = image_tower.Fit(model.visual, start)
    teacher = image_tower.Teacher(fit.upper, norm, rows)
    fit = image_tower.train(fit, teacher, image_tower.Passes(files, args.batch), data.concept_of)
    visual = model.visual.state_dict() | image_tower.upper_state(fit)
    return visual, F.normalize(torch.cat([fit.concepts, fit.classes]).detach(), dim=-1)


def write_config(folder: Path, vocab_size: int) -> dict:
    """Write open_clip's configuration of the model and return it."""
    towers = {"vision_cfg": deit.vision_config(deit.LAYERS + 1), "text_cfg": text_tower.text_config(vocab_size)}
    preprocessing = {"mean": deit.MEAN, "std": deit.STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {
        "model_cfg": {"embed_dim": deit.WIDTH, "quick_gelu": False, **towers},
        "preprocess_cfg": preprocessing,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config["model_cfg"]


def fit_texts(args: argparse.Namespace, data: drawing_data.TrainingSet, anchors: torch.Tensor) -> CLIP:
    """The whole model, its text tower fitted to the anchors; its tokenizer and configuration are in the folder."""
    found = captions.groups(data.concepts, data.names)
    texts = (text for group in found for text in group.texts)
    config = write_config(args.out, text_tower.train_tokenizer(texts, args.vocab_size, args.out))
    towers = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    model = CLIP(config["embed_dim"], *towers, quick_gelu=False)
    tokenize = open_clip.get_tokenizer(f"local-dir:{args.out.resolve()}")
    text_tower.fit(model, captions.Captions(found, tokenize, len(data.concepts)), anchors, args.text_steps)
    return model


@torch.no_grad()
def evaluate(folder: Path, data: Path, names: Path) -> float:
    """Top-1 of zero-shot classification of the held-out drawings with the model as saved."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder.resolve()}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder.resolve()}")
    model.eval()
    classes = names.read_text(encoding="utf-8").splitlines()
    pictures, labels = packing.read_parquet(data)
    parts = torch.arange(len(pictures)).split(64)
    image = torch.cat([model.encode_image(torch.stack([transform(pictures[i]) for i in part])) for part in parts])
    prompts = [tokenize([template.format(c=c) for c in classes]) for template in drawings.TEMPLATES]
    text = sum(model.encode_text(ids, normalize=True) for ids in prompts)
    return ((image @ F.normalize(text, dim=-1).T).argmax(1) == torch.tensor(labels)).float().mean().item()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model (open_clip local-dir format)")
    parser.add_argument("--deit", help="an open_clip folder with DeiT-Tiny as image tower (default: timm's weights)")
    parser.add_argument("--cache", type=Path, default=None, help="folder for packages, pixels and tokens")
    parser.add_argument("--eval-data", type=Path, default=ROOT / "eval/data/drawings.parquet")
    parser.add_argument("--eval-names", type=Path, default=ROOT / "eval/data/drawings.classes.txt")
    parser.add_argument("--passes", type=int, default=6, help="times each drawing is seen")
    parser.add_argument("--strength", type=float, default=0.5, help="of the augmentation, 0 to 1")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--text-steps", type=int, default=1000)
    parser.add_argument("--vocab-size", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.cache = args.cache or args.out.with_name(args.out.name + "-cache")
    return args


def main() -> None:
    """Fetch, render, fit both towers, save and evaluate."""
    args, begun = parse_args(), time.monotonic()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    held_out, training = drawing_data.read_sets(args.cache)
    folded = drawing_data.fold(held_out, training)
    drawing_data.write_held_out(held_out, folded, args.eval_data, args.eval_names)
    data = drawing_data.gather(training, folded, args.cache)
    print(f"{len(data.pixels)} drawings of {len(data.concepts)} concepts", flush=True)
    visual, anchors = fit_images(args, data)
    model = fit_texts(args, data, anchors)
    model.visual.load_state_dict(visual)
    rotation.turn_values(model.visual.transformer.resblocks)
    model.logit_scale.data.fill_(math.log(LOGIT_SCALE))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(args.out / "open_clip_model.safetensors") as fresh:  # a reader never meets half a checkpoint
        save_file(weights, fresh, metadata={"format": "pt"})
    top1 = evaluate(args.out, args.eval_data, args.eval_names)
    print(f"held-out drawings: top-1 {100 * top1:.1f} %; {(time.monotonic() - begun) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
