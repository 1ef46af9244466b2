"""Bias correction: the mean of what rounding changes in a linear's outputs goes into its bias, at no cost later.

Nagel et al., arXiv:1906.04721 (there also without inputs). After a GELU most values lie between -0.17 and 0, within a
few steps of zero, and what rounding does to them is not zero on average.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .work import Floats, Work


def correct_biases(work: Work) -> None:
    """Make each linear's mean output over the inputs what it was, for every linear that has a bias."""
    chosen = [one for one in work.floats.values() if one.bias is not None]
    sums = {one: torch.zeros(2, one.weight.shape[1], dtype=torch.float64) for one in chosen}
    counts = dict.fromkeys(chosen, 0)

    def see(one: Floats, rows: Tensor) -> None:
        sums[one] += torch.stack([rows.double().sum(0), one.rounded_inputs(rows).double().sum(0)]).cpu()
        counts[one] += len(rows)

    work.observe(chosen, see)
    for one in chosen:
        exact, rounded = (sums[one] / max(counts[one], 1)).to(one.bias.device).float()
        one.bias = one.bias + one.weight @ exact - one.dequantized() @ rounded
