"""Which settings make another space, and which say the same: of architectures, preprocessing and tokenizers."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, forge_config, hf_tokenizer, model
from tiny_models import _open_clip, _timm, _timm_trunk, build, open_clip_config

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import CheckpointError, ClipqError
from clipq.hosts.structure import structure
from clipq.inputs.settings import OPENAI_MEAN
from clipq.inputs.tokenization import describe_tokenizer
from clipq.models import Model
from clipq.spaces.architectures import _OPEN_CLIP, architecture
from clipq.spaces.space import FORMAT, digest_of
from clipq.spaces.towers import _preprocessing, files_digest

CLIP = {"embed_dim": 8, "vision_cfg": {"timm_model_name": "x"}, "text_cfg": {"width": 32}}
ROBERTA = {"model_type": "xlm-roberta", "hidden_size": 8}


def _clip(tower: str, **settings: object) -> dict:
    part = {"image": "vision_cfg", "text": "text_cfg"}[tower]
    return architecture("open_clip", {**CLIP, part: {**CLIP[part], **settings}}, tower)


def _hf(**settings: object) -> dict:
    return architecture("open_clip", {**CLIP, "hf_text_config": {**ROBERTA, **settings}}, "text")


@pytest.mark.parametrize(
    ("tower", "settings", "same"),
    [
        ("image", {"timm_pool": ""}, False),
        ("image", {"timm_pool": "avg"}, True),
        ("image", {"pool_type": "avg"}, False),
        ("image", {"timm_drop": 0.5}, True),
        ("image", {"from_the_future": False}, False),
        ("text", {"hf_pooler_type": None}, False),
        ("text", {"no_causal_mask": False, "eos_id": 2}, True),
        ("text", {"no_causal_mask": True}, False),
        ("text", {"pool_type": "last"}, False),
    ],
)
def test_a_setting_counts_unless_it_is_what_open_clip_takes_without_it(tower, settings, same):
    assert (_clip(tower, **settings) == _clip(tower)) is same


def test_the_table_is_what_open_clip_takes():
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    for tower, kind in (("image", CLIPVisionCfg), ("text", CLIPTextCfg)):
        defaults = {one.name: one.default for one in fields(kind)}
        table = {**_OPEN_CLIP[tower], **_OPEN_CLIP["both"]}
        assert {key: defaults[key] for key in table if key != "quick_gelu"} == {
            key: value for key, value in table.items() if key != "quick_gelu"
        }


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("pad_token_id", 0, 1),
        ("scale_embedding", True, False),
        ("relative_attention_max_distance", 128, 256),
        ("feed_forward_proj", "relu", "gated-gelu"),
        ("sep_token_id", 1, None),
        ("is_decoder", True, False),
        ("qkv_bias", None, False),
        ("type_vocab_size", 1, 2),
    ],
)
def test_settings_of_transformers_count(key, one, other):
    assert _hf(**{key: one}) != _hf(**{key: other})
    assert architecture("transformers", {key: one}, "image") != architecture("transformers", {key: other}, "image")


def test_where_a_configuration_is_from_and_how_one_trains_do_not_count():
    noise = {"transformers_version": "9", "_name_or_path": "x", "dtype": "float16", "attention_dropout": 0.1}
    noise |= {"initializer_range": 0.1, "use_cache": True, "position_embedding_type": "absolute", "top_k": 50}
    noise |= {"sep_token_id": None, "is_decoder": False, "id2label": {"0": "x"}, "_attn_implementation": "sdpa"}
    assert _hf(**noise) == _hf()
    named = architecture("open_clip", {**CLIP, "text_cfg": {**CLIP["text_cfg"], "hf_model_name": "a/b"}}, "text")
    assert named["hf_model_name"] == "a/b" and named != _clip("text")


def test_poolings_of_timm_count():
    config = {"arch": "test_vit", "global_pool": ""}
    assert architecture("timm", config, "image") != architecture("timm", {**config, "global_pool": None}, "image")


@pytest.mark.parametrize(
    "change",
    [
        lambda: _open_clip(vision_pool_type="avg"),
        lambda: _open_clip(text_pool_type="last"),
        lambda: _open_clip(text_no_causal_mask=True),
        lambda: _relu(_open_clip()),
    ],
)
def test_modules_count_where_no_configuration_is_known(change):
    plain, changed = _open_clip(), change()
    changed.load_state_dict(plain.state_dict(), strict=False)
    told = [[Model(one).space(tower).id for tower in ("image", "text")] for one in (plain, changed)]
    assert told[0] != told[1]


def _relu(module: torch.nn.Module) -> torch.nn.Module:
    module.visual.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()
    return module


def test_timm_with_another_activation_is_not_the_plain_one(tmp_path):
    plain, other = _timm("test_vit", num_classes=0), _timm("test_vit", num_classes=0, act_layer="relu")
    other.load_state_dict(plain.state_dict())
    assert Model(plain).space("image") != Model(other).space("image")
    with pytest.raises(ClipqError, match=r"not a plain test_vit \(blocks.0.mlp.act.class is 'ReLU\("):
        clipq.save(other, tmp_path / "model.safetensors")


def test_a_model_that_its_configuration_does_not_make_is_told_apart_and_not_saved(tmp_path):
    own, trunk = model(OPEN_CLIP), _timm_trunk("test_vit")
    before = own.space("image")
    _relu(own.module)
    assert [line.partition(":")[0] for line in before.differences(own.space("image"))] == ["architecture.modules"]
    masked = build("open_clip CustomTextCLIP")
    masked.text.use_pad_mask = True
    other = {**open_clip_config(**{**trunk[1], "vision_timm_pool": "avg", "vision_image_size": 160})}
    trunked = _open_clip(trunk[0], **{**trunk[1], "vision_image_size": 160})
    for wrong, config in ((own.module, own.config), (masked, open_clip_config()), (trunked, other)):
        config = {**config, "custom_text": hasattr(wrong, "text")}
        with pytest.raises(CheckpointError, match="not what its configuration makes"):
            clipq.save(Model(wrong, config=config), tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{}, {"position_embedding_type": "absolute"}, {"type_vocab_size": None}])
def test_the_text_configuration_of_a_file_stays_as_it_is(change, tmp_path):
    """Another version of transformers writes other defaults into it."""
    import open_clip
    from transformers import RobertaConfig

    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    RobertaConfig(**sizes, intermediate_size=64, max_position_embeddings=20).save_pretrained(tmp_path / "hf")
    config = open_clip_config()
    config["text_cfg"] = {"hf_model_name": str(tmp_path / "hf"), "hf_model_pretrained": False, "context_length": 16}
    module = open_clip.CustomTextCLIP(48, config["vision_cfg"], dict(config["text_cfg"])).eval()
    own = Model(module, config={**config, "custom_text": True})
    clipq.save(own, tmp_path / "own.safetensors")

    def changed(values: dict) -> None:
        text = values["config"]["hf_text_config"]
        for key, value in change.items():
            text.pop(key, None) if value is None else text.update({key: value})
        values.pop("spaces")

    file = forge_config(tmp_path / "own.safetensors", tmp_path / "other.safetensors", changed)
    assert clipq.load(file, precision="fp32").space("text") == clipq.space_of(file, "text")
    if "type_vocab_size" not in change:
        assert clipq.space_of(file, "text") == own.space("text")


@pytest.mark.parametrize(
    "same",
    [{"mode": "RGB"}, {"resize_mode": "shortest"}, {"fill_color": 0}, {"interpolation": "bicubic"}]
    + [{"mean": list(OPENAI_MEAN)}, {"std": None}],
)
def test_preprocessing_with_what_open_clip_takes_without_it(same):
    plain = {"kind": "open_clip", "size": 32}
    assert _preprocessing(plain) == _preprocessing({**plain, **same}) != _preprocessing({**plain, "mean": [0.5] * 3})


def test_of_a_tokenizer_what_is_null_says_nothing_and_what_is_false_does():
    def of(**settings: object) -> str:
        return files_digest({"tokenizer_config.json": json.dumps(settings)})

    assert of(do_lower_case=False) != of() == of(do_lower_case=None, transformers_version="9")


def test_a_tokenizer_that_was_used_is_the_same():
    tokenizer = hf_tokenizer()
    fresh = describe_tokenizer(tokenizer, 16).files
    tokenizer(["a cat"], padding="max_length", max_length=16, truncation=True)
    used = describe_tokenizer(tokenizer, 16).files
    assert fresh != used and files_digest(fresh) == files_digest(used)
    values = json.loads(used["tokenizer.json"])
    values["padding"]["direction"] = "Left"
    left = {**used, "tokenizer.json": json.dumps(values)}
    values["model"]["vocab"]["cow"] = values["model"]["vocab"].pop("cat")
    assert len({files_digest(one) for one in (used, left, {**used, "tokenizer.json": json.dumps(values)})}) == 3


def test_of_a_scheme_counts_what_acts():
    scheme = PRECISIONS["int8"]
    own, half = model(TWO_TOWERS, scheme), PRECISIONS["int8-weight-only"]
    unused = model(TWO_TOWERS, replace(scheme, exceptions=(("nothing.*", PRECISIONS["fp32"]),)))
    assert unused.space("image") == own.space("image") and unused.space("text") == own.space("text")
    plain = model(TWO_TOWERS, replace(scheme, embeddings=None))
    assert plain.space("image") == own.space("image") and plain.space("text") != own.space("text")
    acts = [model(TWO_TOWERS, replace(scheme, exceptions=((p, half),))) for p in ("*layers.0*fc1", "*.0.mlp.fc1")]
    assert acts[0].space("image") == acts[1].space("image") != own.space("image")
    assert acts[0].space("image").components["scheme"]["exceptions"]["count"] == 1


def test_what_only_training_does_is_no_structure():
    plain, dropping = (_open_clip(vision_patch_dropout=rate) for rate in (0.0, 0.5))
    assert structure(plain) == structure(dropping) != structure(_open_clip(vision_pool_type="avg"))


@pytest.mark.parametrize(
    ("host", "config", "tower", "known"),
    [
        ("open_clip", {**CLIP, "text_cfg": {"width": 32, "pool_type": "last"}}, "text", "8279f101"),
        ("open_clip", {**CLIP, "hf_text_config": {**ROBERTA, "pad_token_id": 3}}, "text", "777616c5"),
        ("transformers", {"model_type": "clip", "vision_config": {"hidden_size": 8}}, "image", "38d40100"),
        ("timm", {"architecture": "test_vit", "global_pool": ""}, "image", "3fdd6dc7"),
    ],
)
def test_settings_have_the_hashes_of_released_files(host, config, tower, known):
    """Files state ids made of these: whoever changes what counts raises `spaces.space.FORMAT`, and these."""
    assert (FORMAT, digest_of(architecture(host, config, tower))[:8]) == (1, known)
