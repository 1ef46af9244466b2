"""Train clipq's own small CLIP on openly licensed drawings and measure it on a style it never saw.

One command does everything, from fetching to the measured numbers; a CPU is enough:

    python scripts/training/train_tiny.py --out tiny

It needs npm (to fetch the drawings) and the Python packages resvg_py, open_clip_torch, transformers and Pillow.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import augment
import drawings
import packing
import tiny_training

IMAGE_SIZE = 72
SOURCE_SIZE = 96
ROOT = Path(__file__).resolve().parents[2]
CONTEXT_LENGTH = 24
START, END, PAD = "<start_of_text>", "<end_of_text>", "<pad>"


@dataclass
class TrainingSet:
    """Rendered drawings with their concepts: what one run trains on."""

    pixels: torch.Tensor  # [drawings, size, size, 4] uint8
    groups: list[list[int]]  # rows of one concept in one set; the untinted drawing comes first
    concept_of: list[int]  # by group
    concepts: list[str]
    names: list[list[str]]  # by concept, its own name first


@dataclass
class Captions:
    """Token ids of every caption of every concept."""

    ids: list[torch.Tensor]  # by concept: [names * templates, context]
    templates: int

    def draw(self, concept: int, rng: random.Random) -> torch.Tensor:
        """Draw one caption; three times in four it uses the concept's own name."""
        ids = self.ids[concept]
        name = 0 if rng.random() < 0.75 else rng.randrange(len(ids) // self.templates)
        template = 0 if rng.random() < 0.4 else rng.randrange(self.templates)
        return ids[name * self.templates + template]


def read_sets(cache: Path) -> tuple[drawings.Icons, list[drawings.Icons]]:
    """Fetch and read the held-out set and the training sets."""
    held_out = drawings.read_set(drawings.HELD_OUT, drawings.fetch_set(drawings.HELD_OUT, cache))
    return held_out, [drawings.read_set(s, drawings.fetch_set(s, cache)) for s in drawings.TRAINING_SETS]


def _render(drawing: drawings.Drawing) -> np.ndarray:
    return drawings.render(drawing, SOURCE_SIZE)


def render_all(chosen: list[drawings.Drawing], path: Path) -> torch.Tensor:
    """Render every drawing once, in parallel, and keep the pixels on disk for the next run."""
    if not path.is_file():
        with Pool() as pool:
            np.save(path, np.stack(pool.map(_render, chosen, chunksize=64)))
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def gather(training: list[drawings.Icons], folded: drawings.Concepts, cache: Path) -> TrainingSet:
    """Collect and render the training drawings, grouped by concept and set."""
    spaced = [icons for icons in training if icons.source.name not in drawings.LOOSE_SETS]
    chosen = []
    for icons in training:
        loose = None if icons in spaced else drawings.loose_names(icons, folded)
        chosen += sorted(drawings.drawings_of(icons, folded, loose), key=lambda d: (d.concept, d.tone))
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, drawing in enumerate(chosen):
        rows[drawing.set_name, drawing.concept].append(row)
    concepts = sorted({concept for _, concept in rows})
    index = {concept: i for i, concept in enumerate(concepts)}
    other = folded.names()
    names = [[c, *(n for n in other[c] if n != c and not n.startswith("flag-"))] for c in concepts]
    pixels = render_all(chosen, cache / f"drawings-{SOURCE_SIZE}.npy")
    return TrainingSet(pixels, list(rows.values()), [index[c] for _, c in rows], concepts, names)


def write_held_out(icons: drawings.Icons, folded: drawings.Concepts, data: Path, names: Path) -> None:
    """Write the held-out pictures, one a concept, and the concepts' names in class order."""
    coded = set(icons.codes.values())
    plain = {}
    for name in sorted(icons.svg, key=lambda n: (n in coded, n.endswith("-facing-right"), n)):
        concept = folded.find(drawings.fold_name(name, icons.svg))
        if not drawings.split_tone(name, icons.svg)[1] and not (concept in plain and name.endswith("-facing-right")):
            plain[concept] = drawings.Drawing(concept, icons.source.name, "", icons.svg[name])
    concepts = sorted(plain)
    pictures = (drawings.on_white(drawings.render(plain[c], IMAGE_SIZE)) for c in concepts)
    packing.write_parquet(data, ((picture, i) for i, picture in enumerate(pictures)))
    names.write_text("".join(f"{drawings.words(c)}\n" for c in concepts), encoding="utf-8")


def train_tokenizer(texts: list[str], vocab_size: int, folder: Path) -> None:
    """Train a lower-cased byte-level BPE; the end token gets the largest id, where open_clip's argmax finds it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size - 2, special_tokens=[PAD], initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens([START, END])
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=CONTEXT_LENGTH
    )
    fast.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name every release of transformers knows
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_config(folder: Path, vocab_size: int) -> dict:
    """Write open_clip's configuration of the model and return it."""
    vision = {"image_size": IMAGE_SIZE, "patch_size": 12, "width": 192, "layers": 6, "head_width": 64}
    text = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": vocab_size,
        "hf_tokenizer_name": "clipq-tiny",  # only says "a tokenizer of its own": open_clip reads it from this folder
        "width": 192,
        "heads": 3,
        "layers": 3,
    }
    half = [0.5, 0.5, 0.5]
    config = {
        "model_cfg": {"embed_dim": 192, "quick_gelu": False, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config


def prepare_text(data: TrainingSet, folder: Path, vocab_size: int) -> tuple[Captions, dict]:
    """Train the tokenizer on the captions, write it with the configuration, and tokenize all captions."""
    texts = [[t for name in names for t in drawings.captions(name)] for names in data.names]
    train_tokenizer([t for group in texts for t in group], vocab_size, folder)
    size = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]) + 2
    config = write_config(folder, size)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    return Captions([tokenize(group) for group in texts], len(drawings.TEMPLATES)), config


class Batches:
    """Endless batches of augmented drawings and captions, every group once an epoch, in a seeded order."""

    def __init__(self, data: TrainingSet, captions: Captions, args: argparse.Namespace) -> None:
        self.data, self.captions, self.size, self.extra = data, captions, args.batch, args.extra
        self.strength = args.strength
        self.rng = random.Random(args.seed)
        self.generator = torch.Generator().manual_seed(args.seed)
        self.flips = torch.tensor([drawings.can_flip(concept) for concept in data.concepts])
        self.order: list[int] = []

    def next(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, token ids (the batch's, then the distracting ones) and the concepts of both."""
        if len(self.order) < self.size:
            fresh = list(range(len(self.data.groups)))
            self.rng.shuffle(fresh)
            self.order += fresh
        chosen, self.order = self.order[: self.size], self.order[self.size :]
        rows = [self._row(self.data.groups[group]) for group in chosen]
        labels = [self.data.concept_of[group] for group in chosen]
        flips = self.flips[torch.tensor(labels)]
        images = augment.augment(self.data.pixels[rows], flips, IMAGE_SIZE, self.generator, self.strength)
        labels += [self.rng.randrange(len(self.data.concepts)) for _ in range(self.extra)]
        ids = torch.stack([self.captions.draw(label, self.rng) for label in labels])
        return images, ids, torch.tensor(labels)

    def _row(self, rows: list[int]) -> int:
        return rows[0] if self.rng.random() < 0.5 else self.rng.choice(rows)


@torch.no_grad()
def evaluate(folder: Path, data: Path, names: Path) -> dict[str, float]:
    """Measure zero-shot classification of the held-out drawings with the model as saved."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    classes = names.read_text(encoding="utf-8").splitlines()
    pictures, labels = packing.read_parquet(data)
    labels, images = torch.tensor(labels), torch.stack([transform(picture) for picture in pictures])
    image = torch.cat([model.encode_image(part, normalize=True) for part in images.split(256)])
    prompts = [tokenize([template.format(c=c) for c in classes]) for template in drawings.TEMPLATES]
    text = sum(model.encode_text(ids, normalize=True) for ids in prompts)
    scores = image @ F.normalize(text, dim=-1).T
    top = scores.topk(5, dim=1).indices == labels[:, None]
    recalls = [top[labels == label, 0].float().mean().item() for label in labels.unique()]
    means = {"top1": top[:, 0].float().mean().item(), "top5": top.any(1).float().mean().item()}
    return {"n": len(pictures), **means, "mean_per_class": sum(recalls) / len(recalls)}


def report(model, args: argparse.Namespace) -> None:
    """Save the model and print what it reaches on the held-out style."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    fresh = args.out / "open_clip_model.new"
    save_file(weights, fresh, metadata={"format": "pt"})
    fresh.replace(args.out / "open_clip_model.safetensors")  # a reader never meets half a checkpoint
    scores = evaluate(args.out, args.eval_data, args.eval_names)
    print(" ".join(f"{key} {value:.4f}" if key != "n" else f"n {value}" for key, value in scores.items()), flush=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model (open_clip local-dir format)")
    parser.add_argument("--cache", type=Path, default=None, help="folder for packages and pixels (default: OUT-cache)")
    parser.add_argument("--eval-data", type=Path, default=ROOT / "eval/data/drawings.parquet")
    parser.add_argument("--eval-names", type=Path, default=ROOT / "eval/data/drawings.classes.txt")
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--minutes", type=float, default=None, help="train this long instead of a number of epochs")
    parser.add_argument("--strength", type=float, default=0.4, help="of the augmentation, 0 to 1")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--extra", type=int, default=48, help="extra captions a batch, as wrong answers")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--muon", type=float, default=0.02, help="Muon's rate for the blocks' matrices; 0: AdamW")
    parser.add_argument("--average", type=float, default=0.995, help="decay of the averaged weights")
    parser.add_argument("--patch-dropout", type=float, default=0.4)
    parser.add_argument("--dropped", type=float, default=0.6, help="share of the run with patch dropout")
    parser.add_argument("--resume", action="store_true", help="go on from the model in --out, with a fresh schedule")
    parser.add_argument("--save-every", type=int, default=350, help="steps between checkpoints")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.cache = args.cache or args.out.with_name(args.out.name + "-cache")
    return args


def main() -> None:
    """Fetch, render, train, save and evaluate."""
    args = parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    held_out, training = read_sets(args.cache)
    spaced = [icons for icons in training if icons.source.name not in drawings.LOOSE_SETS]
    folded = drawings.fold_concepts(held_out, spaced)
    write_held_out(held_out, folded, args.eval_data, args.eval_names)
    data = gather(training, folded, args.cache)
    captions, config = prepare_text(data, args.out, args.vocab_size)
    config = config["model_cfg"]
    model = CLIP(
        config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]), quick_gelu=False
    )
    if args.resume:
        model.load_state_dict(load_file(args.out / "open_clip_model.safetensors"))
    size = sum(p.numel() for p in model.parameters())
    print(f"{len(data.pixels)} drawings of {len(data.concepts)} concepts; {size} parameters", flush=True)
    batches = Batches(data, captions, args)
    report(tiny_training.train(model, batches, args, lambda average: report(average, args)), args)


if __name__ == "__main__":
    main()
