"""Int8 modules traced by `torch.fx`, which records one call of each, and by `torch.jit.trace`: right, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_models import build
from torch import Tensor, nn

from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import QuantizationError
from clipq.methods.finishing import use_kernel
from clipq.methods.quantization import quantize
from clipq.modules.attention import QMultiheadAttention
from clipq.modules.convolutions import QPatchEmbed, QPointwise
from clipq.modules.layers import QEmbedding, QLinear
from clipq.native import library

INT8 = PRECISIONS["int8"]
PLAIN = ("int8-weight-only", "reference", "int_mm")  # a precision and two kernels that are torch's own operators
needs_library = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

Layers = dict[str, tuple[nn.Module, Callable[[], Tensor]]]


@pytest.fixture(autouse=True)
def _gradients_off() -> Iterator[None]:
    with torch.no_grad():
        yield


def layers(precision: str = "int8") -> Layers:
    """Each kind of layer, and inputs for it that differ from call to call."""
    scheme = PRECISIONS[precision]
    return {
        "linear": (QLinear.from_float(nn.Linear(16, 24), scheme), lambda: torch.randn(3, 16)),
        "patches": (QPatchEmbed.from_float(nn.Conv2d(3, 8, 4, 4), scheme), lambda: torch.randn(1, 3, 8, 8)),
        "pixels": (QPointwise.from_float(nn.Conv2d(16, 8, 1), scheme), lambda: torch.randn(1, 16, 2, 3)),
        "embedding": (QEmbedding.from_float(nn.Embedding(9, 8), scheme), lambda: torch.randint(9, (1, 3))),
    }


KINDS = list(layers())


def called(graph: torch.fx.GraphModule) -> list[type]:
    """The classes of the modules that a graph calls, in order."""
    return [type(graph.get_submodule(node.target)) for node in graph.graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize("kind", KINDS)
def test_fx_records_one_call_of_a_layer(kind: str) -> None:
    layer, inputs = layers()[kind]
    graph = torch.fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    assert called(graph) == [type(layer), nn.ReLU]
    x = inputs()
    assert torch.equal(graph(x), layer(x).relu())


class Attends(nn.Module):
    """As hosts call their attention: with keywords, a mask that is a buffer, and the output taken out of a tuple."""

    def __init__(self):
        super().__init__()
        self.attn = QMultiheadAttention(nn.MultiheadAttention(16, 2, batch_first=True), INT8)
        self.register_buffer("mask", torch.full((5, 5), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(query=x, key=x, value=x, need_weights=False, attn_mask=self.mask)[0]


def test_fx_records_one_call_of_an_attention_and_can_take_its_output() -> None:
    module, x = Attends(), torch.randn(2, 5, 16)
    graph = torch.fx.symbolic_trace(module)
    assert called(graph) == [QMultiheadAttention]
    assert torch.equal(graph(x), module(x))


def test_fx_of_a_lone_layer_says_what_to_do() -> None:
    with pytest.raises(QuantizationError, match=r"trace a module that holds it, such as nn\.Sequential\(layer\)"):
        torch.fx.symbolic_trace(layers()["linear"][0])


@pytest.mark.parametrize("name", ["open_clip CLIP", "open_clip custom blocks", "open_clip ResNet"])
@pytest.mark.filterwarnings("ignore:.*matrix weights stay float:clipq.errors.ClipqWarning")
def test_an_image_tower_of_open_clip_is_traced_with_its_int8_modules_as_leaves(name: str) -> None:
    visual = quantize(build(name)).visual
    pixels = torch.randn(2, 3, 32, 32)
    graph = torch.fx.symbolic_trace(visual)
    assert {kind.__name__ for kind in called(graph)} & {"QPatchEmbed", "QPointwise"}
    assert not any("qweight" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(pixels), visual(pixels), rtol=0, atol=1e-5)


def test_torchvision_extracts_features_of_a_quantized_tower() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    visual = quantize(build("open_clip CLIP")).visual
    pixels = torch.randn(2, 3, 32, 32)
    wanted = {"transformer.resblocks.0.mlp.c_fc": "fc1", "ln_post": "normed"}
    found = create_feature_extractor(visual, wanted)(pixels)
    assert found["fc1"].shape == (2, 17, 256)
    torch.testing.assert_close(found["normed"][:, 0] @ visual.proj, visual(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("test_vit", {"dynamic_img_size": False}), ("test_convnext", {}), ("test_efficientnet", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*matrix weights stay float:clipq.errors.ClipqWarning")
def test_timm_extracts_features_of_a_quantized_model(name: str, options: dict) -> None:
    import timm
    from timm.models import FeatureGraphNet

    module = quantize(timm.create_model(name, num_classes=0, **options).eval())
    pixels = torch.randn(1, 3, 160, 160)
    expected = module.forward_intermediates(pixels, indices=(0, 1), output_fmt="NCHW", intermediates_only=True)
    found = FeatureGraphNet(module, (0, 1))(pixels)
    for one, other in zip(found, expected, strict=True):
        one = one if one.ndim == 4 else one[:, -100:].transpose(1, 2).unflatten(2, (10, 10))  # a ViT's are tokens
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def jit_trace(module: nn.Module, *inputs: Tensor) -> torch.jit.ScriptModule:
    with pytest.warns(Warning):  # torch: it is deprecated, and Python values become constants
        return torch.jit.trace(module, inputs, check_trace=False)  # that would be for these inputs only


def in_mode(module: nn.Module, mode: str) -> nn.Module:
    quantize(module, mode if mode in PRECISIONS else "int8")
    use_kernel(module, None if mode in PRECISIONS else mode)
    return module


@needs_library
@pytest.mark.parametrize("kind", ["linear", "patches", "pixels"])
def test_jit_trace_of_a_native_kernel_is_refused_and_leaves_the_layer_as_it_was(kind: str) -> None:
    layer, inputs = layers()[kind]
    x = inputs()
    expected = copy.deepcopy(layer)(x)
    with pytest.warns(Warning), pytest.raises(QuantizationError, match=r"as a constant.* Use torch\.export\.export"):
        torch.jit.trace(layer, (inputs(),))
    assert torch.equal(layer(x), expected)


def test_jit_trace_of_an_embedding_gathers_with_torch() -> None:
    layer, inputs = layers()["embedding"]
    traced = jit_trace(layer, inputs())
    ids = torch.randint(9, (4, 7))
    assert torch.equal(traced(ids), layer(ids))


@pytest.mark.parametrize("mode", PLAIN)
@pytest.mark.parametrize("kind", ["linear", "patches", "pixels"])
def test_jit_trace_of_a_layer_on_plain_torch_computes_the_same_for_other_inputs(kind: str, mode: str) -> None:
    layer, inputs = layers(mode if mode in PRECISIONS else "int8")[kind]
    layer.use_kernel(None if mode in PRECISIONS else mode)
    traced = jit_trace(layer, inputs())  # packed for the first time while it is traced
    for _ in range(2):
        x = torch.cat([inputs(), inputs()])
        assert torch.equal(traced(x), layer(x))


class Texts(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.encode_text(ids)


@pytest.mark.parametrize(
    ("name", "mode"), [*(("open_clip CLIP", mode) for mode in PLAIN), ("open_clip custom blocks", "reference")]
)
def test_jit_trace_of_towers_on_plain_torch_computes_the_same_for_other_inputs(name: str, mode: str) -> None:
    module = in_mode(build(name), mode)
    of_image = jit_trace(module.visual, torch.randn(2, 3, 32, 32))
    of_text = jit_trace(Texts(module), torch.randint(1, 90, (2, 16)))
    pixels, ids = torch.randn(3, 3, 32, 32), torch.randint(1, 90, (3, 16))
    torch.testing.assert_close(of_image(pixels), module.visual(pixels), rtol=0, atol=1e-5)
    torch.testing.assert_close(of_text(ids), module.encode_text(ids), rtol=0, atol=1e-5)


@needs_library
@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers ViT", "timm vision_transformer"])
def test_jit_trace_of_a_model_on_the_native_kernel_is_refused(name: str) -> None:
    module = quantize(build(name))
    size = 160 if name.startswith("timm") else 32
    with pytest.warns(Warning), pytest.raises(QuantizationError, match="as a constant"):
        torch.jit.trace(getattr(module, "visual", module), (torch.randn(1, 3, size, size),))
