"""Models whose towers run as one native call: what changes after a call is seen, by whomever it is called."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fused_helpers import model
from torch import Tensor, nn

from clipq.methods.finishing import use_kernel
from clipq.models import Model
from clipq.native import library
from clipq.towers.transformer import Sequences

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")


@pytest.mark.parametrize("kernel", ["reference", "native/portable"])
def test_a_forced_kernel_is_the_one_that_runs(kernel: str) -> None:
    of = model("open_clip CLIP")
    pixels = torch.randn(2, 3, 32, 32)
    first = of.encode_image(pixels)
    use_kernel(of.module, kernel)
    stack = of.host.tower(of.module, "image").stack
    assert stack.fits(torch.randn(2, 64)) == kernel.startswith("native")
    assert (of.encode_image(pixels) - first).norm() <= 0.02 * first.norm()
    use_kernel(of.module, None)
    assert torch.equal(of.encode_image(pixels), first)


def changed_state(of: Model) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {k: v.flip(0) if k.endswith("qweight") else v for k, v in of.module.state_dict().items()}


CHANGES: dict[str, Callable[[Model], object]] = {
    "load_state_dict": lambda of: of.module.load_state_dict(changed_state(of)),
    "assigned": lambda of: of.module.load_state_dict(changed_state(of), assign=True),
    "one linear": lambda of: of.module.visual.transformer.resblocks[0].mlp.c_fc.load_state_dict(
        of.module.visual.transformer.resblocks[1].mlp.c_fc.state_dict()
    ),
    "one norm": lambda of: of.module.visual.transformer.resblocks[0].ln_2.load_state_dict(
        {"weight": torch.rand(64), "bias": torch.rand(64)}
    ),
    "a norm in place": lambda of: of.module.visual.transformer.resblocks[1].ln_1.weight.copy_(torch.rand(64)),
    "a new parameter": lambda of: setattr(
        of.module.visual.transformer.resblocks[1].ln_1, "bias", nn.Parameter(torch.rand(64), requires_grad=False)
    ),
    "another activation": lambda of: setattr(of.module.visual.transformer.resblocks[1].mlp, "gelu", nn.Mish()),
    "a forward of its own": lambda of: setattr(
        of.module.visual.transformer.resblocks[0].mlp.gelu, "forward", torch.zeros_like
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_a_call_is_seen(change: str) -> None:
    of, untouched = model("open_clip CLIP"), model("open_clip CLIP")
    pixels = torch.randn(2, 3, 32, 32)
    before = of.encode_image(pixels)
    for each in (of, untouched):
        torch.manual_seed(7)
        with torch.no_grad():
            CHANGES[change](each)
    after = of.encode_image(pixels)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(after, untouched.encode_image(pixels))  # which was first called after the change


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_model_computes_in_its_dtype_and_comes_back(dtype: torch.dtype) -> None:
    of = model("open_clip CLIP")
    x = torch.randn(4, 64)
    sequences = Sequences.equal(2, 2)
    with torch.inference_mode():
        stack = of.host.tower(of.module, "image").stack
        expected = stack(x, sequences, False) if stack.fits(x) else None
        of.module.to(dtype)
        stack = of.host.tower(of.module, "image").stack
        assert stack.fits(x.to(dtype))
        y = stack(x.to(dtype), sequences, False)
        assert y.dtype == dtype
        assert (y.float() - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize(("fallback", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_model_with_a_half_precision_fallback_runs_whole_stacks(fallback: str, dtype: torch.dtype) -> None:
    of, full = model("open_clip CLIP", fallback=fallback), model("open_clip CLIP")
    pixels = torch.randn(3, 3, 32, 32)
    tower = of.host.tower(of.module, "image")
    with torch.inference_mode():
        x = tower.embed(pixels.to(dtype)).flatten(0, 1)
        assert x.dtype == dtype and tower.stack.fits(x)
        assert tower.stack(x, Sequences.equal(3, 17), False).dtype == dtype
    y, expected = of.encode_image(pixels), full.encode_image(pixels)
    assert y.dtype == torch.float32
    assert (y - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
def test_copies_and_pickles_of_a_called_model_are_their_own(name: str) -> None:
    of = model(name)
    pixels = torch.randn(2, 3, 32, 32)
    expected = of.encode_image(pixels)
    twins = [copy.deepcopy(of), pickle.loads(pickle.dumps(of))]
    use_kernel(of.module, "reference")
    del of
    for twin in twins:
        assert torch.equal(twin.encode_image(pixels), expected)
        assert twin.host.tower(twin.module, "image").stack.fits(torch.randn(1, 64))


def test_python_threads_side_by_side_even_at_the_first_call() -> None:
    of = model("open_clip CLIP")
    batches = [torch.randn(size, 3, 32, 32) for size in (1, 3, 2, 5)] * 4
    expected = [copy.deepcopy(of).encode_image(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for found, one in zip(pool.map(of.encode_image, batches), expected, strict=True):
            assert torch.equal(found, one)
