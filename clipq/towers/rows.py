"""Towers run over rows: without the tokens, and the rows of the last block, that no embedding depends on.

A causal text tower reads one token, and that one sees only those before it: what follows is never computed, prompts lie
end to end without padding, and equal prompts are computed once. A tower that reads one token needs the last block for
that token only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.layers import run_by_compiler
from ..native.texts import distinct
from .fused import FusedStack
from .runs import Runs
from .sequences import Sequences
from .transformer import Block, run_blocks


@dataclass(frozen=True)
class Tower:
    """One tower as the runner needs it: the host's own modules and methods, looked at when called.

    `embed`: pixels to [batch, tokens, width], with class token, positions and the norm before the blocks, or to a pair
    of that and a `Rotary`; for texts (ids [rows], positions [rows]) to [rows, width]. `head`: pooled rows [n, width],
    or [batch, tokens, width] where `pool` is None, to what the tower gives. `pool`: the token that an embedding is read
    from: its index, None for all tokens, or for texts a function of ids [batch, tokens] that gives int64 [batch].
    `parts`: the modules that are stood in for. `context`: the most tokens of a text. `vocabulary`: how many token ids
    there are. `classed`: of texts that end in a class token, which the embedding is read from: ids [batch, tokens] to
    how many of each text's tokens, from the first on, are attended to (int64 [batch]), and whether the class token is
    not attended to (bool [batch]).
    """

    blocks: tuple[Block, ...]
    embed: Callable[..., Tensor]
    head: Callable[[Tensor], Tensor]
    parts: tuple[nn.Module, ...]
    pool: int | Callable[[Tensor], Tensor] | None = 0
    causal: bool = False
    context: int = 0
    vocabulary: int = 0
    classed: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    @cached_property
    def stack(self) -> FusedStack:
        """The blocks as one native call, where they are int8 and on the CPU."""
        return FusedStack(self.blocks)

    @cached_property
    def runs(self) -> Runs:
        """The blocks one by one, where only some of them are."""
        return Runs(self.blocks)


def run_image(tower: Tower, pixels: Tensor) -> Tensor:
    """What the host's own tower makes of preprocessed images: [batch, 3, height, width] to [batch, out]."""
    x, sequences = _embedded(tower, pixels)
    batch, tokens, width = x.shape
    keep = None if tower.pool is None else sequences.offsets[:-1] + tower.pool
    rows = _run(tower, x.reshape(-1, width), sequences, keep)
    return tower.head(rows.view(batch, tokens, -1) if keep is None else rows)


def run_tokens(tower: Tower, pixels: Tensor) -> Tensor:
    """All tokens after the last block, [batch, tokens, width], of preprocessed images."""
    x, sequences = _embedded(tower, pixels)
    return _run(tower, x.flatten(0, 1), sequences, None).view(x.shape)


def _embedded(tower: Tower, pixels: Tensor) -> tuple[Tensor, Sequences]:
    """[batch, tokens, width] and where its rows lie."""
    found = tower.embed(pixels)
    x, rotary = found if isinstance(found, tuple) else (found, None)
    return x, Sequences.equal(*x.shape[:2], rotary)


def run_in_two(tower: Tower, pixels: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """As `run_image` where one token is read, and what gives `run_tokens` for the price of the last block."""
    x, sequences = _embedded(tower, pixels)
    rows = _run(tower, x.flatten(0, 1), sequences, None, slice(-1))
    last = slice(-1, None)
    pooled = _run(tower, rows, sequences, sequences.offsets[:-1] + tower.pool, last)
    return tower.head(pooled), lambda: _run(tower, rows, sequences, None, last).view(x.shape)


def knows_ids(tower: Tower, ids: Tensor) -> bool:
    """Whether all token ids [batch, tokens] are of the vocabulary, those after the end of a text too.

    No embedding depends on these and they are never looked up, but the host refuses them.
    """
    if torch.compiler.is_compiling():  # every token is looked up then
        return True
    lowest, highest = ids.aminmax()
    return int(lowest) >= 0 and int(highest) < tower.vocabulary


def run_text(tower: Tower, ids: Tensor) -> Tensor:
    """What the host's own tower makes of token ids: [batch, tokens] to [batch, out]."""
    if torch.compiler.is_compiling():
        return _run_whole_text(tower, ids)
    places, which = distinct(row.tobytes() for row in ids.cpu().numpy())
    run = _run_text if tower.classed is None else _run_classed
    if len(places) < len(ids):
        return run(tower, ids[places])[which]
    return run(tower, ids)


def _run_classed(tower: Tower, ids: Tensor) -> Tensor:
    """As `_run_text`: each text's seen tokens and then its class token, at the place after the context."""
    counts, unseen = (part.cpu() for part in tower.classed(ids))
    found: list[tuple[Tensor, Tensor]] = []
    for last_unseen in (False, True):
        which = (unseen == last_unseen).nonzero().flatten()
        if len(which):
            sequences = Sequences.of_lengths(counts[which] + 1, last_unseen=last_unseen)
            found.append((which, _run_with_class(tower, ids[which.to(ids.device)], sequences)))
    if len(found) == 1:
        return found[0][1]
    order = torch.cat([which for which, _ in found]).argsort()
    return torch.cat([rows for _, rows in found])[order]


def _run_with_class(tower: Tower, ids: Tensor, sequences: Sequences) -> Tensor:
    tokens = ids.shape[1]
    places = torch.arange(tokens + 1).expand(len(ids), -1)
    used = ((places < sequences.lengths[:, None] - 1) | (places == tokens)).to(ids.device)
    ids, positions = F.pad(ids, (0, 1))[used], places.to(ids.device)[used]
    return tower.head(_run(tower, tower.embed(ids, positions), sequences, sequences.offsets[1:] - 1))


def _run_text(tower: Tower, ids: Tensor) -> Tensor:
    batch, tokens = ids.shape
    pooled = tower.pool(ids).cpu()
    sequences = Sequences.of_lengths(pooled + 1) if tower.causal else Sequences.equal(batch, tokens)
    positions = torch.arange(sequences.longest, device=ids.device).expand(batch, -1)
    ids = ids[:, : sequences.longest]
    if not sequences.uniform:
        used = positions < sequences.lengths.to(ids.device)[:, None]
        ids, positions = ids[used], positions[used]
    rows = tower.embed(ids.reshape(-1), positions.reshape(-1))
    return tower.head(_run(tower, rows, sequences, sequences.offsets[:-1] + pooled))


def _run_whole_text(tower: Tower, ids: Tensor) -> Tensor:
    """As `_run_text` with every token computed: a compiled graph cannot depend on how long the texts are."""
    batch, tokens = ids.shape
    sequences = Sequences.equal(batch, tokens)
    positions = torch.arange(tokens, device=ids.device).expand(batch, -1)
    rows = tower.embed(ids.reshape(-1), positions.reshape(-1))
    return tower.head(_run(tower, rows, sequences, sequences.offsets[:-1] + tower.pool(ids).cpu()))


def _run(tower: Tower, rows: Tensor, sequences: Sequences, keep: Tensor | None, blocks: slice = slice(None)) -> Tensor:
    if tower.stack.fits(rows):
        return tower.stack(rows, sequences, tower.causal, keep, blocks)
    if tower.stack.is_partly_int8():
        _give_runs(tower)
        return tower.runs(rows, sequences, tower.causal, keep, blocks)
    return run_blocks(tower.blocks[blocks], rows, sequences, tower.causal, keep)


@run_by_compiler
def _give_runs(tower: Tower) -> None:
    """Make `tower.runs`. What a compiler makes while it traces does not exist yet."""
    _ = tower.runs
