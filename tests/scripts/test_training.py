"""How clipq-tiny is made: each step that must change nothing changes nothing, and each that must teach teaches."""

from __future__ import annotations

import sys
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"
sys.path.insert(0, str(TRAINING))  # scripts/ is no package

import captions  # noqa: E402
import closed_form  # noqa: E402
import common_words  # noqa: E402
import deit  # noqa: E402
import image_tower  # noqa: E402
import rotation  # noqa: E402
import text_tower  # noqa: E402
import train_tiny  # noqa: E402


@pytest.fixture(scope="module")
def timm_deit():
    import timm

    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224", num_classes=0).eval()


@pytest.fixture(scope="module")
def tower(timm_deit):
    return train_tiny.deit_tower(deit.converted(timm_deit.state_dict())).visual


def pixels(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, deit.SIZE, deit.SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_converted_tower_is_timms(timm_deit, tower):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (deit.MEAN, deit.STD))
    images = (pixels() - mean) / std
    torch.testing.assert_close(tower(images), timm_deit(images), rtol=1e-4, atol=1e-5)
    tokens = image_tower.lower_tokens(tower, pixels())
    torch.testing.assert_close(image_tower.Upper(tower)(tokens), timm_deit(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_turned_values_are_the_same_function(tower):
    import copy

    turned = copy.deepcopy(tower)
    rotation.turn_values(turned.transformer.resblocks)
    first = turned.transformer.resblocks[0].attn, tower.transformer.resblocks[0].attn
    assert not torch.equal(first[0].in_proj_weight[384:], first[1].in_proj_weight[384:])
    assert torch.equal(first[0].in_proj_weight[:384], first[1].in_proj_weight[:384])
    torch.testing.assert_close(turned(pixels()), tower(pixels()), rtol=1e-4, atol=1e-5)


def made_up(concepts: int = 80, each: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of class token and mean with a mean for each concept, what they are of, and 9 directions of photos."""
    generator = torch.Generator().manual_seed(2)
    of = torch.arange(concepts).repeat_interleave(each)
    features = torch.randn(concepts, 128, generator=generator)[of] + torch.randn(len(of), 128, generator=generator)
    return features, of, torch.nn.functional.normalize(torch.randn(9, 64, generator=generator), dim=-1)


def test_the_closed_form_tells_the_concepts_apart():
    features, of, rows = made_up()
    start = closed_form.start(features, of, rows, torch.nn.LayerNorm(64), 1.0)
    assert start.projection.shape == (64, 64) and start.concepts.shape == (80, 64) and start.classes.shape == (9, 64)
    torch.testing.assert_close(start.concepts.norm(dim=1), torch.ones(80))
    token, mean = (features - features.mean(0)).split(64, dim=1)
    added = token + mean @ start.block.attn.out_proj.weight.T  # what the block does, but for the norms around it
    scores = torch.nn.functional.normalize(added @ start.projection, dim=-1) @ start.concepts.T
    alone = torch.nn.functional.normalize(token @ start.projection, dim=-1) @ start.concepts.T
    right, right_alone = ((found.argmax(1) == of).float().mean() for found in (scores, alone))
    assert right > 0.95 and right > right_alone


@torch.no_grad()
def test_the_added_block_adds_the_mean_alike_to_all_tokens():
    features, of, rows = made_up()
    norm = torch.nn.LayerNorm(64)
    block = closed_form.start(features, of, rows, norm, 1.0).block.eval()
    block.attn.in_proj_weight[:128] = 0  # they start near nothing, so that they can learn
    tokens = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(3))
    change = block(tokens) - tokens
    torch.testing.assert_close(change, change[:, :1].expand_as(change))
    wanted = norm(tokens).mean(1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    torch.testing.assert_close(change[:, 0], wanted, rtol=1e-4, atol=1e-5)


def test_the_fit_learns_and_comes_back_under_the_towers_names(tower):
    torch.manual_seed(0)
    tower = train_tiny.deit_tower(tower.state_dict() | {"proj": torch.eye(192)}).visual
    features = torch.randn(64, 384)
    rows = torch.nn.functional.normalize(torch.randn(1000, 192), dim=-1)
    of = torch.arange(4).repeat(16)
    start = closed_form.start(features, of, rows, tower.ln_post, 1.0)
    tower.transformer.resblocks.append(start.block)
    fit = image_tower.Fit(tower, start)
    teacher = image_tower.Teacher(fit.upper, tower.ln_post, rows)
    hidden, concepts = torch.randn(4, 9, 192), torch.arange(4)
    before = image_tower.loss_of(fit, teacher, hidden, concepts).item()
    optimizer = image_tower.optimizer_of(fit, 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        image_tower.loss_of(fit, teacher, hidden, concepts).backward()
        optimizer.step()
    assert image_tower.loss_of(fit, teacher, hidden, concepts).item() < before
    state = tower.state_dict()
    found = image_tower.upper_state(fit)
    assert found.keys() <= state.keys() and {found[name].shape == state[name].shape for name in found} == {True}
    assert "transformer.resblocks.8.ln_1.weight" in found and "transformer.resblocks.7.ln_1.weight" not in found


def test_dropped_patches_leave_the_class_token():
    hidden = torch.arange(2 * 9 * 3.0).view(2, 9, 3)
    kept = image_tower.drop_patches(hidden, 0.5)
    assert kept.shape == (2, 5, 3) and torch.equal(kept[:, 0], hidden[:, 0])
    assert all((row == hidden[i]).all(-1).any() for i in range(2) for row in kept[i])


def test_a_word_of_both_worlds_means_both():
    found = captions.groups(["lion", "grinning-face"], [["lion"], ["grinning-face", "smile"]])
    means = {text: group.anchors for group in found for text in group.texts}
    lion = 2 + captions.IMAGENET_CLASSNAMES.index("lion")
    assert means["an emoji of lion"] == (0,) and means["a photo of a lion."] == (lion,) == means["a photo of a lion"]
    assert means["lion"] == (lion, 0)
    assert means["a drawing of smile"] == (1,) == means["smile"]
    assert len(means["a photo of a dog"]) == 118


def test_everyday_words_are_no_class_and_their_classes_exist():
    names = {name.lower() for name in captions.IMAGENET_CLASSNAMES}
    assert not names & common_words.GROUPS.keys()
    assert all(0 <= index < 1000 for rows in common_words.GROUPS.values() for index in rows)


def test_texts_learn_their_anchors(tmp_path):
    torch.manual_seed(0)
    found = captions.groups(["lion", "smile"], [["lion"], ["smile"]])
    size = text_tower.train_tokenizer((text for group in found for text in group.texts), 400, tmp_path)
    config = train_tiny.write_config(tmp_path, size)
    taught = captions.Captions(found, open_clip.get_tokenizer(f"local-dir:{tmp_path}"), 2)
    vision = CLIPVisionCfg(image_size=16, patch_size=16, width=64, layers=1, head_width=64)
    model = CLIP(192, vision, CLIPTextCfg(**config["text_cfg"] | {"layers": 1}))
    anchors = torch.nn.functional.normalize(torch.randn(1002, 192), dim=-1)

    def cosine() -> float:
        with torch.no_grad():
            ids, rows = taught.draw(64, text_tower.random.Random(5))
            return (text_tower.encode_text(model, ids) * taught.goals(anchors)[rows]).sum(1).mean().item()

    before = cosine()
    text_tower.fit(model, taught, anchors, steps=6, batch=48)
    assert cosine() > before + 0.05
