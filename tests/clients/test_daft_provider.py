"""clipq in Daft's expressions: the vectors of `clipq embed` for every dtype, nulls for what is broken, typed errors."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy
import pytest
from PIL import Image
from pyarrow import Table, array, parquet

import clipq
from clipq.embedding import Embedder, ShardedFolder
from clipq.embedding.sharded import embed_with
from clipq.engines.local import Local
from clipq.errors import DataError, SchemeError, UnknownNameError
from clipq.inputs.listing import Inputs
from clipq.matrices import Embeddings, read_embeddings
from clipq.resources import resource
from clipq.vectors import Ranges, default_ranges

daft = pytest.importorskip("daft")
from daft.functions import embed_image, embed_text  # noqa: E402

from clipq.engines.daft import ClipqProvider, embedded  # noqa: E402

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

COUNT, BROKEN, NULL = 300, 17, 230
MODEL = "clipq-tiny"


@pytest.fixture(scope="module", autouse=True)
def _native():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("DAFT_RUNNER", "native")  # `set_runner_native` is refused the second time in a process
        yield


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    held = parquet.read_table(resource("eval", "data", "drawings.parquet"), columns=["image"])["image"][:COUNT]
    return [row["bytes"] for row in held.to_pylist()]


@pytest.fixture(scope="module")
def pictures(files, tmp_path_factory) -> Path:
    """A parquet file of 300 drawings; one is broken, one null."""
    odd = {BROKEN: b"no picture", NULL: None}
    held = [odd.get(row, file) for row, file in enumerate(files)]
    path = tmp_path_factory.mktemp("pictures") / "pictures.parquet"
    columns = [array(range(COUNT)), array(held, "large_binary")]
    parquet.write_table(Table.from_arrays(columns, names=["row", "image"]), path, row_group_size=70)
    return path


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load(MODEL)


@pytest.fixture(scope="module")
def floats(pictures, tmp_path_factory) -> Embeddings:
    """The same pictures by `clipq embed`, without any engine."""
    into = ShardedFolder(tmp_path_factory.mktemp("local") / "x", 100, "parquet")
    embed_with(Local(threads=1), Embedder(MODEL), Inputs.of(pictures, names="row"), into, progress=False)
    return read_embeddings(into.path)


@pytest.fixture(scope="module")
def ranges(model) -> Ranges:
    return default_ranges(model, "image")


GOOD = [row for row in range(COUNT) if row not in (BROKEN, NULL)]


def column(table, expression, name: str = "embedding") -> list:
    """Its values by the number of the row."""
    found = table.with_column(name, expression).select("row", name).to_pydict()
    assert found["row"] == sorted(found["row"])
    return found[name]


@pytest.mark.parametrize("dtype", ["float32", "int8-per-dimension", "ubinary"])  # of nothing, of ranges, of means
def test_vectors_are_those_of_the_local_run(dtype, pictures, floats, ranges):
    """Bits by the model's default ranges, which nobody has to name."""
    given = ranges if dtype.startswith("int8") else None
    provider = ClipqProvider(Embedder(MODEL, dtype=dtype, threads=1, ranges=given))
    table = daft.read_parquet(str(pictures))
    expression = embed_image(table["image"], provider=provider)
    found = column(table, expression)
    wanted = floats.as_dtype(dtype, ranges).matrix.numpy()
    assert floats.names == tuple(map(str, GOOD)) and found[BROKEN] is None and found[NULL] is None
    assert numpy.array_equal(numpy.array([found[row] for row in GOOD], wanted.dtype), wanted)
    kind = table.select(expression.alias("e")).schema()["e"].dtype
    assert str(kind).lower().replace(" ", "") == f"embedding[{wanted.dtype};{wanted.shape[1]}]"


def test_texts(model):
    texts = ["a cat", "a dog", "a cat", "ünïcode 猫"]
    table = daft.from_pydict({"row": list(range(6)), "text": [*texts, None, ""]})
    found = column(table, embed_text(table["text"], provider=ClipqProvider(MODEL), dimensions=192))
    wanted = Embedder(MODEL)({"text": texts})["embedding"]
    assert numpy.array_equal(numpy.array(found[:4], numpy.float32), wanted)
    numpy.testing.assert_allclose(wanted, model.encode_text(texts, normalize=True).numpy(), atol=1e-5)
    assert found[4] is None and found[5] is None  # an empty text has no embedding, here as in `clipq embed`


def test_pictures_that_daft_decoded_are_taken_and_near(pictures, floats):
    table = daft.read_parquet(str(pictures)).where(daft.col("row") < 12)
    decoded = table["image"].decode_image(on_error="null", mode="RGB")
    found = column(table, embed_image(decoded, provider=ClipqProvider(MODEL)))
    cosines = (numpy.array(found) * floats.matrix[:12].numpy()).sum(axis=1)
    assert cosines.min() > 0.98


def test_bytes_are_turned_as_their_orientation_says(drawings):
    exif, turned = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    drawings[0].rotate(90, expand=True).save(turned, "PNG", exif=exif)
    upright = io.BytesIO()
    drawings[0].save(upright, "PNG")
    table = daft.from_pydict({"row": [0, 1], "image": [turned.getvalue(), upright.getvalue()]})
    found = column(table, embed_image(table["image"], provider=ClipqProvider(MODEL)))
    assert numpy.array_equal(found[0], found[1])


def test_a_provider_of_the_session_and_another_model(model, files, tmp_path):
    clipq.save(model, tmp_path / "other.safetensors")
    daft.attach_provider(ClipqProvider("ViT-B-32"), "mine")  # which is never loaded
    try:
        table = daft.from_pydict({"row": [0, 1], "image": files[:2]})
        path = str(tmp_path / "other.safetensors")
        found = column(table, embed_image(table["image"], provider="mine", model=path, batch_size=1, concurrency=1))
    finally:
        daft.detach_provider("mine")
    wanted = Embedder(path)({"image": files[:2]})["embedding"]
    assert numpy.array_equal(numpy.array(found, numpy.float32), wanted)


def test_errors_and_the_space_beside_each_row(pictures, floats, tmp_path):
    embedder = Embedder(MODEL)
    table = daft.read_parquet(str(pictures))
    table = table.with_column("found", embedded(table["image"], embedder)).select("row", daft.col("found").unnest())
    table.where(table["error"].is_null()).write_parquet(str(tmp_path / "good"))
    good = parquet.read_table(tmp_path / "good").sort_by("row")
    rows = good["row"].to_pylist()
    assert rows == GOOD
    assert numpy.array_equal(numpy.array(good["embedding"].to_pylist(), numpy.float32), floats.matrix.numpy())
    assert set(good["space_id"].to_pylist()) == {embedder.space_id("image")}
    bad = table.where(table["error"].not_null()).to_pydict()
    assert bad["row"] == [BROKEN, NULL] and bad["embedding"] == [None, None]
    assert "UnidentifiedImageError" in bad["error"][0] and bad["error"][1]


def test_texts_with_errors_and_codes_beside_floats():
    """Two expressions of one query: what Daft keeps on a class must not get from one to the other."""
    table = daft.from_pydict({"row": [0, 1], "text": ["a cat", ""]})
    bits = embedded(table["text"], Embedder(MODEL, dtype="ubinary"), "text", concurrency=1)
    floats = embedded(table["text"], Embedder(MODEL), "text", batch_size=1)
    found = table.select(
        bits.alias("bits"),
        floats.alias("floats"),
        embed_text(table["text"], provider=ClipqProvider(MODEL)).alias("plain"),
    )
    (cat, nothing) = found.to_pylist()
    assert len(cat["bits"]["embedding"]) == 24 and len(cat["floats"]["embedding"]) == 192
    assert numpy.array_equal(cat["plain"], cat["floats"]["embedding"]) and nothing["plain"] is None
    assert cat["bits"]["error"] is None and cat["bits"]["space_id"] == cat["floats"]["space_id"]
    assert all(nothing[name]["embedding"] is None and nothing[name]["error"] for name in ("bits", "floats"))


@pytest.mark.parametrize("on_error", ["log", "raise", "ignore"])
def test_what_a_broken_row_is_to_do(on_error, files, caplog):
    table = daft.from_pydict({"row": [0, 1], "image": [files[0], b"no picture"]})
    expression = embed_image(table["image"], provider=ClipqProvider(MODEL), on_error=on_error)
    with caplog.at_level(logging.WARNING, "clipq"):
        if on_error == "raise":
            with pytest.raises(Exception, match="a row cannot be embedded"):
                column(table, expression)
        else:
            assert column(table, expression)[1] is None
    said = [record.message for record in caplog.records if record.name == "clipq"]
    assert len(said) == (on_error == "log")


def test_what_cannot_be_is_said_when_the_expression_is_made(model, ranges):
    image = daft.col("image")
    with pytest.raises(UnknownNameError, match="'batchsize'.*Did you mean 'batch_size'"):
        embed_image(image, provider=ClipqProvider(MODEL), batchsize=3)
    with pytest.raises(UnknownNameError, match="on_error 'null'"):
        embed_image(image, provider=ClipqProvider(MODEL), on_error="null")
    with pytest.raises(SchemeError, match="a model in memory"):
        embed_image(image, provider=ClipqProvider(Embedder(model)))
    with pytest.raises(DataError, match="192 dimensions, not 64"):
        embed_text(image, provider=ClipqProvider(MODEL), dimensions=64)
    with pytest.raises(DataError, match="each row's error"):
        embedded(image, Embedder(MODEL), on_error="log")
    with pytest.raises(DataError, match="tower"):  # the ranges of pictures are none for texts
        embed_text(image, provider=ClipqProvider(Embedder(MODEL, dtype="int8", ranges=ranges)))
