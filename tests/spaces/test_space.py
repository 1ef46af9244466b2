"""A tower's space is the same in memory, in its file, read back, and in `clipq.runtime`; what decides it changes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, forge_config, model, tokenizer_spec
from tiny_models import BUILDERS, build

import clipq
from clipq.errors import ClipqError, SpaceError, UnknownNameError
from clipq.files.checkpoints import read, write
from clipq.files.header import read_header
from clipq.files.spaces import KEY, tower_space
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.models import Model
from clipq.spaces import tensors
from clipq.spaces.space import COMPONENTS, Space, space_in

OLD = Path(__file__).resolve().parents[1] / "data" / "v0.2"
OTHERS = ("transformers CLIP image, projected", "transformers SigLIP text", "timm registers")
PIXELS = {"kind": "open_clip", "size": 32}


@pytest.mark.filterwarnings("ignore::clipq.errors.ClipqWarning")
@pytest.mark.parametrize("name", [*BUILDERS, *OTHERS])
def test_memory_file_and_runtime_agree(name, tmp_path):
    own = model(name)
    path = tmp_path / "model.safetensors"
    write(own, path)
    without = forge_config(path, tmp_path / "old.safetensors", lambda config: config.pop(KEY))
    again = read(path)
    for tower in own.towers:
        expected = own.space(tower)
        assert read_header(path).config[KEY][tower]["id"] == expected.id
        for file in (path, without):
            header = read_header(file)
            assert tower_space(header, tower).space().components == expected.components
        assert again.space(tower) == expected == clipq.space_of(str(path), tower)
        assert json.loads(json.dumps(expected.components)) == expected.components
    assert len({own.space(tower).id for tower in own.towers}) == len(own.towers)


@pytest.mark.parametrize(
    "precision", ["fp32", "fp16", "bf16", "int8", "int8-weight-only", "int4", "fp8", "int8-static"]
)
def test_every_precision_is_a_space_of_its_own(precision, tmp_path):
    parts = {"tokenizer": tokenizer_spec(), "preprocessing": PIXELS}
    own, path = model(TWO_TOWERS, precision, **parts), tmp_path / "model.safetensors"
    write(own, path)
    old = forge_config(path, tmp_path / "old.safetensors", lambda config: config.pop(KEY))
    for tower in own.towers:
        assert own.space(tower).id == clipq.space_of(path, tower).id == clipq.space_of(old, tower).id
        assert read(path).space(tower).id == own.space(tower).id
        others = [
            model(TWO_TOWERS, one, **parts).space(tower).id for one in ("fp32", "bf16", "int8") if one != precision
        ]
        assert own.space(tower).id not in others
    clipq.check_same_space(own, path)
    with pytest.raises(SpaceError, match="scheme"):
        clipq.check_same_space(own, model(TWO_TOWERS, "int8" if precision != "int8" else "fp32", **parts))


def test_casts_round_as_torch_does():
    bits = torch.randint(-(2**31), 2**31, (200_000,), dtype=torch.int32)
    ties = torch.arange(0x3F800000, 0x3F900000, 0x800, dtype=torch.int32)
    values = torch.cat([bits, ties]).view(torch.float32)
    values = torch.cat([values[values.isfinite()], torch.tensor([0.0, -0.0, 1e-45, 65504.0, 65520.0, torch.inf])])
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for have, dtype in dtypes.items():
        x = values.to(dtype)
        for want, other in dtypes.items():
            found = tensors._cast(x.view(torch.uint8).numpy(), have, want)
            assert np.array_equal(found, x.to(other).view(torch.uint8).numpy()), (have, want)


def test_the_device_decides_the_floats_of_auto_and_not_the_space(tmp_path):
    """fp16 where the device computes it, fp32 elsewhere: whoever has which, writes and reads the same space."""
    own, path = model(TWO_TOWERS), tmp_path / "half.safetensors"
    expected = own.space("image")
    own.module.half()
    assert own.space("image") == expected
    write(own, path)
    entries = {entry["dtype"] for name, entry in read_header(path).tensors.items() if name.endswith("norm1.weight")}
    assert entries == {"F16"} and read(path).space("image") == expected
    assert model(TWO_TOWERS, fallback="fp32").space("image") != expected


def test_one_tower_alone_is_the_tower_of_two(tmp_path):
    both, alone = build(TWO_TOWERS), build("transformers CLIP image, projected")
    alone.vision_model.load_state_dict(both.vision_model.state_dict())
    with torch.no_grad():
        alone.visual_projection.weight = torch.nn.Parameter(both.visual_projection.weight.clone())
    alone.config.projection_dim = both.config.projection_dim
    both, alone = (clipq.quantize(Model(one)) for one in (both, alone))
    clipq.save(both, tmp_path / "both.safetensors")
    clipq.check_same_space(tmp_path / "both.safetensors", alone)
    runtime = clipq.runtime.load(tmp_path / "both.safetensors", towers="image")
    clipq.check_same_space(runtime, alone)
    with pytest.raises(UnknownNameError):
        runtime.space("text")


def test_tied_and_shared_weights(tmp_path):
    own = build(OPEN_CLIP)
    blocks = own.visual.transformer.resblocks
    blocks[1].mlp.c_fc.weight = blocks[0].mlp.c_fc.weight
    own = model(OPEN_CLIP, "fp32") if own is None else Model(own, config=model(OPEN_CLIP).config)
    write(own, tmp_path / "tied.safetensors")
    clipq.check_same_space(own, tmp_path / "tied.safetensors")
    clipq.check_same_space(own, read(tmp_path / "tied.safetensors"))


def test_kernels_threads_and_names_are_no_part_of_it():
    own, renamed = model(TWO_TOWERS), model(TWO_TOWERS, clipq.Scheme("mine", **_int8()))
    expected = own.space("image")
    assert renamed.space("image") == expected
    for part in own.module.modules():
        if hasattr(part, "use_kernel"):
            part.use_kernel("reference")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert own.space("image") == expected
    torch.set_num_threads(threads)


def _int8() -> dict:
    from clipq.arithmetic.precisions import PRECISIONS

    return {key: getattr(PRECISIONS["int8"], key) for key in ("weights", "activations", "embeddings", "attention")}


def test_integer_attention_is_a_part_of_it():
    other = "float" if _int8()["attention"] == "int8" else "int8"
    changed = model(TWO_TOWERS, clipq.Scheme("int8", **{**_int8(), "attention": other}))
    (found,) = model(TWO_TOWERS).space("image").differences(changed.space("image"))
    assert found.startswith("scheme.attention: ")


def test_what_decides_it_changes_it():
    own = model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing=PIXELS)
    image, text = own.space("image"), own.space("text")
    words = {name: body.replace('"cat"', '"cow"') for name, body in own.tokenizer_spec.files.items()}
    noted = {name: body.replace("{", '{"transformers_version": "9.9", ', 1) for name, body in words.items()}
    noted = {name: noted[name] if name == "tokenizer_config.json" else body for name, body in words.items()}
    assert noted != words
    other = model(TWO_TOWERS, tokenizer=TokenizerSpec(own.tokenizer_spec.settings, words), preprocessing=PIXELS)
    again = model(TWO_TOWERS, tokenizer=TokenizerSpec(own.tokenizer_spec.settings, noted), preprocessing=PIXELS)
    assert other.space("image") == image and again.space("text") == other.space("text")
    assert [one.partition(":")[0] for one in text.differences(other.space("text"))] == ["tokenizer.files"]
    squashed = model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing={**PIXELS, "resize_mode": "squash"})
    assert squashed.space("text") == text
    assert image.differences(squashed.space("image")) == ['preprocessing.resize_mode: nothing and "squash"']
    assert image.differences(own.space("image", "scaled")) == ['decode: "exact" and "scaled"']
    assert image.differences(own.space("image", normalized=False)) == ["normalized: true and false"]
    assert own.space("text", "scaled") == text != own.space("text", normalized=False)
    assert text.components["preprocessing"] is text.components["decode"] is image.components["tokenizer"] is None
    bare = model(TWO_TOWERS)
    assert bare.space("image").components["preprocessing"] is bare.space("text").components["tokenizer"] is None
    assert bare.space("image", "scaled") == bare.space("image")  # nothing is known, and so all is decoded


def test_sizes_in_tuples_lists_and_numbers_are_one():
    spellings = ({"size": 32}, {"size": (32, 32)}, {"size": [32, 32], "mode": None})
    ids = {model(TWO_TOWERS, preprocessing={**PIXELS, **one}).space("image").id for one in spellings}
    assert len(ids) == 1


def test_weights_that_change_are_noticed_and_those_that_do_not_are_hashed_once(monkeypatch):
    hashed, digest = [], tensors.digest
    monkeypatch.setattr("clipq.modules.raw.digest", lambda *args: hashed.append(1) or digest(*args))
    own = model(TWO_TOWERS)
    first = own.space("image")
    assert own.space("image", normalized=False) != first and own.space("image") == first and len(hashed) == 1
    norm = own.module.vision_model.post_layernorm
    with torch.no_grad():
        norm.weight.mul_(2)
    second = own.space("image")
    assert second != first and len(hashed) == 2
    norm.weight = torch.nn.Parameter(norm.weight.clone() / 2, requires_grad=False)
    assert own.space("image") == first and len(hashed) == 3
    floats = Model(build(TWO_TOWERS))
    before = floats.space("image")
    assert floats.space("image") == before and len(hashed) == 4
    floats.module.visual_projection.weight.data.mul_(2)  # nothing that torch counts
    assert floats.space("image") != before
    floats.module.visual_projection.weight.data.div_(2)
    assert floats.space("image") == before
    optimizer = torch.optim.AdamW(floats.module.visual_projection.parameters())
    (floats.module.visual_projection.weight**2).sum().backward()
    optimizer.step()
    trained = floats.space("image")
    with torch.inference_mode():
        floats.module.visual_projection.weight = torch.nn.Parameter(floats.module.visual_projection.weight.clone())
    assert before != trained == floats.space("image")


def test_a_fingerprint_and_the_files_of_a_tokenizer_are_hashed_once(monkeypatch):
    own = model(TWO_TOWERS, tokenizer=tokenizer_spec())
    first, text, hashed = own.fingerprint(), own.space("text"), []
    monkeypatch.setattr("clipq.module_like.files_digest", hashed.append)
    monkeypatch.setattr("clipq.modules.raw.hashlib", None)
    assert own.fingerprint() == first and own.space("text") == text and not hashed
    monkeypatch.undo()
    with torch.no_grad():
        own.module.vision_model.post_layernorm.weight.mul_(2)
    assert own.fingerprint() != first and own.space("text") == text


def test_what_no_host_has_words_for_is_told_by_its_modules():
    one, two = (Model(build(OPEN_CLIP)) for _ in range(2))
    with pytest.raises(ClipqError):
        _ = one.config
    assert one.space("image") == two.space("image")
    before, after = (one.space("image").components["architecture"] for one in (two, clipq.quantize(two)))
    fresh = clipq.quantize(Model(build(OPEN_CLIP))).space("image").components["architecture"]
    assert before == after == fresh
    other = Model(build("open_clip CLIP QuickGELU"))
    assert [line.partition(":")[0] for line in one.space("image").differences(other.space("image"))] == [
        "architecture.modules"
    ]


def test_the_activation_is_told_where_the_weights_are_the_same():
    one, two = model(OPEN_CLIP), model("open_clip CLIP QuickGELU")
    assert one.space("image").differences(two.space("image")) == ["architecture.quick_gelu: nothing and true"]


def test_a_space_says_what_it_is_of_and_is_checked():
    space = model(TWO_TOWERS).space("image")
    about = json.loads(json.dumps(space.described()))
    assert space_in(about, "x") == space and set(space.components) == set(COMPONENTS)
    assert len(space.id) == 16 and space_in({}, "x") is None
    for changed in ({"space_id": "0" * 16}, {"space": {**about["space"], "normalized": False}}, {"space": None}):
        with pytest.raises(SpaceError, match="not those of that id"):
            space_in({**about, **changed}, "x")
    for key in COMPONENTS:
        assert Space({**space.components, key: "else"}).id != space.id


def test_old_files_have_a_space_and_the_runtime_needs_no_torch_for_it(tmp_path):
    from hub_helpers import run

    own = clipq.load("clipq-tiny")
    path = tmp_path / "tiny.safetensors"
    clipq.save(own, path)
    old = forge_config(path, tmp_path / "old.safetensors", lambda config: config.pop(KEY))
    code = (
        "import sys, clipq.runtime\n"
        "for path in sys.argv[1:]:\n"
        "    model = clipq.runtime.load(path)\n"
        "    print(*(model.space(tower).id for tower in model.towers))\n"
        "assert 'torch' not in sys.modules"
    )
    said = run(code, path, old).stdout.split()
    assert said == 2 * [own.space(tower).id for tower in own.towers]
    assert "torch" in sys.modules


@pytest.mark.parametrize("name", ["open_clip-clip", "timm-vision_transformer", "transformers-clip"])
def test_files_of_the_first_versions_have_a_space(name, tmp_path):
    path = OLD / f"{name}.safetensors"
    own = read(path)
    for tower in own.towers:
        assert clipq.space_of(path, tower) == own.space(tower)
    clipq.save(own, tmp_path / "new.safetensors")
    assert KEY not in read_header(path).config
    clipq.check_same_space(path, tmp_path / "new.safetensors")


@pytest.mark.filterwarnings("default")  # of transformers
@pytest.mark.parametrize(
    ("name", "kind", "tower"),
    [
        (TWO_TOWERS, "CLIPModel", "text"),
        (TWO_TOWERS, "CLIPVisionModelWithProjection", "image"),
        ("transformers SigLIP", "SiglipTextModel", "text"),
    ],
)
def test_what_transformers_reads_of_our_folder_is_the_same_tower(name, kind, tower, tmp_path):
    import transformers

    clipq.save(own := model(name), tmp_path / "folder")
    module = getattr(transformers, kind).from_pretrained(tmp_path / "folder")
    assert clipq.space_of(module, tower).differences(own.space(tower)) == []
