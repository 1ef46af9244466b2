"""Maps fitted on pairs of embeddings: orthogonal, and affine with a ridge, chosen by pairs that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError
from ..retrieval.ranks import overlap
from ..retrieval.search import in_blocks, nearest
from .maps import Map
from .methods import check_method

LEAST = 32
"""Pairs below which nothing is fitted."""

_RIDGES = tuple(10.0**power for power in (-5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 1))
"""Times the mean square of an input's dimension."""
_FOLDS = 4
_JUDGED = 1000  # pairs that candidates are compared on, at most
_AT = 10
_ONE_SPACE = 0.5  # of the median cosine; int4 of small models has 0.89, two models have none to speak of
_DEPTH = 32  # of the rankings that are compared: some rows more than that, for ties


@dataclass(frozen=True)
class Candidate:
    """A way to fit a map. towards: the map that a ridge shrinks to, "identity" or "orthogonal"; no ridge: that map."""

    towards: str
    ridge: float | None = None
    offset: bool = False

    @property
    def name(self) -> str:
        if self.ridge is None:
            return "none" if self.towards == "identity" else self.towards
        kind = "affine" if self.offset else "linear"
        return f"{kind}, ridge {self.ridge:.2g} towards {'none' if self.towards == 'identity' else self.towards}"


def fit(new: Tensor, old: Tensor, method: str = "best", offset: bool = True) -> Map:
    """The map under which `new` [n, in], embeddings as a model gives them, have the directions of `old` [n, out].

    method: "orthogonal" (Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31
    (1966)); "ridge", least squares that is pulled towards the orthogonal map or, of one width, towards no change
    (Hoerl & Kennard, Technometrics 12 (1970), with a target other than zero); "best" of all these and of no map.
    offset: whether a ridge may add a constant. What is chosen finds the most of the first ten rows, by pairs that each
    candidate was not fitted on (four-fold cross-validation), or is simpler and as good; then all pairs fit it.
    Raises `DataError` for fewer than 32 pairs, or rows that are not pairs.
    """
    _check(new, old, method)
    new, old = new.double(), F.normalize(old.double(), dim=1)
    candidates = _candidates(method, new.shape[1] == old.shape[1], offset)
    scores = _held_out(new, old, candidates) if len(candidates) > 1 else {}
    chosen = _chosen(scores) if scores else candidates[0]
    found = dict(_fitted(new, old, [chosen]))[chosen]
    shown = [one for one in candidates if one in scores and (one.ridge is None or one == chosen)]
    held_out = {one.name: float(scores[one].mean()) for one in shown}
    about = {"method": chosen.name, "pairs": len(new), "held_out_overlap_at_10": held_out}
    return Map(found.weight, found.offset, about, one_tower=_is_one_space(new, old))


def _is_one_space(new: Tensor, old: Tensor) -> bool:
    """Whether the two are one space but for noise, as a model and its quantized self are; the other tower is, too."""
    alike = new.shape[1] == old.shape[1]
    return alike and float(torch.cosine_similarity(new, old, dim=1).median()) >= _ONE_SPACE


def _chosen(scores: Mapping[Candidate, Tensor]) -> Candidate:
    """The best by its mean, or the simplest that is no worse than that by more than a standard error.

    One of many is the best by chance, too: Breiman et al., "Classification and Regression Trees" (1984), section 3.4.3.
    """
    best = max(scores, key=lambda one: float(scores[one].mean()))
    for one in scores:  # the simplest first
        worse = scores[best] - scores[one]
        if float(worse.mean()) <= float(worse.std()) / len(worse) ** 0.5:
            return one
    return best


def _check(new: Tensor, old: Tensor, method: str) -> None:
    check_method(method)
    if new.ndim != 2 or old.ndim != 2 or len(new) != len(old):
        raise DataError(f"a map is fitted on pairs of rows; these are {list(new.shape)} and {list(old.shape)}.")
    if len(new) < LEAST:
        raise DataError(f"a map cannot be fitted on {len(new)} pairs; give {LEAST} or more, better thousands.")
    if not (new.isfinite().all() and old.isfinite().all()):
        raise DataError("a map cannot be fitted on embeddings that are not finite; leave them out.")


def _candidates(method: str, one_width: bool, offset: bool) -> list[Candidate]:
    """The simplest first."""
    plain = [Candidate("identity")] if one_width and method == "best" else []
    plain += [] if method == "ridge" else [Candidate("orthogonal")]
    if method == "orthogonal":
        return plain
    towards = ("identity", "orthogonal") if one_width else ("orthogonal",)
    kinds = (False, True) if offset else (False,)
    return plain + [Candidate(one, ridge, kind) for one in towards for kind in kinds for ridge in reversed(_RIDGES)]


def _held_out(new: Tensor, old: Tensor, candidates: Sequence[Candidate]) -> dict[Candidate, Tensor]:
    """For each candidate the overlap@10 with what the old rows find, of pairs that it was not fitted on."""
    order = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))
    judged = order[:_JUDGED]
    reference = nearest(old[judged], in_blocks(old), judged, _DEPTH)
    mapped: dict[Candidate, list[Tensor]] = {one: [] for one in candidates}
    for fold in range(_FOLDS):
        out = torch.zeros(len(new), dtype=torch.bool)
        out[order[fold::_FOLDS]] = True
        own = judged[out[judged]]
        for one, found in _fitted(new[~out], old[~out], candidates):
            mapped[one].append(found(new[own]))
    places = torch.cat([torch.arange(len(judged))[fold::_FOLDS] for fold in range(_FOLDS)])
    back = places.argsort()
    at = min(_AT, reference.found)
    rows = {one: torch.cat(parts)[back] for one, parts in mapped.items()}
    return {one: overlap(reference, nearest(rows[one], in_blocks(old), judged, _DEPTH), at) for one in candidates}


def _fitted(new: Tensor, old: Tensor, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Map]]:
    """Every candidate, fitted on all these pairs; what they share is computed once."""
    lengths = new.norm(dim=1, keepdim=True).clamp(min=1e-30)
    units, least = new / lengths, {}
    start = {"identity": lambda: torch.eye(new.shape[1], dtype=torch.float64), "orthogonal": lambda: _turn(units, old)}
    starts = {name: start[name]() for name in {one.towards for one in candidates}}
    for one in candidates:
        prior = starts[one.towards]
        if one.ridge is None:
            yield one, Map(prior)
            continue
        if (key := (one.towards, one.offset)) not in least:
            least[key] = _least_squares(units, lengths if one.offset else None, old - units @ prior.T)
        change, offset = least[key](one.ridge)
        yield one, Map(prior + change, offset)


def _turn(units: Tensor, old: Tensor) -> Tensor:
    """[out, in] with orthonormal rows or columns: Procrustes."""
    left, _, right = torch.linalg.svd(old.T @ units, full_matrices=False)
    return left @ right


def _least_squares(
    units: Tensor, lengths: Tensor | None, rest: Tensor
) -> Callable[[float], tuple[Tensor, Tensor | None]]:
    """From a ridge to the linear part and the offset that bring `units` nearest to `rest` [n, out].

    The offset is added to embeddings of their own lengths [n, 1], so that a unit vector has its share of it.
    """
    scale = 1.0 if lengths is None else float(lengths.mean())
    inputs = units if lengths is None else torch.cat([units, scale / lengths], dim=1)
    values, vectors = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
    values = values.clamp(min=0)
    products = rest.T @ inputs / len(inputs) @ vectors
    mean, width = float(values.mean()), units.shape[1]

    def solved(ridge: float) -> tuple[Tensor, Tensor | None]:
        found = (products / (values + ridge * mean)) @ vectors.T
        return found[:, :width], None if lengths is None else found[:, width] * scale

    return solved
