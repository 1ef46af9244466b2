"""The text tower of clipq-tiny: its tokenizer, and its fit to the directions that the image tower's classes have."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from captions import Captions
from muon import Muon
from open_clip.model import CLIP

CONTEXT_LENGTH = 32
START, END, PAD = "<start_of_text>", "<end_of_text>", "<pad>"


def text_config(vocab_size: int) -> dict:
    """open_clip's configuration of the tower."""
    return {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": vocab_size,
        "hf_tokenizer_name": "clipq-tiny",  # only says "a tokenizer of its own": open_clip reads it from its folder
        "width": 192,
        "heads": 3,
        "layers": 3,
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> int:
    """Train a lower-cased byte-level BPE; its size. The end token gets the largest id: open_clip takes the argmax."""
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
    return tokenizer.get_vocab_size()


def encode_text(model: CLIP, ids: torch.Tensor) -> torch.Tensor:
    """Encode texts as the model does, less padding: the mask is causal, so what follows the end changes nothing."""
    order = (ids != 0).sum(1).argsort()
    parts = [_encode_trimmed(model, ids[part]) for part in order.chunk(3)]  # texts of like length together
    return torch.cat(parts)[order.argsort()]


def _encode_trimmed(model: CLIP, ids: torch.Tensor) -> torch.Tensor:
    length = int((ids != 0).sum(1).max())
    ids = ids[:, :length]
    hidden = model.token_embedding(ids) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(hidden[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection, dim=-1)


def make_optimizers(model: CLIP, rate: float, muon: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for all else of the tower."""
    tower = [model.token_embedding.weight, model.positional_embedding, model.text_projection]
    blocks = [*model.transformer.parameters(), *model.ln_final.parameters()]
    matrices = [p for p in blocks if p.ndim == 2]
    rest = [*tower, *(p for p in blocks if p.ndim < 2)]
    return [
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01),
        Muon(matrices, lr=muon, weight_decay=0.02),
    ]


def fit(model: CLIP, captions: Captions, anchors: torch.Tensor, steps: int, batch: int = 384, seed: int = 0) -> None:
    """Teach the text tower of `model` to give each text its anchor's direction; anchors [n, width].

    The loss is the distance by cosine and the cross-entropy against all anchors, so that the nearest ones, which
    decide, are told apart.
    """
    rng, anchors = random.Random(seed), F.normalize(anchors, dim=-1)
    goals, shares = captions.goals(anchors), captions.shares(len(anchors))
    optimizers = make_optimizers(model, 2e-3, 0.02)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    begun = time.monotonic()
    for step in range(steps):
        done = step / steps
        pace = min(1, done / 0.04) * max(0.005, 0.5 * (1 + math.cos(math.pi * done)))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * pace
        ids, rows = captions.draw(batch, rng)
        text = encode_text(model, ids)
        far = 1 - (text * goals[rows]).sum(1).mean()
        loss = 10 * far + F.cross_entropy(30 * text @ anchors.T, shares[rows])
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"texts: step {step} of {steps}, cosine {1 - far.item():.4f}, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
