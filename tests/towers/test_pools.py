"""Attention pools as native steps: against dense arithmetic, in any batch, and when the modules are called instead."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from tiny_models import build
from torch import Tensor, nn
from tower_helpers import by_layers, model, pixels

from clipq.arithmetic.schemes import Scheme
from clipq.hosts import find_host
from clipq.hosts.calls import install, uninstall
from clipq.methods.finishing import use_kernel
from clipq.methods.quantization import quantize
from clipq.models import Model
from clipq.native import library
from clipq.towers import calls

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

MAP = {"num_classes": 0, "global_pool": "map"}
PLACES = {
    "transformers SigLIP": lambda module: module.vision_model.head,
    "timm pool": lambda module: module.attn_pool,
    "timm pool, class token": lambda module: module.attn_pool,
    "open_clip pooler": lambda module: module.visual.attn_pool,
}


@pytest.fixture(autouse=True)
def more_models(monkeypatch):
    import tiny_models

    pooler = {"attentional_pool": True, "attn_pooler_queries": 1, "attn_pooler_heads": 2}
    vision = {f"vision_{key}": value for key, value in pooler.items()}
    added = {
        "timm pool": lambda: timm.create_model("test_vit", class_token=False, **MAP),
        "timm pool, class token": lambda: timm.create_model("test_vit", **MAP),
        "open_clip pooler": lambda: tiny_models._open_clip(**vision),
    }
    monkeypatch.setattr(tiny_models, "VARIANTS", {**tiny_models.VARIANTS, **added})


@pytest.fixture
def runs(monkeypatch) -> list[bool]:
    """Whether each call of a pool from now on was the native library's."""
    seen: list[bool] = []
    own = calls.run_pool

    def run(pool: object, x: Tensor) -> Tensor | None:
        found = own(pool, x)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(calls, "run_pool", run)
    return seen


def pool_of(name: str, precision: str | Scheme = "int8") -> nn.Module:
    return PLACES[name](model(name, precision).module)


def tokens(pool: nn.Module, batch: int = 5, count: int = 16) -> Tensor:
    width = pool.ln_k.weight.shape[0] if hasattr(pool, "ln_k") else 64
    return torch.randn(batch, count, width)


def by_modules(pool: nn.Module, x: Tensor) -> Tensor:
    handles = [part.register_forward_hook(lambda *_: None) for part in pool.modules() if part is not pool]
    with torch.no_grad():
        found = pool(x)
    for handle in handles:
        handle.remove()
    return found


def worst(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("count", [1, 3, 16, 77])
def test_a_pool_is_what_its_modules_compute(name, count, runs):
    pool = pool_of(name)
    x = tokens(pool, 7, count)
    expected = by_modules(pool, x)
    assert not any(runs)
    with torch.no_grad():
        found = pool(x)
    assert runs[-1]
    assert found.shape == expected.shape and found.dtype == x.dtype
    assert worst(found, expected) < 1e-2  # a value may tip over the edge of an int8 step


def dense(pool: nn.Module, x: Tensor) -> Tensor:
    """In float64, nothing quantized but the weights."""

    def linear(one: nn.Module, rows: Tensor) -> Tensor:
        return rows @ one.weight.double().T + one.bias.double()

    def by_heads(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (pool.attention.num_heads, -1)).transpose(1, 2)

    inner, width = pool.attention.in_proj, x.shape[-1]
    probe = pool.probe.double().expand(len(x), 1, -1)
    q = linear(inner, probe)[..., :width]
    k, v = linear(inner, x.double())[..., width:].chunk(2, dim=-1)
    scores = by_heads(q) @ by_heads(k).transpose(2, 3) / (width / pool.attention.num_heads) ** 0.5
    y = linear(pool.attention.out_proj, (scores.softmax(-1) @ by_heads(v)).transpose(1, 2).flatten(2))
    norm = pool.layernorm
    normed = F.layer_norm(y, (width,), norm.weight.double(), norm.bias.double(), norm.eps)
    y = y + linear(pool.mlp.fc2, F.gelu(linear(pool.mlp.fc1, normed), approximate="tanh"))
    return y[:, 0].float()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_a_pool_against_dense_arithmetic_and_outliers(scale, runs):
    pool = pool_of("transformers SigLIP")
    x = tokens(pool, 4) * scale
    x[1, :, 3] *= 20
    x[2] = x[2, :1]  # all tokens alike
    with torch.no_grad():
        found = pool(x)
    assert runs == [True]
    assert worst(found, dense(pool, x)) < 0.03  # 8-bit activations, four times


@pytest.mark.parametrize("name", PLACES)
def test_a_picture_has_the_same_bits_in_any_batch(name):
    pool = pool_of(name)
    for seed in range(5):
        torch.manual_seed(seed)
        x = tokens(pool, 300, 33)  # longer than what is computed at a time
        with torch.no_grad():
            whole = pool(x)
            for size in (1, 7, 100):
                assert torch.equal(torch.cat([pool(part) for part in x.split(size)]), whole)
            assert torch.equal(pool(x[:, ::2]), pool(x[:, ::2].contiguous()))


def test_other_types_come_back_as_they_went_in(runs):
    pool = pool_of("transformers SigLIP")
    x = tokens(pool)
    with torch.no_grad():
        expected = pool(x)
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            found = pool(x.to(dtype))
            assert found.dtype == dtype and worst(found.float(), expected) < 2e-2
    assert all(runs)


def changed_probe(pool):
    pool.probe.data = pool.probe.data + 1


def changed_norm(pool):
    with torch.no_grad():
        pool.layernorm.weight.mul_(2)


def changed_linear(pool):
    linear = pool.attention.in_proj
    linear.load_state_dict({**linear.state_dict(), "qweight": linear.qweight.flip(0)})


def replaced_activation(pool):
    pool.mlp.activation_fn = nn.GELU()


def replaced_linear(pool):
    pool.mlp.fc1 = copy.deepcopy(pool.mlp.fc1)
    pool.mlp.fc1.weight_scale.mul_(3)
    pool.mlp.fc1.drop_kernel()


@pytest.mark.parametrize("change", [changed_probe, changed_norm, changed_linear, replaced_activation, replaced_linear])
def test_a_changed_pool_is_computed_as_it_is_now(change, runs, monkeypatch):
    monkeypatch.setattr("clipq.modules.layers.refuse_foreign_saving", lambda: None)
    pool = pool_of("transformers SigLIP")
    x = tokens(pool)
    with torch.no_grad():
        before = pool(x)
        change(pool)
        after = pool(x)
    assert runs == [True, True]
    assert not torch.equal(after, before)
    assert worst(after, by_modules(pool, x)) < 1e-2


def test_changed_floats_of_a_pooler_are_seen(runs):
    pool = pool_of("open_clip pooler")
    x = tokens(pool)
    with torch.no_grad():
        before = pool(x)
        pool.attn.k_proj_weight.mul_(-3)
        after = pool(x)
        pool.attn.out_proj.bias = nn.Parameter(pool.attn.out_proj.bias + 1)
        last = pool(x)
    assert all(runs) and not torch.equal(after, before)
    assert torch.allclose(after, by_modules(pool, x) - 1, atol=1e-5)
    assert torch.allclose(last, after + 1, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8-weight-only"])
def test_without_int8_rows_a_pool_is_torchs(precision, runs):
    for name in PLACES:
        of = model(name, precision)
        of.encode_image(pixels(of))
    assert not any(runs)


def test_another_kernel_runs_it(runs):
    of = model("transformers SigLIP", "int8")
    use_kernel(of.module, "reference")
    pool, x = of.module.vision_model.head, tokens(of.module.vision_model.head)
    with torch.no_grad():
        found = pool(x)
    use_kernel(of.module, None)
    with torch.no_grad():
        assert worst(pool(x), found) < 1e-2
    assert runs == [False, True]


def test_gradients_masks_and_graphs_are_the_modules_own(runs):
    pool = pool_of("timm pool")
    x = tokens(pool)
    with torch.no_grad():
        masked = pool(x, attn_mask=torch.zeros(1, 1, 1, 16))
        assert runs == []
        assert worst(pool(x), masked) < 1e-2
        exported = torch.export.export(pool, (x,)).module()(x)
        compiled = torch.compile(pool, backend="eager")(x)
    assert runs == [True]
    assert worst(exported, masked) < 1e-2 and worst(compiled, masked) < 1e-2
    assert runs == [True]
    pool.train()
    with torch.no_grad():
        pool(x)
    assert runs == [True]


def test_copies_and_pickles_and_what_was_uninstalled(runs):
    pool = pool_of("transformers SigLIP")
    x = tokens(pool)
    with torch.no_grad():
        expected = pool(x)
        assert torch.equal(copy.deepcopy(pool)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(pool))(x), expected)  # noqa: S301 (our own)
    of = model("transformers SigLIP", "int8")
    uninstall(of.module)
    assert type(of.module.vision_model.head).__module__.startswith("transformers.")
    install(of.module)
    assert isinstance(of.module.vision_model.head, calls.WholePool)


def test_siglip_2_without_a_mask(runs):
    import transformers

    config = transformers.Siglip2VisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_patches=16, patch_size=8
    )
    module = transformers.Siglip2VisionModel(config).eval()
    head = module.head if hasattr(module, "head") else module.vision_model.head
    x = torch.randn(3, 16, 64)
    with torch.no_grad():
        expected = head(x)
    holder = build("transformers SigLIP")
    holder.vision_model.head = head
    quantized = quantize(Model(holder), "int8").module.vision_model.head
    with torch.no_grad():
        found = quantized(x)
        assert runs == [True]
        assert worst(found, expected) < 0.03
        assert worst(quantized(x, torch.ones(3, 16, dtype=torch.int64)), expected) < 0.03
    assert runs == [True]
    assert find_host(holder).name == "transformers"


def test_a_whole_model_agrees_with_its_layers(runs):
    for name in PLACES:
        of = model(name, "int8")
        x = pixels(of, 9)
        found = of.encode_image(x)
        assert runs.pop() and worst(found, by_layers(of, x)) < 1e-2
