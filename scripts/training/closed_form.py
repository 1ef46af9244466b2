"""Where the fit starts: DeiT's features whitened for drawings and still read for photos, computed without training.

Class token and mean of the patches know more together than apart. A block can add the mean to the class token: with
queries and keys near nothing it attends to all tokens alike, and its output matrix turns the mean into what the
projection needs of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

_SHRINKAGE = 0.03  # of the covariance within a concept, towards a multiple of the identity
_RIDGE = 3e-3  # of the largest squared singular value, where the class token's part is inverted


@dataclass
class Start:
    """Projection [width, width], a direction for each concept and ImageNet class, and the block that adds the mean."""

    projection: torch.Tensor
    concepts: torch.Tensor
    classes: torch.Tensor
    block: nn.Module
    centre: torch.Tensor  # of the class token's features, to be taken off the norm's bias


def start(
    features: torch.Tensor, concept_of: torch.Tensor, rows: torch.Tensor, norm: nn.Module, spread: float
) -> Start:
    """Linear discriminant analysis of both features, cut to the width by what the anchors of both worlds need.

    features: [drawings, 2 * width], class token and mean of the patches behind the last norm; rows: [classes, width],
    ImageNet's directions for the class token; norm: that norm; spread: the class token's mean standard
    deviation before it.
    """
    width = features.shape[1] // 2
    means, centre = _means(features, concept_of)
    whitening = _whitening(features - means[concept_of])
    concepts = F.normalize((means - centre) @ whitening, dim=-1)
    classes = F.normalize(F.pad(rows, (0, width)) @ torch.linalg.inv(whitening).T, dim=-1)
    both = torch.cat([concepts / len(concepts) ** 0.5, classes / len(classes) ** 0.5])
    kept = torch.linalg.svd(both, full_matrices=False)[2][:width].T
    token, mean = (whitening @ kept).split(width)
    block = _adding_block(_solved(token, mean), centre[width:], norm, spread)
    projection = token / token.norm() * width**0.5
    return Start(
        projection, F.normalize(concepts @ kept, dim=-1), F.normalize(classes @ kept, dim=-1), block, centre[:width]
    )


def _means(features: torch.Tensor, concept_of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each concept, and the mean of these."""
    count = int(concept_of.max()) + 1
    sums = torch.zeros(count, features.shape[1]).index_add_(0, concept_of, features)
    means = sums / concept_of.bincount(minlength=count)[:, None]
    return means, means.mean(0)


def _whitening(centred: torch.Tensor) -> torch.Tensor:
    """The symmetric square root of the inverse covariance, shrunk."""
    covariance = centred.T @ centred / len(centred)
    covariance += _SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


def _solved(token: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """A matrix from the mean to what, added to the class token, `token` projects to where `mean` would."""
    largest = torch.linalg.svdvals(token)[0]
    return torch.linalg.solve(token @ token.T + _RIDGE * largest**2 * torch.eye(len(token)), token @ mean.T)


@torch.no_grad()
def _adding_block(matrix: torch.Tensor, centre: torch.Tensor, norm: nn.Module, spread: float) -> nn.Module:
    """A block that adds `matrix` times (the mean of all tokens behind `norm`, less `centre`) to each token."""
    width = len(matrix)
    block = ResidualAttentionBlock(width, width // 64, norm_layer=type(norm))
    block.ln_1.eps = block.ln_2.eps = norm.eps
    block.ln_1.load_state_dict(norm.state_dict())
    block.attn.in_proj_weight[: 2 * width].normal_(0, 0.01)  # not zero, or nothing would ever be learned there
    block.attn.in_proj_weight[2 * width :] = torch.eye(width)
    block.attn.in_proj_bias.zero_()
    output = spread * matrix / norm.weight[:, None]  # the final norm divides by the spread and multiplies by its weight
    output -= output.mean(0, keepdim=True)  # which the final norm would take off anyway
    block.attn.out_proj.weight.copy_(output)
    block.attn.out_proj.bias.copy_(-output @ centre)
    block.mlp.c_proj.weight.zero_()
    block.mlp.c_proj.bias.zero_()
    return block
