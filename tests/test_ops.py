"""The native kernels as torch ops: registered as torch wants them, compiled, exported, and without a gradient."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_models import build
from torch import Tensor, nn

from clipq.errors import QuantizationError
from clipq.kernels import KERNELS, native, ops
from clipq.kernels.library import PATHS
from clipq.kernels.stack import BlockWeights, Int8Matrix, Norm, pack_block
from clipq.layers import QLinear
from clipq.models import Model
from clipq.quantization import quantize, use_kernel
from clipq.schemes import PRECISIONS

WIDTH, HIDDEN, HEADS = 32, 48, 2
FAST = [name for name in ("native", "int_mm") if KERNELS[name].obstacle(torch.device("cpu")) is None]
each_kernel = pytest.mark.parametrize("kernel", [*FAST, "reference"])
needs_library = pytest.mark.skipif(not native.available(), reason=f"no native library: {native.why_not()}")
both_kinds = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "While compiling, we found certain side effects", UserWarning
        )  # transformers'
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # within torch's own compiler
        yield


def linear_arguments(
    leading: tuple[int, ...], bias: bool, symmetric: bool, dtype: torch.dtype = torch.float32
) -> tuple:
    weight = torch.randint(-127, 128, (24, 16), dtype=torch.int8)
    packed = native.PackedLinear(weight, torch.rand(24) / 50, torch.randn(24) if bias else None, symmetric)
    return torch.randn(*leading, 16).to(dtype), packed.packed, packed.scale, packed.bias, symmetric, packed.index


def packed_block(symmetric: bool = False, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)

    def matrix(n: int, k: int) -> Int8Matrix:
        weight = torch.randint(-127, 128, (n, k), generator=g, dtype=torch.int8)
        return Int8Matrix(weight, torch.full((n,), 0.002), torch.randn(n, generator=g) / 10)

    norm = Norm(torch.ones(WIDTH), torch.zeros(WIDTH), 1e-5)
    qkv, out, fc1, fc2 = (3 * WIDTH, WIDTH), (WIDTH, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    attention = {"heads": HEADS, "ln_1": norm, "qkv": matrix(*qkv), "out_proj": matrix(*out), "ls_1": None}
    mlp = {"ln_2": norm, "fc1": matrix(*fc1), "activation": "gelu", "fc2": matrix(*fc2), "ls_2": None}
    return pack_block(BlockWeights(**attention, **mlp, symmetric=symmetric))


def block_arguments(
    causal: bool = False, keep: bool = False, symmetric: bool = False, dtype: torch.dtype = torch.float32
) -> tuple:
    offsets = torch.tensor([0, 3, 4, 9])
    blocks = [packed_block(symmetric, seed) for seed in range(2)]
    return torch.randn(9, WIDTH).to(dtype), offsets, blocks, causal, torch.tensor([1, 8]) if keep else None


@needs_library
@both_kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(5,), (2, 3), (0,), ()], ids=str)
def test_the_linear_is_registered_as_torch_wants_it(leading: tuple, bias: bool, symmetric: bool) -> None:
    done = torch.library.opcheck(torch.ops.clipq.linear.default, linear_arguments(leading, bias, symmetric))
    assert set(done.values()) == {"SUCCESS"} and len(done) == 4


@needs_library
@both_kinds
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("keep", [False, True], ids=["all", "keep"])
def test_the_blocks_are_registered_as_torch_wants_them(causal: bool, keep: bool, symmetric: bool) -> None:
    done = torch.library.opcheck(torch.ops.clipq.blocks.default, block_arguments(causal, keep, symmetric))
    assert set(done.values()) == {"SUCCESS"} and len(done) == 4


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_only_traced_has_the_shape_and_dtype_of_what_is_computed(dtype: torch.dtype) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    calls = [(ops.linear, linear_arguments(leading, True, False, dtype)) for leading in ((4,), (2, 3), (), (0, 7))]
    calls += [(ops.blocks, block_arguments(keep=keep, dtype=dtype)) for keep in (False, True)]
    for op, arguments in calls:
        real = op(*arguments)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = op(mode.from_tensor(arguments[0]), *arguments[1:])
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
        assert real.dtype == dtype and (real.numel() == 0 or real.isfinite().all())


@needs_library
def test_what_does_not_fit_together_is_refused_before_anything_is_read() -> None:
    x, packed, scale, bias, symmetric, path = linear_arguments((3,), True, False)
    for wrong in (
        (x[:, :5], packed, scale, bias, symmetric, path),
        (x, packed[:-64], scale, bias, symmetric, path),
        (x, packed, scale.double(), bias, symmetric, path),
        (x, packed, scale[:-1], None, symmetric, path),
        (x, packed, scale, bias[:-1], symmetric, path),
        (x, packed, scale, bias, symmetric, len(PATHS)),
        (x, packed, scale, bias, symmetric, -1),
        (x.int(), packed, scale, bias, symmetric, path),
    ):
        with pytest.raises(QuantizationError):
            ops.linear(*wrong)
    x, offsets, blocks, causal, keep = block_arguments(keep=True)
    for wrong in (
        (x[0], offsets, blocks, causal, keep),
        (x[:8], offsets, blocks, causal, keep),
        (x[:, :16], offsets, blocks, causal, keep),
        (x, offsets.int(), blocks, causal, keep),
        (x, offsets[:0], blocks, causal, keep),
        (x, offsets, [blocks[0], blocks[1][:-64]], causal, keep),
        (x, offsets, [torch.zeros_like(blocks[0])], causal, keep),
        (x, offsets, blocks, causal, keep.int()),
    ):
        with pytest.raises(QuantizationError, match="of a native op is"):
            ops.blocks(*wrong)


TOWERS: dict[str, Callable[[nn.Module], Callable]] = {
    "open_clip CLIP": lambda module: module.encode_image,
    "transformers CLIP": lambda module: lambda pixels: module.get_image_features(pixels).pooler_output,
}


def tower(name: str, kernel: str | None = None) -> tuple[nn.Module, Callable]:
    """A quantized model that has never been called, and its host's own way to embed images."""
    module = quantize(build(name), "int8")
    use_kernel(module, kernel)
    return module, TOWERS[name](module)


def compiled(function: Callable, backend: str = "aot_eager", **options: object) -> Callable:
    """Compiled into one graph: `fullgraph` makes every graph break an error."""
    return torch.compile(function, fullgraph=True, backend=backend, **options)


@each_kernel
@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_a_tower_that_was_never_called_compiles_into_one_graph(name: str, kernel: str) -> None:
    _, embed = tower(name, kernel)
    pixels = torch.randn(2, 3, 32, 32)
    found = compiled(embed)(pixels)
    torch.testing.assert_close(found, embed(pixels), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_text_tower_compiles_into_one_graph() -> None:
    module, _ = tower("open_clip CLIP")
    ids = torch.randint(1, 49408, (2, 16))
    assert torch.equal(compiled(module.encode_text)(ids), module.encode_text(ids))


@needs_library
@torch.no_grad()
def test_a_compiled_tower_calls_the_native_op_for_every_linear() -> None:
    _, embed = tower("open_clip CLIP")
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list) -> Callable:
        called.extend(str(node.target) for node in graph.graph.nodes if "clipq" in str(node.target))
        return graph.forward

    compiled(embed, backend)(torch.randn(1, 3, 32, 32))
    assert len(called) == 1 + 2 * 4 and len(set(called)) == 1 and "linear" in called[0]


@torch.no_grad()
def test_one_compiled_graph_serves_every_batch() -> None:
    _, embed = tower("open_clip CLIP")
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    pixels = torch.randn(5, 3, 32, 32)
    torch._dynamo.mark_dynamic(pixels, 0)
    run = compiled(embed, backend)
    assert torch.equal(run(pixels), embed(pixels))
    for batch in (2, 3, 7):
        more = torch.randn(batch, 3, 32, 32)
        assert torch.equal(run(more), embed(more))
    assert len(graphs) == 1


@torch.no_grad()
def test_a_compiled_layer_sees_what_is_loaded_moved_and_forced() -> None:
    layer, other = (QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8"]) for _ in range(2))
    x, run = torch.randn(3, 16), compiled(layer)
    assert torch.equal(run(x), layer(x))
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(run(x), other(x))
    layer.use_kernel("reference")
    assert torch.equal(run(x), layer(x))
    layer.use_kernel(None)
    layer.bfloat16()
    assert run(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(run(x.bfloat16()), layer(x.bfloat16()))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
@torch.no_grad()
def test_inductor_compiles_a_tower() -> None:
    _, embed = tower("open_clip CLIP")
    pixels = torch.randn(2, 3, 32, 32)
    expected = embed(pixels)
    found = compiled(embed, "inductor")(pixels)
    # Its own LayerNorm and GELU round otherwise, which may tip an activation over the edge of an int8 step.
    assert (found - expected).norm() <= 0.01 * expected.norm()


def test_a_compiled_model_gives_the_same_before_and_after_new_weights() -> None:
    of, other = (Model(quantize(build("open_clip CLIP"), "int8")) for _ in range(2))
    pixels = torch.randn(2, 3, 32, 32)
    run = torch.compile(of.encode_image, backend="eager")
    torch.testing.assert_close(run(pixels), of.encode_image(pixels), rtol=0, atol=1e-5)
    state = {k: v.flip(0) if k.endswith("mlp.c_fc.qweight") else v for k, v in other.module.state_dict().items()}
    before = run(pixels)
    of.module.load_state_dict(state)
    after = run(pixels)
    assert not torch.allclose(after, before, atol=1e-4)
    torch.testing.assert_close(after, of.encode_image(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
@torch.no_grad()
def test_an_exported_tower_computes_the_same_after_a_round_trip(name: str, tmp_path) -> None:
    module, _ = tower(name)
    visual = module.visual if hasattr(module, "visual") else Pooled(module.vision_model)
    pixels = torch.randn(2, 3, 32, 32)
    expected = visual(pixels)
    dynamic = {0: torch.export.Dim("batch", min=1, max=64)}
    torch.export.save(torch.export.export(visual, (pixels,), dynamic_shapes=(dynamic,)), tmp_path / "tower.pt2")
    program = torch.export.load(tmp_path / "tower.pt2").module()
    assert torch.equal(program(pixels), expected)
    more = torch.randn(5, 3, 32, 32)
    assert torch.equal(program(more), visual(more))


class Pooled(nn.Module):
    """A transformers vision tower that returns its pooled output alone."""

    def __init__(self, vision: nn.Module):
        super().__init__()
        self.vision = vision

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision(pixel_values=pixels).pooler_output


@each_kernel
@torch.no_grad()
def test_export_of_a_layer_that_was_never_called(kernel: str) -> None:
    layer = QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8"])
    layer.use_kernel(kernel)
    x = torch.randn(3, 16)
    with pytest.raises(QuantizationError, match="call the model once, then export it"):
        torch.export.export(copy.deepcopy(layer), (x,), strict=False)
    strict = torch.export.export(layer, (x,), strict=True)
    assert torch.equal(strict.module()(x), layer(x))
    assert torch.equal(torch.export.export(layer, (x,), strict=False).module()(x), layer(x))


class Wrapped(nn.Module):
    """Packed blocks as somebody else's module would hold them."""

    def __init__(self):
        super().__init__()
        for i in range(2):
            self.register_buffer(f"block_{i}", packed_block(seed=i))

    def forward(self, x: Tensor, offsets: Tensor, keep: Tensor) -> Tensor:
        return ops.blocks(x * 2, offsets, [self.block_0, self.block_1], True, keep) + 1


@needs_library
@torch.no_grad()
def test_a_module_around_the_blocks_compiles_and_exports(tmp_path) -> None:
    module = Wrapped()
    x, offsets, _, _, keep = block_arguments(keep=True)
    expected = module(x, offsets, keep)
    assert torch.equal(compiled(module)(x, offsets, keep), expected)
    torch.export.save(torch.export.export(module, (x, offsets, keep)), tmp_path / "blocks.pt2")
    assert torch.equal(torch.export.load(tmp_path / "blocks.pt2").module()(x, offsets, keep), expected)


@each_kernel
def test_a_gradient_is_refused(kernel: str) -> None:
    layer = QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8"])
    layer.use_kernel(kernel)
    x = torch.randn(3, 16, requires_grad=True)
    with pytest.raises(QuantizationError, match=r"no gradient: call the model under torch\.inference_mode"):
        layer(x)
    with torch.no_grad():
        expected = layer(x)
    assert torch.equal(layer(x.detach()), expected)
    with torch.inference_mode():
        assert torch.equal(layer(x), expected)
    for backend in ("eager", "aot_eager"):
        with pytest.raises(Exception, match="int8 kernels have no gradient"):
            torch.compile(layer, backend=backend)(x).sum().backward()
    with torch.no_grad():
        assert torch.equal(compiled(layer)(x), expected)


@needs_library
def test_the_ops_themselves_refuse_a_gradient() -> None:
    for op, (x, *rest) in ((ops.linear, linear_arguments((3,), True, False)), (ops.blocks, block_arguments())):
        y = op(x.requires_grad_(), *rest)
        with pytest.raises(QuantizationError, match="no gradient; to train, load the model with precision='fp32'"):
            y.sum().backward()


def test_weight_only_has_the_gradient_of_a_linear() -> None:
    layer = QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8-weight-only"])
    x = torch.randn(3, 16, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
