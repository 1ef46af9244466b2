"""Statistics of two classifiers on the same images: standard library only.

Both answer the same images, so what matters are the discordant ones: `lost` (the baseline right, the model wrong)
and `gained` (the other way round). Everything here needs those two counts and the number of images.
"""

from __future__ import annotations

import math

from ..errors import ResultError

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
_Z80 = 0.8416212335729143  # 80 % quantile: the power of `minimum_detectable_drop`


def drop_interval(lost: int, gained: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of the drop `(lost - gained) / n`, a paired difference of proportions.

    All bounds `d` that the score test does not reject: with `q` the likeliest share of gained images if the drop is
    `d`, the bounds solve `(lost - gained - n d)**2 = z**2 n (2 q + d (1 - d))`. Keeps its level at a few discordant
    images, where the normal approximation is far too narrow (and has width 0 at none).
    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998) 891-908.

    Returns `(low, high)` as shares in [-1, 1]. Raises `ResultError` for impossible counts.
    """
    _check(lost, gained, n)
    drop = (lost - gained) / n
    return _bound(lost, gained, n, z, drop, -1.0), _bound(lost, gained, n, z, drop, 1.0)


def _bound(lost: int, gained: int, n: int, z: float, inside: float, outside: float) -> float:
    """Bisect between a difference that the test accepts and an end of the range, down to rounding."""
    if abs(_score(lost, gained, n, outside)) <= z:
        return outside
    for _ in range(100):
        middle = (inside + outside) / 2
        if abs(_score(lost, gained, n, middle)) <= z:
            inside = middle
        else:
            outside = middle
    return inside


def _score(lost: int, gained: int, n: int, d: float) -> float:
    """Tango's score statistic of the hypothesis that the drop is `d`: about standard normal under it."""
    distance = lost - gained - n * d
    linear = -lost - gained + (2 * n - lost + gained) * d
    root = math.sqrt(max(linear * linear + 8 * n * gained * d * (1 - d), 0.0))  # negative only beside `d` <= -1
    share = (root - linear) / (4 * n)
    variance = n * (2 * share + d * (1 - d))
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value of McNemar's test: could `lost` and `gained` be equally likely?

    Twice the smaller tail of a fair binomial, at most 1. Source: Q. McNemar, Psychometrika 12 (1947) 153-157.
    """
    _check(lost, gained, lost + gained or 1)
    n = lost + gained
    tail = sum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def proportion_interval(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share `hits / n`. Source: E. B. Wilson, JASA 22 (1927) 209-212."""
    _check(hits, 0, n)
    share, scale = hits / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def minimum_detectable_drop(n: int, discordant: float) -> float:
    """The smallest true drop (a share) that McNemar's test on `n` images finds at the 5 % level in 80 % of runs.

    discordant: share of images on which exactly one of the two models is right; taken as the drop itself where it is
    less, since a drop needs as many. The drop `d` solves `n d**2 = (z_97.5 sqrt(discordant) + z_80 sqrt(discordant -
    d**2))**2`; `nan` below 4 images, which show nothing. Source: R. J. Connor, Biometrics 43 (1987) 207-211.
    """
    if n < 1 or not 0 <= discordant <= 1:
        raise ResultError(f"no detectable drop for n={n}, discordant={discordant}: n >= 1, discordant in [0, 1]")

    def missed(d: float) -> bool:
        share = max(discordant, d)
        return d * math.sqrt(n) < Z95 * math.sqrt(share) + _Z80 * math.sqrt(share - d * d)

    low, high = 0.0, 1.0
    if missed(high):
        return math.nan
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if missed(middle) else (low, middle)
    return high


def _check(lost: int, gained: int, n: int) -> None:
    if lost < 0 or gained < 0 or n < 1 or lost + gained > n:
        raise ResultError(f"impossible counts: {lost} lost and {gained} gained of {n}; all >= 0 and at most n together")
