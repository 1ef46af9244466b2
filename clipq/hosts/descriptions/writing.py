"""The parts of a description, from a host's modules."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...kernels.cpu import NativeLinear
from ...modules.convolutions import QPatchEmbed
from ...modules.layers import QEmbedding, QLinear
from ...towers.calls import WholePool
from ...towers.pools import QRows, Rows
from ...towers.rows import Tower
from ...towers.transformer import Block
from ...towers.weights import activation, is_norm, norm_kind

Part = dict[str, Any]
_INNER = ("q_norm", "k_norm", "attn_norm", "mlp_norm")


class Undescribed(Exception):
    """Why a tower cannot be described, in a few words; never seen by a user as an exception."""


class Writer:
    """Writes modules down. `names`: of a model's tensors on disk, by their `id`.

    `places`: how many positions the table has that was written down; None without one.
    """

    def __init__(self, names: Mapping[int, str]):
        self._names = names
        self.places: int | None = None

    def name(self, tensor: Tensor | None) -> str:
        if id(tensor) not in self._names:
            raise Undescribed("a tensor is computed when the model is called, and so is in no file")
        return self._names[id(tensor)]

    def linear(self, linear: object) -> Part:
        """An int8 linear whose rows the native library quantizes."""
        if not isinstance(linear, QLinear):
            raise Undescribed(f"a {type(linear).__name__} is not int8")
        weights = linear.kernel_weights(linear.bias, linear.activations)
        if linear.activations is None or not NativeLinear.fits(weights):
            raise Undescribed(f"{self.name(linear.qweight)} is not int8 by rows with int8 inputs")
        part: Part = {"weight": self.name(linear.qweight), "scale": self.name(linear.weight_scale)}
        part["symmetric"] = linear.activations.symmetric
        given = {"bias": linear.bias}
        if weights.static:
            given |= {key: linear._buffers.get(key) for key in ("input_scale", "input_zero_point")}
        return part | {key: self.name(tensor) for key, tensor in given.items() if tensor is not None}

    def rows(self, part: Rows) -> Part:
        """Some or all output rows of an int8 linear."""
        if not isinstance(part, QRows):
            raise Undescribed("its attention pool is not int8")
        first, last, _ = part.rows.indices(part.linear.out_features)
        whole = (first, last) == (0, part.linear.out_features)
        return {**self.linear(part.linear), **({} if whole else {"rows": [first, last]})}

    def norm(self, norm: object) -> Part:
        if not is_norm(norm):
            raise Undescribed(f"{type(norm).__name__} is no LayerNorm with weight and bias")
        return {"weight": self.name(norm.weight), "bias": self.name(norm.bias), "eps": norm.eps}

    def block_norm(self, norm: object) -> Part:
        """A norm within a block, which may be an RMSNorm, and be without a bias."""
        kind = norm_kind(norm)
        if kind is None:
            raise Undescribed(f"{type(norm).__name__} is no LayerNorm or RMSNorm with a weight")
        bias = getattr(norm, "bias", None)
        named = {} if bias is None else {"bias": self.name(bias)}
        return {"weight": self.name(norm.weight), **named, "eps": norm.eps, "kind": kind}

    def norms(self, *parts: object) -> list[Part]:
        """The steps of some norms that follow each other; an `nn.Identity` is none."""
        return [{"norm": self.norm(part)} for part in parts if type(part) is not nn.Identity and part is not None]

    def project(self, projection: nn.Module | Tensor | None) -> list[Part]:
        """The step of a projection: a linear, int8 or float, or a bare [in, out]. None is none."""
        if projection is None:
            return []
        if isinstance(projection, Tensor):
            return [{"linear": {"weight": self.name(projection), "transposed": True}}]
        if isinstance(projection, QLinear):
            return [{"linear": self.linear(projection)}]
        if type(projection) is not nn.Linear:
            raise Undescribed(f"the output projection is a {type(projection).__name__}")
        bias = {} if projection.bias is None else {"bias": self.name(projection.bias)}
        return [{"linear": {"weight": self.name(projection.weight), **bias}}]

    def patches(self, embedding: object, size: object) -> Part:
        """What is common to image towers: the patch embedding, and the size of the pictures that it takes."""
        if not isinstance(embedding, QPatchEmbed):
            raise Undescribed(f"the patch embedding, a {type(embedding).__name__}, is not int8")
        if size is None:
            raise Undescribed("it takes pictures of no one size")
        sides = [size, size] if isinstance(size, int) else list(size)
        patch = list(embedding.kernel_size)
        return {"patches": self.linear(embedding), "patch": patch, "pixels": [embedding.weight_shape[1], *sides]}

    def positions(self, table: Tensor, prefix: int) -> Part:
        """`prefix`: how many of its first rows belong to tokens that stand before the patches."""
        self.places = table.shape[-2]
        return {"tensor": self.name(table), "prefix": prefix}

    def tokens(self, embedding: nn.Module) -> Part:
        """A token embedding, and how many tokens it knows."""
        if isinstance(embedding, QEmbedding):
            table = {"weight": self.name(embedding.qweight), "scale": self.name(embedding.weight_scale)}
            return {"tokens": table, "vocabulary": embedding.qweight.shape[0]}
        if type(embedding) is not nn.Embedding:
            raise Undescribed(f"the token embedding is a {type(embedding).__name__}")
        return {"tokens": {"weight": self.name(embedding.weight)}, "vocabulary": embedding.num_embeddings}

    def activation(self, act: object) -> str:
        name = activation(act)
        if name is None:
            raise Undescribed(f"the activation {type(act).__name__} is none of the library's")
        return name

    @torch.inference_mode()
    def rotary(self, tower: Tower, described: Part) -> Part:
        """The tables that the host makes for pictures of the tower's own size.

        Each of their columns follows one axis of the grid of patches, so that one row for each place on an axis is
        enough: `axes` says which axis, `cos` and `sin` are float32 [longest axis, head], in base 64.
        """
        channels, height, width = described["pixels"]
        down, across = described["patch"]
        parameter = next(parameter for part in tower.parts for parameter in part.parameters())
        pixels = parameter.new_zeros(1, channels, height, width)
        embedded = tower.embed(pixels)
        tables = embedded[1] if isinstance(embedded, tuple) else None
        if tables is None:
            raise Undescribed("its blocks could turn queries and keys, and are given nothing to turn them by")
        grid = [height // down, width // across]
        cos, sin = (table.float().cpu().numpy() for table in (tables.cos, tables.sin))
        axes = _axes(cos, sin, grid)
        if axes is None:
            raise Undescribed("queries and keys are turned by more than their place on one axis")
        columns = {name: _along(table, axes, grid) for name, table in (("cos", cos), ("sin", sin))}
        return {"rotary": {"grid": grid, "prefix": tables.prefix, "axes": axes, **columns}}

    def pool(self, module: nn.Module) -> Part:
        """SigLIP's attention pool."""
        pool = module.found() if isinstance(module, WholePool) else None
        if pool is None or pool.q is None or pool.mlp is None or pool.norm_query or pool.norm_keys:
            raise Undescribed("its attention pool is not SigLIP's, in int8")
        return {
            "heads": pool.heads,
            "query": self.name(pool.query()),
            "q": self.rows(pool.q),
            "kv": self.rows(pool.kv),
            "proj": self.rows(pool.proj),
            "norm": self.norm(pool.mlp.norm),
            "fc1": self.rows(pool.mlp.fc1),
            "activation": self.activation(pool.mlp.act),
            "fc2": self.rows(pool.mlp.fc2),
        }

    def block(self, block: Block) -> Part:
        scales = {"ls_1": _factors(block.ls_1), "ls_2": _factors(block.ls_2)}
        norms = {role: norm for role in _INNER if (norm := getattr(block, role)) is not None}
        plain = is_norm(block.ln_1) and is_norm(block.ln_2) and not norms and not block.gated
        plain = plain and block.rotation == "none"
        norm, fc1 = (self.norm if plain else self.block_norm), [self.linear(one) for one in block.fc1]
        return {
            "heads": block.heads,
            "ln_1": norm(block.ln_1),
            "qkv": [self.linear(one) for one in block.qkv],
            **({"attention": block.qkv[0].attention} if block.qkv[0].attention != "float" else {}),
            "out_proj": self.linear(block.out_proj),
            "ln_2": norm(block.ln_2),
            # A list wherever there is something that clipq 0.6 and 0.7 do not know: so they refuse to read it.
            "fc1": fc1[0] if plain else fc1,
            "activation": self.activation(block.act),
            "fc2": self.linear(block.fc2),
            **{key: self.name(factors) for key, factors in scales.items() if factors is not None},
            **{role: self.block_norm(one) for role, one in norms.items()},
            **({"gated": True} if block.gated else {}),
            **({"rotation": block.rotation} if block.rotation != "none" else {}),
        }


def _axes(cos: np.ndarray, sin: np.ndarray, grid: list[int]) -> list[int] | None:
    """For each column of tables [patches, head] the one axis of the grid along which it changes; None if it has two."""
    if cos.shape != sin.shape or len(cos) != grid[0] * grid[1]:
        return None
    both = np.stack([cos, sin]).reshape(2, *grid, -1)
    fixed = [(both == both[:, :, :1]).all(axis=(0, 1, 2)), (both == both[:, :1]).all(axis=(0, 1, 2))]
    return None if not (fixed[0] | fixed[1]).all() else [0 if one else 1 for one in fixed[0].tolist()]


def _along(table: np.ndarray, axes: list[int], grid: list[int]) -> str:
    """float32 [longest axis, head] in base 64: what each column is at each place of its axis."""
    whole = table.reshape(*grid, -1)
    found = np.zeros((max(grid), len(axes)), np.float32)
    for column, axis in enumerate(axes):
        found[: grid[axis], column] = whole[:, 0, column] if axis == 0 else whole[0, :, column]
    return base64.b64encode(found.tobytes()).decode()


def _factors(scale: object) -> Tensor | None:
    """Of a layer scale, as timm and open_clip (gamma) and transformers (lambda1) call them."""
    return None if scale is None else getattr(scale, "gamma", getattr(scale, "lambda1", None))
