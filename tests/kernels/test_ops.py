"""The native kernels as torch ops: registered as torch wants them, and without a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clipq.errors import QuantizationError
from clipq.kernels import native, ops
from clipq.kernels.stack import pack_block
from clipq.native import library
from clipq.native.blocks import Block, Matrix, Norm
from clipq.native.library import PATHS

WIDTH, HIDDEN, HEADS = 32, 48, 2
needs_library = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
both_kinds = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])


def linear_arguments(
    leading: tuple[int, ...], bias: bool, symmetric: bool, dtype: torch.dtype = torch.float32
) -> tuple:
    weight = torch.randint(-127, 128, (24, 16), dtype=torch.int8)
    packed = native.PackedLinear(weight, torch.rand(24) / 50, torch.randn(24) if bias else None, symmetric)
    return torch.randn(*leading, 16).to(dtype), packed.packed, packed.scale, packed.bias, symmetric, packed.index


def packed_block(symmetric: bool = False, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)

    def matrix(n: int, k: int) -> Matrix:
        weight = torch.randint(-127, 128, (n, k), generator=g, dtype=torch.int8).numpy()
        bias = (torch.randn(n, generator=g) / 10).numpy()
        return Matrix(weight, torch.full((n,), 0.002).numpy(), bias, symmetric=symmetric)

    norm = Norm(torch.ones(WIDTH).numpy(), torch.zeros(WIDTH).numpy(), 1e-5)
    qkv, out, fc1, fc2 = (3 * WIDTH, WIDTH), (WIDTH, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    attention = {"heads": HEADS, "ln_1": norm, "qkv": matrix(*qkv), "out_proj": matrix(*out), "ls_1": None}
    mlp = {"ln_2": norm, "fc1": matrix(*fc1), "activation": "gelu", "fc2": matrix(*fc2), "ls_2": None}
    return pack_block(Block(**attention, **mlp))


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
        (torch.randn(3, 200), packed, scale, bias, symmetric, path),
        (x, packed[:-64], scale, bias, symmetric, path),
        (x, packed, scale.double(), bias, symmetric, path),
        (x, packed, torch.ones(200), None, symmetric, path),
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
    torch._dynamo.reset()
    module = Wrapped()
    x, offsets, _, _, keep = block_arguments(keep=True)
    expected = module(x, offsets, keep)
    run = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(run(x, offsets, keep), expected)
    torch.export.save(torch.export.export(module, (x, offsets, keep)), tmp_path / "blocks.pt2")
    assert torch.equal(torch.export.load(tmp_path / "blocks.pt2").module()(x, offsets, keep), expected)


@needs_library
def test_the_ops_themselves_refuse_a_gradient() -> None:
    for op, (x, *rest) in ((ops.linear, linear_arguments((3,), True, False)), (ops.blocks, block_arguments())):
        y = op(x.requires_grad_(), *rest)
        with pytest.raises(QuantizationError, match="no gradient; to train, load the model with precision='fp32'"):
            y.sum().backward()
