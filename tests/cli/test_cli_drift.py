"""`clipq drift`: from two commands to a table, a page, JSON and an aligned model."""

from __future__ import annotations

import json

import pytest
from cli_helpers import CONFIG, error_of
from page_reader import Page
from PIL import Image

from clipq.cli import main
from clipq.errors import OutputError
from clipq.files.header import read_header
from clipq.matrices import read_embeddings, save_embeddings


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of open_clip, 48 pictures, texts, and two indexes: of the model in fp32, and of it turned around."""
    import numpy as np
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("drift")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(120):
        coarse = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        coarse.resize((40, 36), 3).save(folder / "photos" / f"{i:02d}.png")
    (folder / "model").mkdir()
    torch.manual_seed(0)
    own = open_clip.CLIP(**CONFIG["model_cfg"])
    save_file(own.state_dict(), folder / "model" / "open_clip_model.safetensors")
    (folder / "model" / "open_clip_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "texts.txt").write_text("a cat\na dog\nthe sea\n", encoding="utf-8")
    assert main(["embed", f"{folder}/model", f"{folder}/photos", "--precision", "fp32", "-o", f"{folder}/old.npy"]) == 0
    found = read_embeddings(folder / "old.npy")
    turn = torch.linalg.qr(torch.randn(16, 16)).Q
    turned = type(found)(found.names, found.matrix @ turn, {}, {"width": 16})
    save_embeddings(turned, folder / "turned.parquet")
    return folder


def drift(folder, old, *arguments):
    return main(
        ["drift", f"{folder}/{old}", "--model", f"{folder}/model", "--data", f"{folder}/photos", *map(str, arguments)]
    )


def test_the_same_model_is_known_at_once(folders, capsys):
    assert drift(folders, "old.npy", "--precision", "fp32", "--sample", 40) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("keep the index: it says that it is of the very same space as the model\n")
    assert "says that it is of this very space" in shown.err
    assert drift(folders, "old.npy", "--sample", 40) == 0
    assert "old.npy says that it is of another space: weights" in capsys.readouterr().err
    assert "whole index: old vectors" in shown.out


def test_numbers_as_json(folders, capsys):
    assert drift(folders, "old.npy", "--sample", 40, "--texts", folders / "texts.txt", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["old"]["rows"] == 120 and found["data"]["sample"] == 40 and found["data"]["texts"] == 3
    assert found["verdict"]["answer"] in ("keep", "re-embed")
    assert {"queries", "index", "scope", "of", "aligned"} == set(found["searches"][0]["search"])
    value, low, high = found["searches"][0]["overlap"]["10"]
    assert 0.8 < low <= value <= high <= 1


def test_a_page_and_an_aligned_model(folders, tmp_path, capsys):
    page, model = tmp_path / "report.html", tmp_path / "aligned.safetensors"
    assert drift(folders, "turned.parquet", "-o", page, "--save-aligned", model, "--texts", folders / "texts.txt") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(("align the model: ", "embed the index again: "))
    assert "by 80 pairs that are not compared" in shown
    assert read_header(model).config["source"]["alignment"]["pairs"] == 80
    found = Page(page)
    assert not found.loaded(), "the page needs nothing else"
    assert shown.splitlines()[0][1:] in found.source.replace("&#x27;", "'")
    assert found.texts("h2")[0] == "What new queries find"
    assert "new pictures, mapped" in found.source and "<svg" in found.source
    assert main(["info", str(model)]) == 0


def test_what_is_refused_before_the_work(folders, tmp_path, capsys):
    assert drift(folders, "old.npy", "-o", tmp_path / "report.txt") == 1
    assert "give FILE.html for a page, or FILE.json" in error_of(capsys)
    (tmp_path / "there.html").write_text("", encoding="utf-8")
    assert drift(folders, "old.npy", "-o", tmp_path / "there.html") == 1
    assert "overwrite it with --force" in error_of(capsys)
    assert drift(folders, "none.npy") == 1
    assert "does not exist" in error_of(capsys)
    assert drift(folders, "old.npy", "--save-aligned", tmp_path / "model.bin") == 1
    assert "no ending of a model file" in error_of(capsys)
    with pytest.raises(SystemExit):
        drift(folders, "old.npy", "--align", "rotate")


def test_all_numbers_in_a_file(folders, tmp_path, capsys):
    assert drift(folders, "old.npy", "--sample", 30, "-o", tmp_path / "report.json") == 0
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["verdict"]["sentence"] == capsys.readouterr().out.splitlines()[0]
    assert found["verdict"]["thresholds"]["keep_at"] == 0.95


def test_a_tower_that_can_hold_no_map_is_refused_before_the_work(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("clipq.alignment.places._open_clip_image", lambda _: "it ends in a norm")
    monkeypatch.setattr("clipq.drifting.measuring.drift", lambda *_, **__: pytest.fail("the work began"))
    assert drift(folders, "turned.parquet", "--save-aligned", tmp_path / "model.safetensors") == 1
    assert "no map can be folded into the image tower of this CLIP: it ends in a norm" in error_of(capsys)


def test_the_verdict_is_printed_whatever_becomes_of_the_model(folders, tmp_path, capsys, monkeypatch):
    """Here no map is better than none, which is said as well."""

    def full(*_):
        raise OutputError("the disk is full")

    monkeypatch.setattr("clipq.files.saving.save", full)
    path = tmp_path / "model.safetensors"
    assert drift(folders, "old.npy", "--precision", "fp32", "--save-aligned", path) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("keep the index: ")
    assert "\n120 of 120 rows are of the 120 images, by name\n" in shown.out
    assert f"no map is better than none, so {path} is the model as it was" in shown.err
