"""The image tower of clipq-tiny: DeiT-Tiny, whose upper blocks and one more are fitted to drawings and photos at once.

The lower blocks stay as they are. What they make of every augmented drawing is computed once, by their int8 selves (so
that the upper blocks learn on what they will be given), and kept.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import augment
import deit
import torch
import torch.nn.functional as F
from closed_form import Start
from drawing_data import TrainingSet
from open_clip.transformer import VisionTransformer
from torch import nn

import clipq
from clipq.resources import atomic_path

FROZEN = 8
_SCALE = 28.0  # from cosines to logits, to start with
_SOURCE_SIZE = 160  # augmented at this size and enlarged: half the cost, and a little blur among the changes


class Upper(nn.Module):
    """The blocks above the frozen ones with the norm behind them; gives the class token, [batch, width]."""

    def __init__(self, tower: VisionTransformer) -> None:
        super().__init__()
        self.blocks, self.norm = tower.transformer.resblocks[FROZEN:], tower.ln_post

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: tokens [batch, tokens, width]."""
        return self.added(self.deit(hidden))

    def deit(self, hidden: torch.Tensor) -> torch.Tensor:
        """The tokens behind DeiT's own blocks."""
        for block in self.blocks[:-1]:
            hidden = block(hidden)
        return hidden

    def added(self, hidden: torch.Tensor) -> torch.Tensor:
        """The added block, for the class token alone, and the norm."""
        last, token = self.blocks[-1], hidden[:, :1]
        around = last.ln_1(hidden)
        token = token + last.attn(around[:, :1], around, around, need_weights=False)[0]
        return self.norm((token + last.mlp(last.ln_2(token)))[:, 0])


def lower_tokens(tower: VisionTransformer, pixels: torch.Tensor) -> torch.Tensor:
    """Tokens behind the frozen blocks, [batch, tokens, width]; pixels [batch, 3, size, size] in 0..1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (deit.MEAN, deit.STD))
    hidden = tower._embeds((pixels - mean) / std)
    for block in tower.transformer.resblocks[:FROZEN]:
        hidden = block(hidden)
    return hidden


@torch.inference_mode()
def cache_tokens(model, data: TrainingSet, number: int, strength: float, path: Path) -> Path:
    """Write one pass to learn from: the tokens of one augmented drawing of each group, and which ones they are."""
    if path.is_file():
        return path
    tower = clipq.quantize(copy.deepcopy(model), "int8").visual
    rng, generator = random.Random(number), torch.Generator().manual_seed(number)
    rows = [group[0] if rng.random() < 0.5 else rng.choice(group) for group in data.groups]
    tokens = []
    for part in torch.tensor(rows).split(32):
        drawn = torch.from_numpy(data.pixels[part.numpy()])
        images = augment.augment(drawn, data.flips(part.tolist()), _SOURCE_SIZE, generator, strength) / 2 + 0.5
        large = F.interpolate(images, size=deit.SIZE, mode="bicubic", align_corners=False)
        tokens.append(lower_tokens(tower, large).bfloat16())
    with atomic_path(path) as fresh:
        torch.save({"rows": torch.tensor(rows), "tokens": torch.cat(tokens)}, fresh)
    return path


def upper_state(fit: Fit) -> dict[str, torch.Tensor]:
    """What was trained, in the names of the image tower."""
    blocks = fit.upper.blocks.state_dict().items()
    state = {
        f"transformer.resblocks.{FROZEN + int(i)}.{rest}": t
        for (i, _, rest), t in ((k.partition("."), t) for k, t in blocks)
    }
    state |= {f"ln_post.{name}": tensor for name, tensor in fit.upper.norm.state_dict().items()}
    return state | {"proj": fit.projection.detach()}


@dataclass
class Passes:
    """All passes' tokens, in batches of a new order each time."""

    files: list[Path]
    batch: int

    def __len__(self) -> int:
        rows = [len(torch.load(file, mmap=True)["rows"]) for file in self.files]
        return sum(math.ceil(count / self.batch) for count in rows)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for file in self.files:
            held = torch.load(file, mmap=True)
            for part in torch.randperm(len(held["rows"])).split(self.batch):
                yield held["tokens"][part].float(), held["rows"][part]


def drop_patches(hidden: torch.Tensor, share: float) -> torch.Tensor:
    """Leave out a random share of the patches, other ones in each image; the class token stays."""
    count = hidden.shape[1] - 1
    kept = torch.rand(len(hidden), count).argsort(1)[:, : int(count * (1 - share))] + 1
    return torch.cat([hidden[:, :1], hidden.gather(1, kept[:, :, None].expand(-1, -1, hidden.shape[2]))], 1)


class Fit(nn.Module):
    """What is trained: the upper blocks, the projection, and an anchor for each concept and each ImageNet class."""

    def __init__(self, tower: VisionTransformer, start: Start) -> None:
        super().__init__()
        self.upper = Upper(tower)
        self.projection = nn.Parameter(start.projection)
        self.concepts, self.classes = nn.Parameter(start.concepts), nn.Parameter(start.classes)
        self.scales = nn.Parameter(torch.full((2,), _SCALE).log())

    def scores(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits over the concepts and over ImageNet's classes."""
        image, scales = F.normalize(features @ self.projection, dim=-1), self.scales.exp()
        return tuple(
            s * image @ F.normalize(a, dim=-1).T for s, a in zip(scales, (self.concepts, self.classes), strict=True)
        )


class Teacher:
    """The start, which the fit must not leave: its features, and what DeiT takes each picture for as a photo."""

    def __init__(self, upper: Upper, norm: nn.Module, rows: torch.Tensor) -> None:
        self.upper, self.norm, self.rows = copy.deepcopy(upper).eval(), copy.deepcopy(norm), rows

    @torch.no_grad()
    def __call__(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The start's features [batch, width], and probabilities of ImageNet's classes [batch, 1000]."""
        hidden = self.upper.deit(hidden)
        token = F.normalize(self.norm(hidden[:, 0]).float(), dim=-1)
        return self.upper.added(hidden).float(), (_SCALE * token @ self.rows.T).softmax(-1)


def loss_of(fit: Fit, teacher: Teacher, hidden: torch.Tensor, concepts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the concepts; what DeiT says of photos, distilled; and the features kept near the start's."""
    with torch.autocast("cpu", torch.bfloat16):
        before, photos = teacher(hidden)
        features = fit.upper(hidden).float()
    by_concept, by_class = fit.scores(features)
    named = F.cross_entropy(by_concept, concepts, label_smoothing=0.1)
    away = 1 - F.cosine_similarity(features, before, dim=-1).mean()
    return named + F.cross_entropy(by_class, photos) + 10 * away


def optimizer_of(fit: Fit, rate: float) -> torch.optim.Optimizer:
    """AdamW; the anchors move fastest, and only the blocks decay."""
    rates = (
        (fit.upper.parameters(), 1.0, 0.02),
        ([fit.concepts], 25.0, 0.0),
        ([fit.projection, fit.classes], 2.5, 0.0),
    )
    groups = [{"params": [*params], "lr": rate * times, "weight_decay": decay} for params, times, decay in rates]
    groups.append({"params": [fit.scales], "lr": 1e-3, "weight_decay": 0.0})
    for group in groups:
        group["peak"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train(fit: Fit, teacher: Teacher, passes: Passes, concept_of: torch.Tensor, rate: float = 1.2e-4) -> Fit:
    """Train on all passes, on half of the patches in the first half of them; the moving average of the weights."""
    average, optimizer, begun = copy.deepcopy(fit), optimizer_of(fit, rate), time.monotonic()
    steps = len(passes)
    for step, (hidden, rows) in enumerate(passes):
        done = step / steps
        pace = max(0.01, min(1, done / 0.05) * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * pace
        loss = loss_of(fit, teacher, drop_patches(hidden, 0.5) if done < 0.5 else hidden, concept_of[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fit.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), fit.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(0.995, (1 + step) / (10 + step)))
        if step % 25 == 0:
            print(f"images: step {step} of {steps}, loss {loss:.3f}, {time.monotonic() - begun:.0f} s", flush=True)
    return average
