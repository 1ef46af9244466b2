"""Quantized models under `torch.compile` and `torch.export`: one graph, the same numbers, and no gradient."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_models import build
from torch import Tensor, nn

from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import QuantizationError
from clipq.methods.finishing import use_kernel
from clipq.methods.quantization import quantize
from clipq.models import Model
from clipq.modules.layers import QLinear
from clipq.native import library
from clipq.towers.transformer import Sequences

KERNELS = [*(["native"] if library.available() else []), "int_mm", "reference"]
each_kernel = pytest.mark.parametrize("kernel", KERNELS)
needs_library = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "While compiling, we found certain side effects", UserWarning
        )  # transformers'
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # within torch's own compiler
        yield


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
@pytest.mark.parametrize("name", ["timm EVA02", "timm DINOv3"])
def test_a_tower_that_turns_by_place_compiles_into_one_graph(name: str) -> None:
    module = quantize(build(name), "int8")
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(compiled(module)(pixels), module(pixels), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_text_tower_compiles_into_one_graph() -> None:
    module, _ = tower("open_clip CLIP")
    ids = torch.randint(1, 49408, (2, 16))
    assert torch.equal(compiled(module.encode_text)(ids), module.encode_text(ids))


@needs_library
@torch.no_grad()
def test_a_compiled_tower_is_one_native_op_for_its_patches_and_one_for_all_blocks() -> None:
    _, embed = tower("open_clip CLIP")
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list) -> Callable:
        nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
        called.extend(str(node.target) for node in nodes if "clipq" in str(node.target))
        return graph.forward

    compiled(embed, backend)(torch.randn(1, 3, 32, 32))
    assert called == ["clipq.linear.default", "clipq.blocks.default"]


@torch.no_grad()
def test_a_text_tower_of_transformers_that_was_never_called_compiles() -> None:
    module, _ = tower("transformers CLIP")
    ids = torch.randint(1, 90, (2, 16))
    found = torch.compile(lambda ids: module.get_text_features(ids).pooler_output, backend="eager")(ids)
    torch.testing.assert_close(found, module.get_text_features(ids).pooler_output, rtol=0, atol=1e-5)


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


@each_kernel
@torch.no_grad()
def test_a_compiled_layer_refuses_rows_of_another_length(kernel: str) -> None:
    layer = QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8"])
    layer.use_kernel(kernel)
    run = torch.compile(layer, backend="eager")
    with pytest.raises((QuantizationError, RuntimeError)):
        run(torch.randn(3, 15))
    assert run(torch.randn(3, 16)).shape == (3, 8)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
@torch.no_grad()
def test_inductor_compiles_an_mlp() -> None:
    linears = (QLinear.from_float(nn.Linear(*sizes), PRECISIONS["int8"]) for sizes in ((16, 32), (32, 16)))
    mlp = nn.Sequential(nn.LayerNorm(16), next(linears), nn.GELU(), next(linears))
    x = torch.randn(5, 16)
    expected = mlp(x)
    found = compiled(mlp, "inductor")(x)
    # Its own LayerNorm and GELU round otherwise, which may tip an activation over the edge of an int8 step.
    assert (found - expected).norm() <= 0.01 * expected.norm()


@needs_library
@torch.no_grad()
def test_a_compiled_stack_is_one_graph_and_sees_new_weights() -> None:
    of = Model(quantize(build("open_clip CLIP"), "int8"))
    stack, sequences = of.host.tower(of.module, "image").stack, Sequences.equal(2, 2)
    run = compiled(lambda x: stack(x, sequences, False) if stack.fits(x) else None, "eager")
    x = torch.randn(4, 64)
    before = run(x)
    assert stack.fits(x) and torch.equal(stack(x, sequences, False), before)
    first, second = (block.mlp.c_fc for block in of.module.visual.transformer.resblocks)
    first.load_state_dict(second.state_dict())
    after = run(x)
    assert not torch.equal(after, before)
    assert stack.fits(x) and torch.equal(stack(x, sequences, False), after)


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


def test_weight_only_has_the_gradient_of_a_linear() -> None:
    layer = QLinear.from_float(nn.Linear(16, 8), PRECISIONS["int8-weight-only"])
    x = torch.randn(3, 16, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
