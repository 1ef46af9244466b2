"""`Embedder`: batches of columns of any kind in, the same batches with embeddings out, and no row that raises."""

from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from checkpoint_helpers import TWO_TOWERS, model, tokenizer_spec
from PIL import Image

import clipq
from clipq.embedding import Embedder, embedder
from clipq.errors import CheckpointError, DataError, SchemeError, UnknownNameError
from clipq.resources import resource
from clipq.vectors import dequantize, ranges_of

TINY = "clipq-tiny"
TINY_FILE = resource("zoo", TINY, f"{TINY}-int8.safetensors")


def picture(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, 3)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(i, (40 + i, 60 - i)) for i in range(9)]


@pytest.fixture(scope="module")
def expected(pictures) -> np.ndarray:
    return clipq.runtime.load(TINY, towers="image").encode_image(pictures, normalize=True)


@pytest.fixture(scope="module")
def own():
    return model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing={"kind": "open_clip", "size": 32})


def test_every_way_of_giving_a_picture_in_every_kind_of_batch(pictures, expected, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    ways = [
        str(tmp_path / "a.png"),
        png(pictures[1]),
        np.asarray(pictures[2]),
        pictures[3],
        bytearray(png(pictures[4])),
    ]
    ways += [{"bytes": png(pictures[5]), "path": "x.jpg"}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    embed = Embedder(TINY, threads=1, batch_size=4)
    found = embed({"image": ways, "id": list(range(7))})
    assert found["embedding"].dtype == np.float32 and list(found["error"]) == [None] * 7
    np.testing.assert_array_equal(found["embedding"], expected[[0, 1, 2, 3, 4, 5, 0]])
    assert found["id"] == list(range(7)) and set(found["space_id"]) == {clipq.space_of(TINY_FILE, "image").id}
    table = embed(pyarrow.table({"image": [png(one) for one in pictures], "id": range(9)}))
    assert table.column_names == ["image", "id", "embedding", "error", "space_id"]
    np.testing.assert_array_equal(np.stack(table["embedding"].to_pylist()).astype(np.float32), expected)
    frame = embed(pandas.DataFrame({"image": [png(one) for one in pictures]}, index=range(5, 14)))
    np.testing.assert_array_equal(np.stack(frame["embedding"]), expected)
    assert list(frame.index) == list(range(5, 14)) and frame["error"].isna().all()


def test_a_row_has_the_same_bits_in_any_batch_with_any_threads(pictures, expected):
    for size, threads, rows in ((1, 1, 9), (4, 2, 5), (32, 3, 1)):
        found = Embedder(TINY, threads=threads, batch_size=size)({"image": pictures[-rows:]})["embedding"]
        np.testing.assert_array_equal(found, expected[-rows:])


BAD = [b"junk", None, 5, "/no/such/file.png", b"", np.zeros((3, 3)), {"bytes": None, "path": None}, float("nan")]


def test_bad_rows_are_told_and_never_raised(pictures, expected):
    given = [png(pictures[0]), *BAD, png(pictures[1]), png(pictures[2])[:200]]
    embed = Embedder(TINY, threads=2)
    found = embed({"image": given})
    bad = [error is not None for error in found["error"]]
    assert bad == [False] + [True] * len(BAD) + [False, True] and all(map(str.strip, found["error"][np.array(bad)]))
    np.testing.assert_array_equal(found["embedding"][~np.array(bad)], expected[:2])
    assert np.isnan(found["embedding"][np.array(bad)]).all()
    table = embed(pyarrow.table({"image": [png(pictures[0]), b"junk", None]}))
    assert table["embedding"].null_count == 2 and table["error"].null_count == 1
    only = embed({"image": [b"junk"]})
    assert only["embedding"].shape == (1, expected.shape[1]) and embed({"image": []})["embedding"].shape == (0, 192)


@pytest.mark.parametrize(("repeat", "ahead"), [(lambda one: one, 0), (png, 2), (lambda one: None, 2)])
def test_only_a_picture_of_pillow_given_twice_is_not_read_ahead(pictures, monkeypatch, repeat, ahead):
    seen, batches, one = [], embedder.picture_batches, repeat(pictures[0])
    monkeypatch.setattr(embedder, "picture_batches", lambda *args: (seen.append(args[-1]), batches(*args))[1])
    Embedder(TINY, threads=2)({"image": [one, pictures[1], one]})
    assert seen == [ahead]


def test_texts(own):
    embed = Embedder(own, batch_size=2)
    texts = ["a dog", "", None, "two cats", 7, "\ud800", "a dog"]
    found = embed({"text": texts})
    assert [error is None for error in found["error"]] == [True, False, False, True, False, False, True]
    good = own.encode_text(["a dog", "two cats"], normalize=True).numpy()
    np.testing.assert_allclose(found["embedding"][[0, 3]], good, atol=1e-6)
    assert found["space_id"][0] == own.space("text").id
    not_unit = Embedder(own, normalize=False)({"text": ["a dog"]})
    assert not_unit["space_id"][0] == own.space("text", normalized=False).id


def test_which_column(own, pictures):
    both = {"image": pictures[:1], "text": ["a"]}
    with pytest.raises(DataError, match="which of them"):
        Embedder(own)(both)
    assert Embedder(own, tower="text")(both)["space_id"][0] == own.space("text").id
    found = Embedder(own, tower="image", column="photo")({"photo": pictures[:1], "text": [""]})
    torch.testing.assert_close(torch.from_numpy(found["embedding"]), own.encode_image(pictures[:1], normalize=True))
    for wrong in ({"photo": [1]}, {}):
        with pytest.raises(DataError, match="which of them"):
            Embedder(own)(wrong)
    with pytest.raises(DataError, match="no batch"):
        Embedder(own)([pictures[0]])
    with pytest.raises(DataError, match="tower="):
        Embedder(own, tower="audio")
    with pytest.raises(UnknownNameError, match="float32"):
        Embedder(own, dtype="float31")


@pytest.mark.parametrize("name", ["batch_size", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_sizes_that_are_none_are_refused_before_any_work(name, value):
    with pytest.raises(SchemeError, match=f"{name}={value!r}"):
        Embedder(TINY, **{name: value})


@pytest.mark.parametrize("dtype", ["float16", "int8", "int8-per-dimension", "ubinary"])
def test_codes(own, pictures, dtype):
    floats = torch.from_numpy(Embedder(own)({"image": pictures})["embedding"])
    about = {"fingerprint": own.fingerprint(), "tower": "image", "normalized": True}
    ranges = ranges_of(torch.cat([floats] * 20), about, "a test") if dtype != "float16" else None
    found = Embedder(own, dtype=dtype, ranges=ranges)({"image": [*pictures, b"junk"]})
    codes = torch.from_numpy(found["embedding"])
    back = dequantize(codes[:-1], dtype, ranges)
    assert torch.cosine_similarity(back, floats).min() > (0.5 if dtype == "ubinary" else 0.99)
    assert found["error"][-1] and (codes[-1].isnan().all() if dtype == "float16" else (codes[-1] == 0).all())


def test_it_pickles_by_name_and_not_with_a_model_in_memory(own, pictures, expected):
    embed = Embedder(TINY, threads=1)
    content = pickle.dumps(embed)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content)({"image": pictures})["embedding"], expected)
    with pytest.raises(SchemeError, match="save it"):
        pickle.dumps(Embedder(own))


def test_a_file_of_another_precision_is_loaded_whole(pictures, tmp_path):
    file = clipq.save(clipq.load(TINY, "fp32"), tmp_path / "m.safetensors")
    embed = Embedder(file, precision="fp32", threads=1)
    assert embed.described("image") == {
        "encoder": "clipq.load",
        "vectors_depend_on": "row and batch",
        "batch_size": 32,
    }
    found = torch.from_numpy(embed({"image": pictures})["embedding"])
    torch.testing.assert_close(found, clipq.load(file, "fp32").encode_image(pictures, normalize=True))
    assert Embedder(TINY).described("image")["encoder"] == "clipq.runtime"


def test_a_file_that_is_replaced_is_another_model(pictures, expected, tmp_path):
    path, other = tmp_path / "m.safetensors", resource("zoo", TINY, f"{TINY}-fp16.safetensors")
    shutil.copy(TINY_FILE, path)
    old = Embedder(path, threads=1)
    np.testing.assert_array_equal(old({"image": pictures})["embedding"], expected)
    shutil.copy(other, tmp_path / "new")
    (tmp_path / "new").replace(path)
    np.testing.assert_array_equal(old({"image": pictures})["embedding"], expected)  # to its end
    with pytest.raises(CheckpointError, match=r"m\.safetensors was changed"):
        _ = old.whole
    for new in (Embedder(path, threads=1), pickle.loads(pickle.dumps(old))):
        found = new({"image": pictures})
        assert set(found["space_id"]) == {new.whole.space("image").id} == {Embedder(other).space_id("image")}
        assert not np.array_equal(found["embedding"], expected)


def test_a_worker_imports_no_library_of_models():
    code = (
        "import sys, numpy as np; from clipq.embedding import Embedder\n"
        f"Embedder({TINY!r}, threads=1)({{'image': [np.zeros((9, 9, 3), np.uint8)]}})\n"
        "print(sorted({'open_clip', 'transformers', 'timm', 'torchvision', 'datasets'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_recipe_for_spark_gives_what_its_schema_says(pictures, expected):
    """docs/engines.md: what Spark calls, with an iterator of pandas frames, and writes as rows of these columns."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    block = page.split("### Spark")[1].split("```python\n")[1].split("```")[0]
    recipe, schema = block.split("schema = ")[0], block.split('schema = "')[1].split('"')[0]
    names: dict = {}
    exec(recipe.replace("model.safetensors", TINY), names)
    frames = [pandas.DataFrame({"id": [str(i)], "image": [png(one)]}) for i, one in enumerate(pictures[:2])]
    found = list(names["vectors"](iter([*frames, pandas.DataFrame({"id": ["x"], "image": [b"junk"]})])))
    assert [f"{column.split()[0]}" for column in schema.split(", ")] == list(found[0].columns)
    rows = pandas.concat(found)
    np.testing.assert_array_equal(np.stack(rows["embedding"][:2]), expected[:2])
    assert rows["embedding"].iloc[2] is None and rows["error"].iloc[2] and rows["error"].iloc[0] is None
    types = pyarrow.Table.from_pandas(rows).schema
    assert types.field("embedding").type == pyarrow.list_(pyarrow.float32()) and len(types.names) >= 4
