"""The header of a file: read without torch, and nothing in it believed before it is checked."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_helpers import IMAGE_ONLY, forge, join, model, split

from clipq.errors import CheckpointError, ClipqError
from clipq.files import header
from clipq.files.checkpoints import write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("header") / "vit.safetensors"
    write(model(IMAGE_ONLY), path, {"top1": 0.5, "task": "drawings"})
    return path


def check(path: Path) -> header.Header:
    """All that can be checked without building the model."""
    found = header.read_header(path)
    header.check_data(found)
    return found


def refused(path: Path, *words: str) -> None:
    before = path.read_bytes() if path.is_file() else None
    beside = sorted(path.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        check(path)
    assert isinstance(caught.value, ClipqError)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    assert sorted(path.parent.iterdir()) == beside
    assert before is None or path.read_bytes() == before


def test_the_header_says_what_is_in_the_file(good):
    found = check(good)
    assert found.path == good
    assert found.size == good.stat().st_size
    entries, data = split(good)
    assert found.metadata == entries.pop("__metadata__")
    assert found.tensors == entries
    assert found.data_start == found.size - len(data)
    assert found.metadata[header.VERSION_KEY] == str(header.FORMAT_VERSION)
    config = found.config
    assert (config["host"], config["config"]["class"], config["tokenizer"]) == ("transformers", "ViTModel", None)
    assert config["results"] == {"top1": 0.5, "task": "drawings"}
    assert config["recipe"]["towers"]["image"]["name"] == "int8"
    assert set(config["recipe"]["modules"].values()) == {"linear", "patch_embedding"}


def test_a_header_is_read_without_heavy_libraries(good):
    code = (
        "import sys; from clipq.files.header import read_header, check_data\n"
        f"found = read_header({str(good)!r}); check_data(found); print(found.config['host'])\n"
        "heavy = {'torch', 'numpy', 'safetensors', 'transformers', 'open_clip'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "transformers\n", "")


def test_a_folder_stands_for_the_model_in_it(good, tmp_path):
    refused(tmp_path, header.MODEL_FILE)
    (tmp_path / header.MODEL_FILE).write_bytes(good.read_bytes())
    assert check(tmp_path).path == tmp_path / header.MODEL_FILE


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "none.safetensors", "does not exist")


def test_a_file_cut_off_anywhere(good, tmp_path):
    raw, target = good.read_bytes(), tmp_path / "cut.safetensors"
    random.seed(0)
    start = header.read_header(good).data_start
    for size in (0, 1, 7, 8, 9, start - 1, start, start + 1, len(raw) - 1, *random.sample(range(len(raw)), 30)):
        target.write_bytes(raw[:size])
        refused(target)


def test_a_file_with_something_after_it(good, tmp_path):
    target = tmp_path / "long.safetensors"
    target.write_bytes(good.read_bytes() + b"\0")
    refused(target, "after the last tensor")


def test_any_flipped_bit_is_noticed(good, tmp_path):
    raw, target = good.read_bytes(), tmp_path / "flipped.safetensors"
    random.seed(0)
    start = header.read_header(good).data_start
    places = [*range(8), *random.sample(range(8, start), 400), *random.sample(range(start, len(raw)), 60)]
    for place in places:
        altered = bytearray(raw)
        altered[place] ^= 1 << random.randrange(8)
        target.write_bytes(altered)
        refused(target)


def test_swapped_hashes_are_noticed(good, tmp_path):
    entries, data = split(good)
    metadata = entries["__metadata__"]
    one, other = header.DATA_HASH_KEY, header.HEADER_HASH_KEY
    metadata[one], metadata[other] = metadata[other], metadata[one]
    raw = json.dumps(entries, separators=(",", ":")).encode()
    refused(join(tmp_path / "swapped.safetensors", raw, data), "sha256")


@pytest.mark.parametrize(
    "contents",
    [b"", b"hello", b"weights: none\n" * 100, b"PK\x03\x04" + bytes(500), b"\x08\x07\x12\x07pytorch" + bytes(300)],
    ids=["empty", "short", "text", "pt", "onnx"],
)
def test_other_files_with_that_suffix(contents, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(contents)
    refused(path)


def test_a_safetensors_file_of_another_program(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "plain.safetensors"
    save_file({"weight": torch.ones(3)}, path, {"format": "pt"})
    refused(path, "not written by clipq")


@pytest.mark.parametrize("length", [1 << 62, (1 << 64) - 1, 200 << 20])
def test_a_huge_header_is_not_read(length, tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(300 << 20)  # a sparse file: it is as long as it says, and takes no room
    with pytest.raises(CheckpointError, match="header of"):
        header.read_header(path)


ENTRY = b'{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'
RAW = {
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "no object": b"[1, 2]",
    "a number of a million digits": b'{"a":' + b"9" * 1_000_000 + b"}",
    "not UTF-8": b'{"\xff\xfe":1}',
    "a name twice": b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}",
    "metadata twice": b'{"__metadata__":{},"__metadata__":{}}',
    "a key of the metadata twice": b'{"__metadata__":{"clipq.config":"{}","clipq.config":"{}"}}',
    "metadata that is a list": b'{"__metadata__":["format"]}',
    "metadata that is no string": b'{"__metadata__":{"clipq.format_version":1}}',
    "no metadata": b"{}",
    "null": b"null",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_headers_that_are_none(raw, tmp_path):
    refused(join(tmp_path / "raw.safetensors", raw, b"\0"))


@pytest.mark.parametrize("version", ["2", "999", "0", "-1", "1.0", "", "one", "\u0661", "9" * 5000])
def test_versions_that_this_clipq_does_not_read(good, tmp_path, version):
    def change(entries, data):
        entries["__metadata__"][header.VERSION_KEY] = version

    refused(forge(good, tmp_path / "future.safetensors", change), "format version", "pip install -U clipq")


@pytest.mark.parametrize("key", [header.CONFIG_KEY, header.DATA_HASH_KEY, header.HEADER_HASH_KEY])
def test_missing_metadata(good, tmp_path, key):
    refused(forge(good, tmp_path / "m.safetensors", lambda entries, data: entries["__metadata__"].pop(key)), key)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"{}"', "{}", '{"host":"timm"}', "[" * 100_000, '{"a":1,"a":2}'], ids=lambda t: t[:20]
)
def test_a_configuration_that_is_none(good, tmp_path, text):
    def change(entries, data):
        entries["__metadata__"][header.CONFIG_KEY] = text

    refused(forge(good, tmp_path / "config.safetensors", change), header.CONFIG_KEY)


def moved(by):
    def change(entry):
        entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]

    return change


ENTRIES = {
    "an offset further on": moved(4),
    "far out of range": moved(1 << 40),
    "before the data": moved(-4),
    "a negative size": lambda entry: entry["data_offsets"].reverse(),
    "three offsets": lambda entry: entry["data_offsets"].append(0),
    "offsets that are no numbers": lambda entry: entry.update(data_offsets=["0", "4"]),
    "offsets that are a string": lambda entry: entry.update(data_offsets="ab"),
    "offsets that are floats": lambda entry: entry.update(data_offsets=[float(n) for n in entry["data_offsets"]]),
    "a negative shape": lambda entry: entry.update(shape=[-n for n in entry["shape"]]),
    "a shape of floats": lambda entry: entry.update(shape=[float(n) for n in entry["shape"]]),
    "a shape of booleans": lambda entry: entry.update(shape=[True, *entry["shape"]]),
    "a shape that is a string": lambda entry: entry.update(shape=""),
    "a huge shape": lambda entry: entry.update(shape=[1 << 62, 1 << 62]),
    "a larger shape": lambda entry: entry.update(shape=[2, *entry["shape"]]),
    "a wider dtype": lambda entry: entry.update(dtype="F64"),
    "an unknown dtype": lambda entry: entry.update(dtype="C64"),
    "a dtype that is a list": lambda entry: entry.update(dtype=["F32"]),
    "no dtype": lambda entry: entry.pop("dtype"),
    "no shape": lambda entry: entry.pop("shape"),
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_tensors_that_do_not_fit_the_data(good, tmp_path, change):
    name = "layers.0.mlp.fc1.bias"
    path = forge(good, tmp_path / "layout.safetensors", lambda entries, data: change(entries[name]))
    refused(path, "tensor '")


def test_entries_that_are_no_tables(good, tmp_path):
    for value in (None, [], 3, "F32", {}):
        path = forge(good, tmp_path / "entry.safetensors", lambda entries, data, v=value: entries.update(extra=v))
        refused(path, "tensor 'extra'")


def test_two_tensors_in_one_place_and_a_gap(good, tmp_path):
    name, other = "layers.0.mlp.fc1.bias", "layers.1.mlp.fc1.bias"
    target = tmp_path / "overlap.safetensors"
    refused(forge(good, target, lambda entries, data: entries[other].update(entries[name])), "overlaps")
    refused(forge(good, target, lambda entries, data: entries.pop(name)), "leaves a gap")
