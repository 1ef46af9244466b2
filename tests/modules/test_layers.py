"""Each quantized layer against the float layer that carries the same, dequantized weights; moving, copying, loading."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from clipq.arithmetic.functional import fake_quantize, quantize_weight
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError
from clipq.kernels import KERNELS, chosen
from clipq.modules.convolutions import QPatchEmbed, QPointwise
from clipq.modules.layers import QEmbedding, QLinear, QuantizedModule

INT8, SYMMETRIC, WEIGHT_ONLY = (PRECISIONS[name] for name in ("int8", "int8-symmetric", "int8-weight-only"))
GROUPS = Scheme("groups", QuantSpec(granularity="group", group_size=8), QuantSpec(granularity="token"))
ASYMMETRIC = Scheme("asymmetric", QuantSpec(symmetric=False), QuantSpec(False, "tensor"))
SCHEMES = [INT8, SYMMETRIC, WEIGHT_ONLY, GROUPS, ASYMMETRIC]
HALVES = [torch.float16, torch.bfloat16]


def as_dequantized(layer: nn.Module, quantized: QuantizedModule) -> nn.Module:
    """A copy of the float `layer` with the weight that the quantized one stands for."""
    layer = copy.deepcopy(layer)
    layer.weight = nn.Parameter(quantized.weight, requires_grad=False)
    return layer


def fake(x: Tensor, scheme: Scheme) -> Tensor:
    return x if scheme.activations is None else fake_quantize(x, scheme.activations)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_qlinear_is_a_linear_with_dequantized_weights_and_inputs(scheme: Scheme, bias: bool, leading: tuple) -> None:
    linear = nn.Linear(16, 24, bias=bias)
    quantized = QLinear.from_float(linear, scheme)
    x = torch.randn(*leading, 16)
    torch.testing.assert_close(quantized(x), as_dequantized(linear, quantized)(fake(x, scheme)), rtol=1e-5, atol=1e-5)
    assert (quantized.bias is not None) == bias
    assert (quantized.in_features, quantized.out_features) == (16, 24)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_the_weight_is_what_functional_makes_of_it(scheme: Scheme) -> None:
    linear = nn.Linear(16, 24)
    quantized = QLinear.from_float(linear, scheme)
    assert torch.equal(quantized.weight, fake_quantize(linear.weight, scheme.weights))
    for got, expected in zip((quantized.qweight, quantized.weight_scale, quantized.weight_zero_point),
                             quantize_weight(linear.weight, scheme.weights, "w"), strict=True):  # fmt: skip
        assert got is expected is None or torch.equal(got, expected)
    assert not any(parameter.requires_grad for parameter in quantized.parameters())


def test_the_bias_is_a_copy() -> None:
    linear = nn.Linear(4, 3)
    before = linear.bias.detach().clone()
    quantized = QLinear.from_float(linear, INT8)
    linear.bias.data.zero_()
    assert torch.equal(quantized.bias, before)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_qembedding_is_an_embedding_of_dequantized_rows(shape: tuple) -> None:
    embedding = nn.Embedding(20, 8)
    quantized = QEmbedding.from_float(embedding, INT8)
    ids = torch.randint(20, shape)
    assert torch.equal(quantized(ids), as_dequantized(embedding, quantized)(ids))
    assert torch.equal(quantized.weight, fake_quantize(embedding.weight, QuantSpec()))


def layers() -> dict[str, tuple[QuantizedModule, Tensor]]:
    return {
        "linear": (QLinear.from_float(nn.Linear(16, 24), INT8), torch.randn(3, 16)),
        "weight-only": (QLinear.from_float(nn.Linear(16, 24), WEIGHT_ONLY), torch.randn(3, 16)),
        "asymmetric": (QLinear.from_float(nn.Linear(16, 24), ASYMMETRIC), torch.randn(3, 16)),
        "pixels": (QPointwise.from_float(nn.Conv2d(16, 8, 1), INT8), torch.randn(1, 16, 2, 3)),
        "patches": (QPatchEmbed.from_float(nn.Conv2d(3, 8, 4, stride=4), INT8), torch.randn(1, 3, 8, 8)),
        "embedding": (QEmbedding.from_float(nn.Embedding(9, 8), INT8), torch.tensor([[1, 8, 0]])),
    }


KINDS = list(layers())


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_cast_changes_the_surroundings_and_not_the_weights(kind: str, dtype: torch.dtype) -> None:
    layer, x = layers()[kind]
    before, x = copy.deepcopy(layer), in_dtype(x, dtype)  # the same input for both, or int8 values would differ
    outer = nn.Sequential(nn.Sequential(layer)).to(dtype)
    assert layer.qweight.dtype == torch.int8 and torch.equal(layer.qweight, before.qweight)
    assert layer.weight_scale.dtype == torch.float32 and torch.equal(layer.weight_scale, before.weight_scale)
    assert layer.compute_dtype == layer.weight.dtype == layer.int8_original_dtype == dtype
    assert layer.weight.shape == layer.qweight.shape
    halved, y = outer(x), before(in_dtype(x, torch.float32))
    assert halved.dtype == dtype
    torch.testing.assert_close(halved.float(), y, rtol=0, atol=6 * torch.finfo(dtype).eps * float(y.abs().max()))
    outer.float()
    assert layer.compute_dtype == torch.float32 and torch.equal(layer.weight, before.weight)


def test_the_three_names_of_a_cast() -> None:
    layer, _ = layers()["linear"]
    assert layer.half().compute_dtype == torch.float16
    assert layer.bfloat16().compute_dtype == torch.bfloat16
    assert layer.float().compute_dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles_compute_the_same_and_are_their_own(kind: str) -> None:
    layer, x = layers()[kind]
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert getattr(twin, "_kernel", None) is None  # packed again where the copy lives
        assert torch.equal(twin(x), y)
        assert twin.qweight.data_ptr() != layer.qweight.data_ptr()
        assert twin.compute_dtype == layer.compute_dtype and twin.spec == layer.spec


def test_a_module_can_be_sent_to_a_spawned_process() -> None:
    model = nn.Sequential(layers()["embedding"][0], QLinear.from_float(nn.Linear(8, 4), INT8))
    ids = torch.tensor([[1, 8, 0]])
    y = model(ids)
    pool = torch.multiprocessing.get_context("spawn").Pool(1)
    try:
        assert torch.equal(pool.apply(model, (ids,)), y)  # the child calls model(ids)
        pool.close()
    finally:
        pool.terminate()
        pool.join()


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_meta_device_only_the_shapes_are_made(kind: str) -> None:
    layer, _ = layers()[kind]
    made = {"linear": lambda: QLinear.from_float(nn.Linear(16, 24, device="meta"), INT8),
            "weight-only": lambda: QLinear.from_float(nn.Linear(16, 24, device="meta"), WEIGHT_ONLY),
            "asymmetric": lambda: QLinear.from_float(nn.Linear(16, 24, device="meta"), ASYMMETRIC),
            "pixels": lambda: QPointwise.from_float(nn.Conv2d(16, 8, 1, device="meta"), INT8),
            "patches": lambda: QPatchEmbed.from_float(nn.Conv2d(3, 8, 4, stride=4, device="meta"), INT8),
            "embedding": lambda: QEmbedding.from_float(nn.Embedding(9, 8, device="meta"), INT8)}[kind]()  # fmt: skip
    shapes = {name: (t.shape, t.dtype) for name, t in layer.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in made.state_dict().items()} == shapes
    assert all(t.is_meta for t in made.state_dict().values())
    assert made.half().compute_dtype == torch.float16 and made.weight_scale.dtype == torch.float32


def test_the_kernel_is_packed_once_and_dropped_whenever_the_tensors_change() -> None:
    layer, x = layers()["linear"]
    other = layers()["linear"][0]
    layer(x)
    packed = layer.kernel
    assert layer.kernel is packed and isinstance(packed, KERNELS[chosen(torch.device("cpu"))])
    assert layer.to("cpu")._kernel is None
    layer(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    layer.use_kernel("reference")
    assert isinstance(layer.kernel, KERNELS["reference"])
    assert isinstance(copy.deepcopy(layer).kernel, KERNELS["reference"])  # what was asked for is kept


@pytest.mark.parametrize("float_layer", [nn.Linear(4, 3), nn.Conv2d(3, 2, 2, stride=2), nn.Embedding(5, 4)], ids=str)
def test_non_finite_weights_are_refused_by_name(float_layer: nn.Module) -> None:
    layer = copy.deepcopy(float_layer)
    layer.weight.data.view(-1)[0] = float("nan")
    made = {nn.Linear: QLinear, nn.Conv2d: QPatchEmbed, nn.Embedding: QEmbedding}[type(layer)]
    with pytest.raises(QuantizationError, match=r"^tower\.part\.weight holds 1 non-finite values"):
        made.from_float(layer, INT8, "tower.part")


def test_the_repr_says_what_it_is() -> None:
    assert repr(QLinear.from_float(nn.Linear(4, 3, bias=False), WEIGHT_ONLY)) == (
        "QLinear(4, 3, bias=False, weight-only)"
    )
    assert "symmetric=False, granularity='token'" in repr(QLinear.from_float(nn.Linear(4, 3), INT8))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("dtype", HALVES)
def test_outliers_of_clips_size_stay_finite_and_close_in_half_precision(scheme: Scheme, dtype: torch.dtype) -> None:
    """CLIP's residual stream holds hundreds in a few channels (LLM.int8(), arXiv:2208.07339, on why)."""
    linear = nn.Linear(64, 32)
    quantized = QLinear.from_float(linear, scheme).to(dtype)
    x = torch.randn(20, 64)
    x[:, [3, 40]] += torch.tensor([800.0, -400.0])
    x = x.to(dtype)
    y = quantized(x)
    exact = fake(x.float(), scheme).double() @ quantized.weight.double().t() + quantized.bias.double()
    assert torch.isfinite(y).all()
    # Weight-only and grouped weights are rounded to `dtype` before the product, so the bound is on a term, 800 / 8.
    torch.testing.assert_close(y.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=100 * torch.finfo(dtype).eps)
