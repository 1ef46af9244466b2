"""Towers of which some blocks are int8: the same bits as block by block, and native calls for neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fused_helpers import keeps, model, rows_for
from torch import nn

from clipq.arithmetic.precisions import PRECISIONS
from clipq.native import library
from clipq.towers import runs
from clipq.towers.fused import FusedStack
from clipq.towers.runs import Runs
from clipq.towers.transformer import Block, run_blocks

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
FLOAT, WEIGHT_ONLY = PRECISIONS["fp32"], PRECISIONS["int8-weight-only"]


def mixed(pattern: str, kind, name: str = "open_clip CLIP"):
    return model(name, replace(PRECISIONS["int8"], name="mixed", exceptions=((pattern, kind),)))


def blocks_of(quantized: str) -> tuple[Block, ...]:
    """Blocks of one width, int8 where there is an "8", float where there is an "f"."""
    found = []
    for seed, letter in enumerate(quantized):
        of = model("open_clip CLIP", "int8" if letter == "8" else "fp32", seed)
        found.append(of.host.tower(of.module, "image").blocks[seed % 2])
    return tuple(found)


@pytest.mark.parametrize("kinds", ["8f", "f8", "88f8", "f88f", "8f8f", "ff", "888"])
@pytest.mark.parametrize("causal", [False, True])
@torch.inference_mode()
def test_runs_are_the_same_bits_as_block_by_block(kinds: str, causal: bool) -> None:
    blocks = blocks_of(kinds)
    x, sequences = rows_for(any_tower(), [3, 7, 1])
    for keep in keeps(sequences):
        y = x
        for place, block in enumerate(blocks):
            own = keep if place == len(blocks) - 1 else None
            alone = FusedStack((block,))
            y = alone(y, sequences, causal, own) if alone.fits(y) else run_blocks([block], y, sequences, causal, own)
        assert torch.equal(Runs(blocks)(x, sequences, causal, keep, slice(None)), y)
    before = Runs(blocks)(x, sequences, causal, None, slice(-1))
    assert torch.equal(Runs(blocks)(before, sequences, causal, keep, slice(-1, None)), y)


def any_tower():
    """What `rows_for` looks at: a tower of that width."""
    of = model("open_clip CLIP")
    return of.host.tower(of.module, "image")


@torch.inference_mode()
def test_neighbours_are_one_native_call(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(FusedStack, "__call__", lambda self, x, *_: calls.append(len(self._fused)) or x)
    monkeypatch.setattr(runs, "run_blocks", lambda blocks, x, *_: calls.append(-len(blocks)) or x)
    of = Runs(blocks_of("88f888ff8"))
    x, sequences = rows_for(any_tower(), [4])
    of(x, sequences, False, None, slice(None))
    assert calls == [2, -1, 3, -2, 1]


PATTERNS = {"open_clip CLIP": "visual*.0.*", "transformers CLIP": "vision*.0.*", "timm vision_transformer": "*s.0.*"}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("kind", [FLOAT, WEIGHT_ONLY])
@torch.inference_mode()
def test_the_models_own_call_runs_its_int8_blocks_natively(name: str, kind, monkeypatch) -> None:
    of = mixed(PATTERNS[name], kind, name)
    tower = of.host.tower(of.module, "image")
    assert not tower.stack.fits(torch.zeros(1, tower.blocks[1].out_proj.in_features))
    assert len(tower.runs.pack()) == len(parts(tower.blocks[1:]))
    calls, native = [], FusedStack.__call__

    def watched(self, *args):
        calls.append(self._fused)
        return native(self, *args)

    monkeypatch.setattr(FusedStack, "__call__", watched)
    pixels = torch.randn(3, *of.host.pixel_shape(of.module))
    exact = model(name, "fp32").encode_image(pixels)
    assert torch.cosine_similarity(of.encode_image(pixels), exact).min() > 0.99
    assert [len(one) for one in calls] == [len(tower.blocks) - 1]


def parts(blocks) -> list[nn.Module]:
    return [part for one in blocks for part in one.linears]


@torch.inference_mode()
def test_what_changes_between_calls_is_seen() -> None:
    of = mixed("visual*.0.*", FLOAT)
    pixels = torch.randn(2, 3, 32, 32)
    before = of.encode_image(pixels)
    last = of.host.tower(of.module, "image").blocks[1].fc2
    last.qweight = -last.qweight
    last.drop_kernel()
    after = of.encode_image(pixels)
    assert not torch.allclose(before, after)
    last.qweight = -last.qweight
    last.drop_kernel()
    assert torch.equal(of.encode_image(pixels), before)
