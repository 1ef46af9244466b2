"""How the tiny CLIP is trained: texts without padding, losses, Muon in fp32, schedule, averaged weights."""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.transformer import PatchDropout


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, labels: torch.Tensor):
    """Symmetric contrastive loss where a concept's every caption in the batch is right; extra texts only distract."""
    logits = scale * image @ text.T
    size = len(image)
    same = (labels[:size, None] == labels[None, :]).float()
    right = same / same.sum(1, keepdim=True)
    back = same[:, :size] / same[:, :size].sum(0)
    by_image = -(right * logits.log_softmax(1)).sum(1).mean()
    by_text = -(back * logits[:, :size].log_softmax(0)).sum(0).mean()
    return (by_image + by_text) / 2


def encode_text(model, ids: torch.Tensor) -> torch.Tensor:
    """Encode texts as the model does, less padding: the mask is causal, so what follows the end changes nothing."""
    order = (ids != 0).sum(1).argsort()
    parts = [_encode_trimmed(model, ids[part]) for part in order.chunk(3)]  # texts of like length together
    return torch.cat(parts)[order.argsort()]


def _encode_trimmed(model, ids: torch.Tensor) -> torch.Tensor:
    length = int((ids != 0).sum(1).max())
    ids = ids[:, :length]
    hidden = model.token_embedding(ids) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(hidden[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection, dim=-1)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) in fp32: momentum made orthogonal; torch's own computes in bf16, slow on a CPU."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update every matrix, those of one shape together."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                turned = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                for p, update in zip(params, turned, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * max(1, shape[0] / shape[1]) ** 0.5)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Bring every matrix's singular values near 1, by five Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def make_optimizers(model, anchors: torch.nn.Parameter, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for all else; both remember the rate they start from."""
    blocks = [*model.visual.transformer.parameters(), *model.transformer.parameters()]
    matrices = [p for p in blocks if p.ndim == 2] if args.muon else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim < 2] + [anchors], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), eps=1e-6)]
    optimizers += [Muon(matrices, lr=args.muon)] if args.muon else []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_pace(model, optimizers, done: float, args: argparse.Namespace) -> None:
    """Set learning rate and patch dropout for the share of the run that is done."""
    warm = 0.04
    share = done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * max(share, 0.01)
    # Seeing half of the patches halves the cost; the last part sees them all, as the model will in use.
    model.visual.patch_dropout.prob = args.patch_dropout if done < args.dropped else 0.0


def train(model, batches, args: argparse.Namespace, report: Callable) -> torch.nn.Module:
    """Train for the given epochs or minutes, reporting now and then; return the moving average of the weights."""
    model.visual.patch_dropout = PatchDropout(args.patch_dropout)
    average = copy.deepcopy(model).eval()
    anchors = make_anchors(model, batches, args)
    optimizers = make_optimizers(model, anchors, args)
    total = math.ceil(args.epochs * len(batches.data.groups) / batches.size)
    start, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        set_pace(model, optimizers, done, args)
        loss = train_step(model, optimizers, anchors, batches)
        step += 1
        follow(average, model, min(args.average, (1 + step) / (10 + step)))
        elapsed = time.monotonic() - start
        done = elapsed / (60 * args.minutes) if args.minutes else step / total
        if step % 25 == 0:
            epoch = step * batches.size / len(batches.data.groups)
            print(f"step {step} epoch {epoch:.2f} done {done:.3f} loss {loss:.3f} {elapsed:.0f} s", flush=True)
        if step % args.save_every == 0:
            report(average)
    return average


@torch.no_grad()
def make_anchors(model, batches, args: argparse.Namespace) -> torch.nn.Parameter:
    """Start every concept's anchor at random, or in a resumed run at what the model makes of the concept's name."""
    if args.resume:
        return torch.nn.Parameter(encode_text(model, torch.stack([ids[0] for ids in batches.captions.ids])))
    return torch.nn.Parameter(torch.randn(len(batches.data.concepts), model.text_projection.shape[1]) * 0.05)


def train_step(model, optimizers, anchors: torch.nn.Parameter, batches) -> float:
    """Make one step on the next batch.

    A batch holds a tenth of the concepts. A learned anchor for each concept, dropped after training, lets every image
    and every caption be told from all of them, for the cost of one small matrix.
    """
    images, ids, labels = batches.next()
    image, text, scale = model.encode_image(images, normalize=True), encode_text(model, ids), model.logit_scale.exp()
    by_anchor = scale * torch.cat([image, text]) @ F.normalize(anchors, dim=-1).T
    wanted = torch.cat([labels[: len(image)], labels])
    own = F.cross_entropy(by_anchor[: len(image)], wanted[: len(image)]) + F.cross_entropy(
        by_anchor[len(image) :], wanted[len(image) :]
    )
    loss = contrastive_loss(image, text, scale, labels) + own
    anchors.grad = None
    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    model.logit_scale.data.clamp_(0, math.log(100))
    return loss.item()


@torch.no_grad()
def follow(average, model, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
