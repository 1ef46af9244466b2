"""`drift` from pictures to a verdict: the same model, a turned space, another model; with texts, and of texts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow
import pytest
import torch
import torch.nn.functional as F
from checkpoint_helpers import OPEN_CLIP, model, tokenizer_spec
from PIL import Image
from pyarrow import parquet

import clipq
from clipq.alignment import fold
from clipq.embedding import Inputs, embed
from clipq.errors import ClipqError, DataError
from clipq.matrices import Embeddings, save_embeddings
from clipq.vectors import ranges_of

PREPROCESSING = {"kind": "open_clip", "size": 32}
COUNT, SAMPLE = 240, 70
WORDS = ("a", "photo", "of", "cat", "dog", "##s", "!")


@pytest.fixture(scope="module")
def own():
    return model(OPEN_CLIP, preprocessing=PREPROCESSING, tokenizer=tokenizer_spec())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(COUNT):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((36, 36), 3).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    random = np.random.default_rng(1)
    lines = {" ".join(random.choice(WORDS, 4)) for _ in range(60)}
    path.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def raw(own, photos):
    """The model's own embeddings, not normalized, with their names."""
    return embed(own, photos, normalize=False, progress=False)


def written(path, raw, matrix, **about):
    """A foreign matrix of the old model, with names."""
    found = Embeddings(raw.names, F.normalize(matrix, dim=1).contiguous(), {}, {"width": matrix.shape[1], **about})
    save_embeddings(found, path)
    return path


def turn(width):
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(3))).Q


def test_the_same_model_keeps_its_index(own, photos, raw, tmp_path):
    old = written(tmp_path / "old.safetensors", raw, raw.matrix, **raw.about)
    found = clipq.drift(old, own, photos, sample=SAMPLE)
    assert found.verdict.answer == "keep" and found.same_space
    assert found.data["sample"] == SAMPLE and found.data["matched_by"] == "name"
    assert found.cosines["before"]["min"] == (pytest.approx(1, abs=1e-5), None, None)
    assert (found.data["matched"], found.few_matched) == (COUNT, False)
    for cell in found.cells:
        assert cell.overlap[10] == cell.recall[1] == (1, 1, 1), cell
        assert cell.rank_overlap[0] == pytest.approx(1, abs=1e-4)
    whole = found.cell("new", "old")
    assert (whole.rows, whole.queries, whole.itself) == (COUNT, SAMPLE, (1, 1, 1))
    assert found.cell("new", "mixed", "sample").favour == (0, 0, 0)
    assert json.loads(json.dumps(found.to_dict()))["verdict"]["answer"] == "keep"


@pytest.fixture(scope="module")
def turned(own, photos, raw, texts, tmp_path_factory):
    """The index of a model whose space is the own one, turned; and what is found with and without a map."""
    folder = tmp_path_factory.mktemp("turned")
    old = written(folder / "old.npy", raw, raw.matrix @ turn(raw.matrix.shape[1]).T)
    return old, clipq.drift(old, own, photos, sample=SAMPLE, texts=texts, align=True)


def test_a_turned_space_is_aligned(turned):
    _, found = turned
    assert found.verdict.answer == "align" and not found.same_space
    before, after = (found.cell("new", "old", aligned=aligned) for aligned in (False, True))
    assert before.overlap[10][0] < 0.5 and after.overlap[10][1] > 0.95
    assert found.cosines["before"]["p50"][0] < 0.5 < 0.999 < found.cosines["after"]["min"][0]
    assert found.alignment["pairs"] == 2 * SAMPLE
    assert found.cell("new", "mixed", "sample").favour[0] > 0.2, "rows of one's own space come first"
    assert abs(found.cell("new", "mixed", "sample", aligned=True).favour[0]) < 0.02


def test_texts_find_the_old_pictures_with_the_map(turned):
    _, found = turned
    before, after = (found.cell("new", "old", "sample", "text", aligned) for aligned in (False, True))
    assert before.overlap[10][0] < 0.5 and after.overlap[10][0] > 0.95
    own = found.cell("new", "new", "sample", "text", True)
    assert own.overlap[10][0] > 0.95, "with the map both towers still fit each other"


def test_the_folded_model_does_what_the_map_does(turned, own, photos, raw, tmp_path):
    old, found = turned
    folded = fold(own, found.map)
    clipq.save(folded, tmp_path / "aligned.safetensors")
    again = clipq.load(tmp_path / "aligned.safetensors")
    mapped, embedded = found.map(raw.matrix), embed(again, photos, normalize=False, progress=False)
    assert (embedded.matrix - mapped).norm(dim=1).max() < 1e-3 * mapped.norm(dim=1).mean()
    kept = clipq.drift(old, again, photos, sample=SAMPLE)
    assert kept.verdict.answer == "keep"
    after = found.cell("new", "old", aligned=True)
    assert kept.cell("new", "old").overlap[10][0] == pytest.approx(after.overlap[10][0], abs=0.01)


def test_align_in_one_step(turned, own, photos):
    aligned = clipq.align(own, turned[0], photos, pairs=150, method="orthogonal", progress=False)
    assert clipq.drift(turned[0], aligned, photos, sample=SAMPLE).verdict.answer == "keep"
    assert aligned.source["alignment"]["method"] == "orthogonal"


def test_another_model_is_embedded_again(own, photos, raw, tmp_path):
    old = written(tmp_path / "old.parquet", raw, torch.randn(COUNT, 40))
    found = clipq.drift(old, own, photos, sample=SAMPLE, align=True)
    assert found.verdict.answer == "re-embed"
    assert "before" not in found.cosines and "after" in found.cosines, "widths differ"
    assert all(cell.search.aligned for cell in found.cells)
    assert clipq.drift(old, own, photos, sample=SAMPLE).verdict.sentence.endswith("(--align tries a map)")


def test_pairs_that_fit_the_map_are_not_compared(own, photos, raw, tmp_path, monkeypatch):
    """Of old vectors that are noise a map can fit those that it saw, and no other: what is compared it never saw."""
    old = written(tmp_path / "old.npy", raw, torch.randn(COUNT, raw.matrix.shape[1]))
    found = clipq.drift(old, own, photos, sample=SAMPLE, align="ridge")
    assert abs(found.cosines["after"]["p50"][0]) < 0.2
    few = clipq.drift(old, own, photos, align=True)
    assert few.data["sample"] == COUNT // 3 and few.alignment["pairs"] == 2 * COUNT // 3


def test_old_texts_say_what_was_found_before(own, photos, raw, texts, tmp_path):
    old = written(tmp_path / "old.npy", raw, raw.matrix)
    inputs = Inputs.of(texts)
    embedded = own.encode_text(list(inputs.names), normalize=True)
    save_embeddings(Embeddings(inputs.names, embedded, {}, {}), tmp_path / "texts.parquet")
    found = clipq.drift(old, own, photos, sample=SAMPLE, texts=texts, old_texts=tmp_path / "texts.parquet")
    cell = found.cell("new", "old", "index", "text")
    assert cell.overlap[10] == (1, 1, 1) and cell.rows == COUNT and cell.queries == len(inputs.names)
    assert found.texts["before"]["min"][0] == pytest.approx(1, abs=1e-5)


def test_an_index_of_texts(own, texts, tmp_path):
    inputs = Inputs.of(texts)
    embedded = own.encode_text(list(inputs.names), normalize=True)
    about = {"tower": "text"}
    save_embeddings(Embeddings(inputs.names, embedded, {}, about), tmp_path / "old.safetensors")
    found = clipq.drift(tmp_path / "old.safetensors", own, texts, sample=40)
    assert found.verdict.answer == "keep" and found.cell("new", "old", of="text").overlap[1][0] == 1


def test_codes_are_compared_as_what_they_stand_for(own, photos, raw, tmp_path):
    normal = embed(own, photos, progress=False)
    ranges = ranges_of(normal.matrix, normal.about, "these")
    for dtype, least in (("float16", 0.98), ("int8", 0.9), ("ubinary", 0.0)):
        save_embeddings(normal.as_dtype(dtype, ranges), tmp_path / "old.parquet")
        found = clipq.drift(tmp_path / "old.parquet", own, photos, sample=SAMPLE)
        assert found.cell("new", "old").overlap[10][0] > least
        assert found.same_space and found.old["exact"] is (dtype == "float16") and found.verdict.answer == "keep"
        assert (dtype == "ubinary") <= ("of its codes, " in found.verdict.sentence)  # bits find few of the same rows


def test_what_cannot_be_compared(own, photos, raw, texts, tmp_path):
    old = written(tmp_path / "old.npy", raw, raw.matrix)
    with pytest.raises(DataError, match="text queries are a file of texts"):
        clipq.drift(old, own, photos, texts=photos)
    with pytest.raises(DataError, match="give the texts themselves as well"):
        clipq.drift(old, own, photos, old_texts=old)
    with pytest.raises(DataError, match="none of the 240 names"):
        clipq.drift(old, own, texts)
    with pytest.raises(DataError, match="only 5 inputs can be compared"):
        clipq.drift(old, own, photos, sample=5)
    of_texts = written(tmp_path / "texts.npy", raw, raw.matrix, tower="text")
    with pytest.raises(DataError, match="is of texts, and"):
        clipq.drift(of_texts, own, photos)


def test_a_broken_picture_is_left_out(own, raw, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in raw.names[:60]:
        (folder / name).write_bytes((photos / name).read_bytes())
    (folder / raw.names[7]).write_bytes(b"no picture")
    old = written(tmp_path / "old.npy", raw, raw.matrix)
    found = clipq.drift(old, own, folder)
    assert found.data["sample"] == 59 and list(found.data["broken"]) == [raw.names[7]]
    assert found.cell("new", "old").rows == COUNT


def nothing_is_embedded(*_, **__):
    pytest.fail("the work began")


def test_what_is_refused_before_the_work(own, photos, raw, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("clipq.drifting.measuring.paired", nothing_is_embedded)
    old = written(tmp_path / "old.npy", raw, raw.matrix)
    with pytest.raises(ClipqError, match="unknown method 'bogus'"):
        clipq.drift(old, own, photos, align="bogus")
    monkeypatch.setattr("clipq.alignment.pairs.paired", nothing_is_embedded)
    with pytest.raises(ClipqError, match="unknown method 'bogus'"):
        clipq.align(own, old, photos, method="bogus")
    lines = Inputs.of(texts).names
    for width, dtype, words in ((9, "float32", "are of width 9, and"), (raw.matrix.shape[1], "int8", "and codes")):
        found = Embeddings(lines, F.normalize(torch.randn(len(lines), width)), {}, {})
        found = found if dtype == "float32" else found.as_dtype(dtype, ranges_of(torch.randn(200, width), {}, "these"))
        save_embeddings(found, tmp_path / "texts.parquet")
        with pytest.raises(DataError, match=words):
            clipq.drift(old, own, photos, texts=texts, old_texts=tmp_path / "texts.parquet")


def test_texts_of_a_table_are_asked_by_their_text(own, photos, raw, texts, tmp_path):
    old, lines = written(tmp_path / "old.npy", raw, raw.matrix), list(Inputs.of(texts).names)
    shown = [lines[0], None, " ", *lines]
    columns = {"id": [f"row {i}" for i in range(len(shown))], "text": shown}
    parquet.write_table(pyarrow.table(columns), tmp_path / "texts.parquet")
    save_embeddings(
        Embeddings(tuple(lines), own.encode_text(lines, normalize=True), {}, {}), tmp_path / "old_texts.npy"
    )
    found = [
        clipq.drift(old, own, photos, sample=SAMPLE, texts=source, old_texts=tmp_path / "old_texts.npy")
        for source in (texts, tmp_path / "texts.parquet")
    ]
    assert found[0].cells == found[1].cells and found[1].data["texts"] == len(lines)


def test_too_few_that_can_be_read(own, raw, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(raw.names[:40]):
        (folder / name).write_bytes((photos / name).read_bytes() if i < 3 else b"no picture")
    old = written(tmp_path / "old.npy", raw, raw.matrix)
    with pytest.raises(DataError, match=r"only 3 inputs can be compared, of 40; 37 could not be read, as 003.png: "):
        clipq.drift(old, own, folder)


def test_the_own_space_with_other_pictures(own, photos, raw, tmp_path):
    """Names of other pictures: what the index says of itself is true, and nothing that is compared is."""
    old = written(tmp_path / "old.safetensors", raw, raw.matrix.flip(0), **raw.about)
    with pytest.raises(DataError, match="the names do not lead to what it was made of"):
        clipq.drift(old, own, photos, sample=SAMPLE)


def test_rows_that_stand_twice_do_not_find_themselves(own, photos, raw, tmp_path):
    matrix = F.normalize(raw.matrix, dim=1)
    noisy = F.normalize(matrix + 0.3 * matrix.std() * torch.randn(matrix.shape), dim=1)
    once = clipq.drift(written(tmp_path / "once.npy", raw, noisy), own, photos)
    twice = replace(raw, names=raw.names * 2)
    both = clipq.drift(written(tmp_path / "twice.npy", twice, torch.cat([noisy, noisy])), own, photos)
    assert (once.data["matched"], both.data["matched"]) == (COUNT, 2 * COUNT)
    assert both.cell("new", "old").recall[1][0] == once.cell("new", "old").recall[1][0] < 1


def test_codes_of_another_model_are_not_told_to_be_embedded_again(own, photos, raw, texts, tmp_path):
    """Bits of the same vectors, which do not say so: the same model, asked as ever."""
    normal = Embeddings(raw.names, F.normalize(raw.matrix, dim=1), {}, {})
    bits = normal.as_dtype("ubinary", ranges_of(normal.matrix, {}, "these"))
    save_embeddings(bits, tmp_path / "old.npy")
    found = clipq.drift(tmp_path / "old.npy", own, photos, sample=SAMPLE, align=True)
    assert found.verdict.answer == "unsure" and "at least" in found.verdict.sentence
    lines = Inputs.of(texts).names
    asked = own.encode_text(list(lines), normalize=True)
    save_embeddings(Embeddings(lines, asked, {}, {}), tmp_path / "texts.npy")
    told = clipq.drift(tmp_path / "old.npy", own, photos, sample=SAMPLE, texts=texts, old_texts=tmp_path / "texts.npy")
    assert told.verdict.answer == "keep" and "by texts alone" in told.verdict.sentence
