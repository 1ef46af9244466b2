"""Training data in every form is the same data; views of it are small changes; who sees what depends on no process."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

import clipq
from clipq.errors import DataError, UnknownNameError
from clipq.methods.defaults import default_pictures
from clipq.training.batches import Batches, Split
from clipq.training.sources import MOST_WORDS, Source, sources_for
from clipq.training.views import view_of_picture, view_of_pixels
from clipq.work.processes import Processes


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load("clipq-tiny", "fp32")


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")
    return tmp_path


def whole(source: Source) -> torch.Tensor:
    return torch.cat(list(source.batches(range(source.count))))


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pictures_in_every_form_are_the_same(model, folder):
    paths = sorted(folder.glob("*.png"))
    expected = torch.stack([model.preprocess(Image.open(path).convert("RGB")) for path in paths])
    forms = [folder, str(folder), paths, [path.read_bytes() for path in paths], [Image.open(path) for path in paths]]
    forms += [expected, list(expected), iter([expected[:2], (expected[2:], torch.zeros(3))]), {"image": folder}]
    for form in forms:
        found = sources_for(model, ("image",), form)["image"]
        assert found.count == 5 and torch.equal(whole(found), expected)
        assert not torch.equal(found.read(0, chance()), expected[0])


def test_the_digest_is_of_the_contents(model, folder):
    def digest(form) -> str:
        return sources_for(model, ("image",), form)["image"].digest

    contents = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    assert digest(contents) == digest(list(contents)) != digest(contents[::-1])
    assert digest(folder) == digest(str(folder)) != digest(sorted(folder.glob("*.png"))[1:])
    assert digest(torch.zeros(2, 3, 224, 224)) != digest(torch.ones(2, 3, 224, 224))


def test_texts_in_every_form_are_the_same(model, tmp_path):
    texts = ["a dog", "a red bus", "two cats on a sofa"]
    (tmp_path / "texts.txt").write_text("\n".join([*texts, "", ""]), "utf-8")
    expected = model.tokenizer(texts)
    for form in (texts, tuple(texts), tmp_path / "texts.txt", str(tmp_path / "texts.txt"), expected, expected.int()):
        assert torch.equal(whole(sources_for(model, ("text",), form)["text"]), expected)
    words = sources_for(model, ("image", "text"), {"image": torch.zeros(2, 3, 224, 224)})["text"]
    assert 200 < words.count <= MOST_WORDS


def test_captions_beside_pictures_are_their_texts(model, folder):
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"picture\nnumber {number}\n")
    found = sources_for(model, ("image", "text"), folder)
    assert torch.equal(whole(found["text"]), model.tokenizer([f"picture number {number}" for number in range(5)]))
    (folder / "3.txt").unlink()
    assert sources_for(model, ("image", "text"), folder)["text"].count > 5


def test_a_picture_that_cannot_be_read_is_named(model, folder):
    (folder / "2.png").write_bytes(b"no picture")
    source = sources_for(model, ("image",), folder)["image"]
    with pytest.raises(DataError, match=r"2\.png"):
        whole(source)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"image": []}, DataError, "at least one"),
        ({"text": []}, DataError, "at least one"),
        ({"image": iter([])}, DataError, "at least one"),
        ({"image": iter(["x"])}, DataError, "tensors"),
        ({"images": []}, UnknownNameError, "image, text"),
        ({"image": torch.zeros(2, 3, 8, 8)}, DataError, "224"),
        ({"text": torch.full((2, 77), -1)}, DataError, "token"),
    ],
)
def test_what_is_no_data_is_named(model, data, error, words):
    with pytest.raises(error, match=words):
        sources_for(model, ("image", "text"), data)


def test_views_are_of_the_picture_and_differ(model):
    picture = default_pictures()[0]
    views = [model.preprocess(view_of_picture(picture, chance(seed))) for seed in range(6)]
    assert len({view.numpy().tobytes() for view in views}) == 6
    same = model.preprocess(view_of_picture(picture, chance(3)))
    assert torch.equal(same, views[3])
    plain = model.preprocess(picture)
    embedded = model.encode_image(torch.stack([plain, *views]))
    other = model.encode_image(model.preprocess(default_pictures()[9])[None])
    near = cosine_similarity(embedded[:1], embedded[1:])
    assert near.mean() > cosine_similarity(embedded[:1], other).item() + 0.2
    pixels = torch.stack([view_of_pixels(plain, chance(seed)) for seed in range(6)])
    assert pixels.shape[1:] == plain.shape
    assert cosine_similarity(embedded[:1], model.encode_image(pixels)).mean() > near.mean() - 0.15


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 2)])
def test_the_smallest_pictures_have_views(size):
    for seed in range(20):
        view = view_of_picture(Image.new("RGB", size), chance(seed))
        assert 1 <= view.size[0] <= size[0] and 1 <= view.size[1] <= size[1]
        assert view_of_pixels(torch.zeros(3, *size), chance(seed)).shape == (3, *size)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100, 5000])
def test_what_is_held_out_is_not_trained_on(count):
    split = Split.of(count)
    assert split.held_out and split.training
    assert len(split.held_out) <= 64
    if count > 1:
        assert sorted({*split.held_out, *split.training}) == list(range(count))
        assert len(split.held_out) + len(split.training) == count


def numbered(count: int = 19) -> dict[str, Source]:
    """A source whose inputs say which they are."""
    read = lambda place, chance: torch.tensor([place, 0 if chance is None else int(chance.initial_seed() % 1000)])  # noqa: E731
    return {"image": Source(count, "", read), "text": Source(count, "", read)}


def batches_of(size: int, first: int, end: int, index: int = 0, count: int = 1) -> list[torch.Tensor]:
    with Batches(numbered(), size, 7, Processes(index, count)).reading(first, end) as batches:
        return [one["image"] for one in batches]


def test_steps_are_the_same_wherever_a_run_begins():
    whole_run = batches_of(4, 0, 12)
    assert all(torch.equal(a, b) for a, b in zip(whole_run[5:], batches_of(4, 5, 12), strict=True))
    seen = torch.cat(whole_run)[:, 0].tolist()
    training = Split.of(19).training
    assert sorted(seen[: len(training)]) == list(training) == sorted(seen[len(training) : 2 * len(training)])
    assert seen[: len(training)] != seen[len(training) : 2 * len(training)]


def test_two_processes_see_what_one_would():
    parts = [batches_of(3, 0, 4, index, 2) for index in (0, 1)]
    assert all(torch.equal(torch.cat(two), one) for *two, one in zip(*parts, batches_of(6, 0, 4), strict=True))


def test_pairs_stay_together():
    with Batches(numbered(), 4, 7, Processes()).reading(0, 9) as batches:
        assert all(torch.equal(one["image"][:, 0], one["text"][:, 0]) for one in batches)
