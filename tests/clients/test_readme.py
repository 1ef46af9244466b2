"""The front page: its Python and its commands run as they stand, with small models in place of the hub's."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_helpers import measure_quickly
from pyarrow import Table, parquet

import clipq
from clipq.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "README.md"
TEXT = PAGE.read_text("utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

STAND_INS = {
    '"ViT-B-32/openai"': '"clipq-tiny"',
    '"clipq-tiny", precision="int8-best"': '"local-dir:folder", precision="int8-best"',  # half a minute less
    '"ViT-B-32", pretrained': '"tiny-readme", pretrained',
    "openai/clip-vit-base-patch32": "{transformers}",
    '"drawings", baseline': '"folder", data="classes", baseline',
    '"me/my-clip-int8")': '"me/my-clip-int8", token="secret", endpoint="{hub}")',
}
"""What stands in the Python of the page, and what the test puts in its place."""

COMMAND_STAND_INS = {
    "ViT-B-32/openai": "clipq-tiny",
    "--task imagenet1k --data imagenet/val": "--task folder --data classes",
    "--model NEW": "--model clipq-tiny",
    "--engine ray": "--engine local",  # the same bytes by what is always installed; tests/clients/test_ray.py runs Ray
}
SHORTER = {"info": "--no-measure", "bench": "--runs 1 --batch-sizes 1 --no-memory"}
"""What keeps a command short; what it does is tested elsewhere."""

NOT_HERE = ("demo", "--plot", "export")
"""What takes long or needs other packages: that the page's are understood is tested here, what they do elsewhere."""


def blocks(language: str) -> list[str]:
    return [code for name, code in FENCED.findall(TEXT) if name == language]


def lines() -> list[list[str]]:
    """Every command line of the page, as a shell would split it."""
    found = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [part for words in found if words for part in split(words, "&&")]


def split(words: list[str], separator: str) -> list[list[str]]:
    at = words.index(separator) if separator in words else len(words)
    return [words[:at], *(split(words[at + 1 :], separator) if at < len(words) else [])]


def commands() -> list[list[str]]:
    """The arguments of every `clipq` line, in their order: later ones use what earlier ones wrote."""
    return [words[1:] for words in lines() if Path(words[0]).name == "clipq"]


@pytest.fixture
def tiny_arch(place, open_clip_folder, monkeypatch) -> None:
    """An architecture of open_clip as small as a test, its weights in a file, and both as an open_clip folder."""
    import open_clip.factory as factory
    import torch
    from tiny_models import build, open_clip_config

    for name in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
        monkeypatch.setattr(factory, name, getattr(factory, name).copy())
    (place / "archs").mkdir()
    (place / "archs" / "tiny-readme.json").write_text(json.dumps(open_clip_config()), "utf-8")
    factory.add_model_config(place / "archs")
    torch.save(build("open_clip CLIP").state_dict(), place / "weights.pt")
    (place / "folder").symlink_to(open_clip_folder)


@pytest.fixture
def quick(monkeypatch) -> None:
    """The measurement behind "auto", with a tiny tower."""
    monkeypatch.setattr("clipq.loading.load.measure", measure_quickly)


@pytest.fixture
def hub(monkeypatch):
    """A server that speaks the hub's protocol (its older one for storage)."""
    from hub_server import HubServer

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with HubServer() as server:
        yield server


@pytest.mark.parametrize("code", blocks("python"), ids=["names", "modules", "runtime"])
@pytest.mark.filterwarnings("default")  # of other people's packages
def test_the_python_runs_as_it_stands(code, tiny_arch, clip_folder, hub, quick):
    for name, stand_in in STAND_INS.items():
        code = code.replace(name, stand_in.format(transformers=clip_folder, hub=hub.url))
    done: dict = {}
    exec(compile(code, PAGE.name, "exec"), done)
    assert done["model"].classify(["photos/cat.png"], ["cat", "dog"]).sum().item() == pytest.approx(1)
    assert done["images"].shape[1] > 1


def test_the_commands_run_as_they_stand(place, drawings, capsys):
    for number, drawing in enumerate(drawings):
        drawing.save(place / "photos" / f"{number}.png")
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted((place / "photos").iterdir())]
    (place / "pictures").mkdir()
    parquet.write_table(Table.from_pylist([{"image": image} for image in images]), "pictures/0.parquet")
    for arguments in commands():
        if {*arguments} & {*NOT_HERE}:
            continue
        line = shlex.join(arguments)
        for name, stand_in in COMMAND_STAND_INS.items():
            line = line.replace(name, stand_in)
        more = SHORTER.get(arguments[0], "") if line != "info model.safetensors" else ""
        assert main(shlex.split(f"{line} {more}")) == 0, capsys.readouterr().err
    assert {"model.safetensors", "photos.safetensors", "vectors"} <= {path.name for path in place.iterdir()}


@pytest.mark.clients
def test_exports_run_as_they_stand(place, open_clip_folder, capsys):
    """With a tiny model in the file that an earlier line wrote."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    clipq.save(clipq.load(f"local-dir:{open_clip_folder}"), "model.safetensors")
    lines = [arguments for arguments in commands() if arguments[0] == "export"]
    for arguments in lines:
        assert main(arguments) == 0, capsys.readouterr().err
    assert lines and (place / "onnx" / "image.onnx").is_file()


@pytest.mark.parametrize("arguments", commands(), ids=shlex.join)
def test_a_command_is_understood_as_it_stands(arguments):
    """Whoever changes an option has to change it here too."""
    assert build_parser().parse_args(arguments).run


def test_other_lines_name_what_is_there():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    known = ("python3 -m venv", ".venv/bin/pip install -e", ".venv/bin/python -m pytest")
    for words in lines():
        line = shlex.join(words)
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile, line
        elif Path(words[0]).name != "clipq":
            assert line.startswith(known), f"`{line}` of the page is run by no test"


def test_the_stand_ins_are_of_this_page():
    """And the page has something that runs."""
    assert len(blocks("python")) == 3 and len(commands()) >= 7
    assert [name for name in (*STAND_INS, *COMMAND_STAND_INS) if name not in TEXT] == []
    assert {arguments[0] for arguments in commands()} >= {"list", "info", "quantize", "eval", "bench", "embed"}


def test_links_and_pictures_are_there():
    named = re.findall(r"\]\(([^)#]+)\)|<img[^>]* src=\"([^\"]+)\"", TEXT)
    targets = [one or other for one, other in named]
    assert len(targets) > 5
    assert [name for name in targets if "://" not in name and not (ROOT / name).exists()] == []


def test_the_page_goes_from_numbers_to_commands_to_code_to_limits():
    assert len(TEXT.splitlines()) < 200
    places = [
        TEXT.index(mark) for mark in ("<!-- speed -->", "make demo", "clipq.load(", "<!-- accuracy -->", "## Limits")
    ]
    assert places == sorted(places)


def test_names_in_the_prose_exist():
    """`clipq.something` in backquotes, and every command."""
    for name in set(re.findall(r"`clipq\.(\w+)", TEXT)):
        assert hasattr(clipq, name), name
    known = build_parser()._subparsers._group_actions[0].choices
    assert {*re.findall(r"`clipq ([a-z]+)`", TEXT)} <= known.keys()
