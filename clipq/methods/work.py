"""A tower between its float weights and its integers: what the steps of a scheme read and change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arithmetic import functional
from ..arithmetic.schemes import Scheme
from ..hosts import Host
from ..modules.layers import QLinear
from ..towers.blocks import find_blocks
from ..towers.finding import block_of
from ..towers.transformer import Block

See = Callable[..., None]
"""Told of a linear, of the rows [n, in] that came to it and, if these are asked for, of their gradients."""


_WITH_GRADIENTS = 8  # inputs


class Floats:
    """A linear's float32 `weight` [out, in] and `bias`, which stand in for its integers until these are chosen.

    Steps put other tensors in their place and never write into them. `rounded`: int8 values, scale and zero point where
    a step has chosen them; else `weight` is rounded to nearest. `static`: scale and zero point [1] of its inputs.
    """

    def __init__(self, name: str, layer: QLinear, weight: Tensor, bias: Tensor | None):
        self.name, self.layer = name, layer
        self.weight = weight.detach().flatten(1).float()
        self.bias = None if bias is None else bias.detach().float()
        self.rounded: tuple[Tensor, Tensor, Tensor] | None = None
        self.static: tuple[Tensor, Tensor] | None = None
        self.see: See | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.see is not None and torch.is_grad_enabled():
            x = self._with_gradient(x)
        elif self.see is not None:
            self.see(self, _rows(x))
        return F.linear(x.float(), self.weight, self.bias).to(x.dtype)

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """int8 values, scale and zero point, as they are now."""
        if self.rounded is None:
            q, scale, zero_point = functional.quantize_weight(self.weight, self.layer.spec, f"{self.name}.weight")
            self.rounded = q, scale, torch.zeros_like(scale) if zero_point is None else zero_point
        return self.rounded

    def dequantized(self) -> Tensor:
        """float32 [out, in]: what the integers stand for."""
        q, scale, zero_point = self.integers()
        return functional.dequantize(q, scale.float(), zero_point.float(), self.layer.spec)

    def _with_gradient(self, x: Tensor) -> Tensor:
        """`x`, such that `see` is told of it once its gradient is known."""
        x = x if x.requires_grad else x.detach().requires_grad_()
        see, rows = self.see, _rows(x)
        x.register_hook(lambda gradient: see(self, rows, _rows(gradient)))
        return x

    @property
    def is_static(self) -> bool:
        """Whether its inputs are quantized by a range that a step has to find."""
        return self.layer.activations is not None and not self.layer.activations.dynamic

    def rounded_inputs(self, rows: Tensor) -> Tensor:
        """What is left of `rows` [n, in] as the layer quantizes them; by their own range until a step found one."""
        spec = self.layer.activations
        if spec is None or self.static is None:
            return rows if spec is None else functional.fake_quantize(rows, spec)
        scale, zero_point = (one.to(rows.device) for one in self.static)
        return functional.dequantize(functional.quantize(rows, scale, zero_point, spec), scale, zero_point, spec)

    def settle(self) -> None:
        """Give the layer its integers, and let it run them."""
        self.layer.set_integers(*self.integers())
        if self.is_static:
            self._settle_range()
        if self.bias is not None:
            self.layer.bias = nn.Parameter(self.bias.to(self.layer.bias.dtype), requires_grad=False)
        self.layer.use_kernel(None)

    def _settle_range(self) -> None:
        scale, zero_point = self.static
        self.layer.input_scale = scale.to(self.layer.qweight.device)
        if not self.layer.activations.symmetric:
            self.layer.input_zero_point = zero_point.to(self.layer.qweight.device, torch.int8)


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1]).float()


@dataclass(frozen=True)
class Work:
    """One tower of `module`, whose quantized modules compute with their `floats` for now.

    `inputs`: batches of calibration data: pixels [n, 3, height, width] or token ids [n, tokens]; none without any.
    `undo`: what has to be called, last first, for the module to be as it was, its quantized modules apart.
    """

    module: nn.Module
    host: Host
    tower: str
    scheme: Scheme
    floats: Mapping[QLinear, Floats]
    inputs: Sequence[Tensor] = ()
    undo: list[Callable[[], None]] = field(default_factory=list)

    def replace(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Put `value` in the place of a parameter of `module` that is not rounded; it is back if a step fails."""
        before = module._parameters[name]
        self.undo.append(lambda: module._parameters.update({name: before}))
        module._parameters[name] = nn.Parameter(value.detach().to(before.dtype), requires_grad=False)

    def blocks(self) -> list[Block]:
        """The plain pre-norm blocks of the tower whose linears are all to be quantized."""
        views = find_blocks(self.module, self.host.blocks)
        own = [block_of(view) for view in views if self.host.tower_of(self.module, view.name) == self.tower]
        return [block for block in own if block is not None and all(map(self._has, block.linears))]

    def _has(self, linear: object) -> bool:
        return isinstance(linear, QLinear) and linear in self.floats

    def embeddings(self) -> Tensor:
        """float32 [n, width] of all inputs, computed with the floats as they are now."""
        return torch.cat([self._encode(batch).float() for batch in self.inputs])

    def observe(
        self, chosen: Sequence[Floats], see: See, inputs: Sequence[Tensor] | None = None, *, every_row: bool = False
    ) -> None:
        """Run all inputs (or these), and show `see` the rows that come to each of the `chosen` linears.

        `every_row`: also those of the last block that no embedding of an image is read from.
        """
        with _seen_by(chosen, see), self._whole() if every_row else nullcontext():
            for batch in self.inputs if inputs is None else inputs:
                self._encode(batch)

    def observe_gradients(self, chosen: Sequence[Floats], see: See) -> None:
        """As `observe` of every row, and with gradients: of a random direction of each normalized embedding.

        A few inputs at a time: all that lies between the layers is kept until the gradients are known.
        """
        generator = torch.Generator().manual_seed(0)
        frozen = [one for one in self.module.parameters() if one.requires_grad]
        for one in frozen:
            one.requires_grad_(False)
        try:
            with _seen_by(chosen, see), self._whole(), torch.inference_mode(False), torch.enable_grad():
                for part in (part for batch in self.inputs for part in batch.split(_WITH_GRADIENTS)):
                    directions = F.normalize(self._encoded(part.clone()).float(), dim=-1)
                    random = torch.randn(directions.shape, generator=generator).to(directions.device)
                    (directions * random).sum().backward()
        finally:
            for one in frozen:
                one.requires_grad_()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within, the image tower is run module by module: a hook keeps it from leaving out rows, and does nothing.

        Texts stay without their padding, which no embedding depends on.
        """
        if self.tower != "image" or not self.floats:
            yield
            return
        handles = [layer.register_forward_hook(lambda *_: None) for layer in self.floats]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _encode(self, batch: Tensor) -> Tensor:
        return self._encoded(batch)

    def _encoded(self, batch: Tensor) -> Tensor:
        encode = self.host.encode_image if self.tower == "image" else self.host.encode_text
        return encode(self.module, batch)


@contextmanager
def _seen_by(chosen: Sequence[Floats], see: See) -> Iterator[None]:
    for one in chosen:
        one.see = see
    try:
        yield
    finally:
        for one in chosen:
            one.see = None
