"""Patch embeddings and 1x1 convolutions in int8 against the convolution that carries the dequantized weight."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipq.arithmetic.functional import fake_quantize
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import QuantizationError
from clipq.modules.convolutions import QConvolution, QPatchEmbed, QPointwise
from clipq.native import library

INT8, WEIGHT_ONLY = (PRECISIONS[name] for name in ("int8", "int8-weight-only"))


def as_dequantized(conv: nn.Conv2d, quantized: QConvolution) -> nn.Conv2d:
    """A copy of the float `conv` with the weight that the quantized one stands for."""
    conv = copy.deepcopy(conv)
    conv.weight = nn.Parameter(quantized.weight, requires_grad=False)
    return conv


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


PATCHES = [((8, 8), (32, 32)), ((8, 8), (39, 33)), ((4, 8), (17, 23)), ((1, 1), (3, 2)), ((16, 16), (16, 16))]


@pytest.mark.parametrize(("patch", "size"), PATCHES)
@pytest.mark.parametrize("bias", [True, False])
def test_qpatchembed_is_a_convolution_with_the_dequantized_weight(patch: tuple, size: tuple, bias: bool) -> None:
    conv = nn.Conv2d(3, 12, patch, stride=patch, bias=bias)
    quantized = QPatchEmbed.from_float(conv, WEIGHT_ONLY)
    for pixels in (torch.randn(2, 3, *size), torch.randn(2, *size, 3).permute(0, 3, 1, 2)):
        expected = as_dequantized(conv, quantized)(pixels)
        torch.testing.assert_close(quantized(pixels), expected, rtol=1e-5, atol=1e-5)


def test_qpatchembed_quantizes_each_patch() -> None:
    conv = nn.Conv2d(3, 12, 8, stride=8)
    quantized = QPatchEmbed.from_float(conv, INT8)
    patches = F.unfold(torch.randn(2, 3, 24, 16), 8, stride=8).transpose(1, 2)
    pixels = F.fold(patches.transpose(1, 2), (24, 16), 8, stride=8)
    rows = fake_quantize(patches, INT8.activations) @ quantized.weight.flatten(1).t() + conv.bias
    torch.testing.assert_close(quantized(pixels), rows.transpose(1, 2).reshape(2, 12, 3, 2), rtol=1e-5, atol=1e-5)
    moved = copy.deepcopy(quantized).to(memory_format=torch.channels_last)
    torch.testing.assert_close(moved(pixels), quantized(pixels))


FITS = [({}, True), ({"padding": "valid"}, True), ({"padding": 1}, False), ({"stride": 4}, False),
        ({"dilation": 2}, False), ({"groups": 3}, False)]  # fmt: skip


@pytest.mark.parametrize(("options", "fits"), FITS)
def test_only_convolutions_over_whole_patches_fit(options: dict, fits: bool) -> None:
    assert QPatchEmbed.fits(nn.Conv2d(3, 12, 8, **{"stride": 8, **options})) == fits


def test_other_modules_are_no_patch_embeddings() -> None:
    assert not QPatchEmbed.fits(nn.Linear(3, 3))
    assert not QPatchEmbed.fits(nn.Conv1d(3, 3, 8, stride=8))


def test_a_patch_embeddings_weight_is_kept_until_it_changes() -> None:
    patches = QPatchEmbed.from_float(nn.Conv2d(3, 8, 4, stride=4), INT8)
    first = patches.weight
    assert patches.weight is first and copy.deepcopy(patches)._kept is None
    patches.load_state_dict(QPatchEmbed.from_float(nn.Conv2d(3, 8, 4, stride=4), INT8).state_dict())
    assert not torch.equal(patches.weight, first)
    assert patches.half().weight.dtype == torch.float16


SIZES = [(2, 16, 5, 6), (1, 16, 1, 1), (0, 16, 5, 6), (16, 5, 6)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2, (2, 3)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_qpointwise_is_a_convolution_with_the_dequantized_weight(size: tuple, stride: object, bias: bool) -> None:
    conv = nn.Conv2d(16, 12, 1, stride=stride, bias=bias)
    quantized = QPointwise.from_float(conv, WEIGHT_ONLY)
    x = torch.randn(size)
    torch.testing.assert_close(quantized(x), as_dequantized(conv, quantized)(x), rtol=1e-5, atol=1e-5)
    assert quantized(x.bfloat16()).dtype == torch.bfloat16


def test_qpointwise_quantizes_each_pixel() -> None:
    conv = nn.Conv2d(16, 12, 1)
    quantized = QPointwise.from_float(conv, INT8)
    x = torch.randn(2, 16, 5, 6) * torch.logspace(-2, 2, 30).view(5, 6)  # rows of very different ranges
    rows = fake_quantize(x.flatten(2).transpose(1, 2), INT8.activations) @ quantized.weight.flatten(1).t() + conv.bias
    torch.testing.assert_close(quantized(x), rows.transpose(1, 2).reshape(2, 12, 5, 6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scheme", [INT8, WEIGHT_ONLY], ids=lambda scheme: scheme.name)
def test_qpointwise_keeps_the_memory_format_as_a_convolution_does(stride: int, scheme: object) -> None:
    conv = nn.Conv2d(16, 12, 1, stride=stride)
    quantized = QPointwise.from_float(conv, scheme)
    x = torch.randn(2, 16, 5, 6)
    plain, last = quantized(x), quantized(channels_last(x))
    assert plain.stride() == conv(x).stride() and last.stride() == conv(channels_last(x)).stride()
    torch.testing.assert_close(last, plain)


POINTWISE = [({}, True), ({"stride": 2}, True), ({"dilation": 3}, True), ({"padding": "same"}, True),
             ({"padding": 1}, False), ({"groups": 4}, False), ({"kernel_size": 3}, False),
             ({"kernel_size": (1, 3)}, False)]  # fmt: skip


@pytest.mark.parametrize(("options", "fits"), POINTWISE, ids=str)
def test_only_plain_1x1_convolutions_over_all_channels_fit(options: dict, fits: bool) -> None:
    assert QPointwise.fits(nn.Conv2d(16, 12, **{"kernel_size": 1, **options})) == fits


def test_subclasses_of_a_convolution_may_compute_something_else() -> None:
    class Standardized(nn.Conv2d):
        """As timm's, whose weights are normalized at every call."""

    assert not QPointwise.fits(Standardized(16, 12, 1))
    assert not QPointwise.fits(nn.Linear(16, 12)) and not QPointwise.fits(nn.ConvTranspose2d(16, 12, 1))


@pytest.mark.skipif(not library.available(), reason="the reference kernel leaves that to torch")
def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(QuantizationError, match="does not end in 16 features"):
        QPointwise.from_float(nn.Conv2d(16, 12, 1), INT8)(torch.randn(2, 15, 5, 6))


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(3, 8, (4, 2), stride=(4, 2)), nn.Conv2d(16, 8, 1, stride=2, bias=False)],
    ids=str,
)
def test_hosts_can_read_the_settings_of_a_convolution(conv: nn.Conv2d) -> None:
    made = (QPatchEmbed if QPatchEmbed.fits(conv) else QPointwise).from_float(conv, INT8)
    for setting in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(made, setting) == getattr(conv, setting)
    assert made.padding_mode == "zeros" and (made.bias is None) == (conv.bias is None)
    assert made.weight.shape == conv.weight.shape and f"kernel_size={conv.kernel_size}" in repr(made)


@torch.no_grad()
def test_a_pointwise_convolution_compiles_and_exports_for_every_size() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(QPointwise.from_float(nn.Conv2d(16, 12, 1, stride=2), INT8), nn.ReLU())
    x, other = torch.randn(2, 16, 8, 6), torch.randn(3, 16, 4, 10)
    expected = model(x)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,)).module()
    assert torch.equal(program(x), expected) and torch.equal(program(other), model(other))
