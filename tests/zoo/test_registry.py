"""The zoo's registry: strict reading, names, agreement with open_clip, and where the files come from."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import HubServer

from clipq.errors import ClipqError, DownloadError, UnknownNameError
from clipq.resources import resource
from clipq.zoo import registry
from clipq.zoo.registry import Artefact, RegistryError

ROOT = Path(__file__).resolve().parents[2]
WANTED = (
    "clipq-tiny/deit",
    "ViT-B-32/openai",
    "ViT-B-32/laion2b_s34b_b79k",
    "ViT-B-32/datacomp_xl_s13b_b90k",
    "ViT-B-16/openai",
    "ViT-L-14/openai",
    "ViT-B-16-SigLIP/webli",
    "ViT-B-16-SigLIP2/webli",
    "MobileCLIP-B/datacompdr",
)
ENTRIES = {entry.name: entry for entry in registry.entries()}
FROM_OPEN_CLIP = [entry for entry in registry.entries() if not entry.embedded]
ON_HUB = Artefact("int8", "", 0, repo="someone/a-model", filename="model.safetensors", revision="main")


# -- what is in it -------------------------------------------------------------------------------------------------


def test_the_zoo_has_the_models_it_promises():
    assert set(WANTED) <= set(registry.list_models())
    assert registry.list_models() == list(ENTRIES)


@pytest.mark.parametrize("entry", FROM_OPEN_CLIP, ids=lambda entry: entry.name)
def test_entries_agree_with_open_clip(entry):
    """The names exist there, the base weights are the ones it downloads, and the activation is the one it uses."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    assert (entry.arch, entry.tag) in open_clip.list_pretrained()
    config = get_pretrained_cfg(entry.arch, entry.tag)
    assert config["hf_hub"].strip("/") == entry.base
    in_config = open_clip.get_model_config(entry.arch).get("quick_gelu", False)
    assert config.get("quick_gelu", in_config) == entry.quick_gelu


@pytest.mark.parametrize("arch", dict.fromkeys(entry.arch for entry in FROM_OPEN_CLIP))
def test_towers_that_need_torch_are_those_that_cannot_be_described(arch):
    """And the blocks of every tower of the zoo are one native call.

    Floats are never described, but where nothing else is in the way that is the reason given.
    """
    import open_clip

    from clipq.hosts import HOSTS
    from clipq.hosts.descriptions import describe
    from clipq.methods.quantization import quantize

    host = HOSTS["open_clip"]
    module = quantize(host.build(open_clip.get_model_config(arch)), "fp32")
    assert all(host.tower(module, tower) for tower in host.towers(module))
    reasons = {tower: describe(module, host, tower)["undescribed"] for tower in host.towers(module)}
    needs_torch = " ".join(tower for tower, reason in reasons.items() if "int8" not in reason)
    assert {entry.needs_torch for entry in FROM_OPEN_CLIP if entry.arch == arch} == {needs_torch}


@pytest.mark.parametrize("entry", FROM_OPEN_CLIP, ids=lambda entry: entry.name)
def test_entries_name_licence_reference_and_an_int8_file(entry):
    assert entry.licence in ("MIT", "Apache-2.0", "apple-amlr")
    assert 60 < entry.top1 < 85
    assert registry.artefact(entry, "int8").repo == f"clipq/{entry.arch}-{entry.tag}-int8"


def test_quick_gelu_is_openais_alone():
    assert {entry.name for entry in FROM_OPEN_CLIP if entry.quick_gelu} == {
        f"{arch}/openai" for arch in ("ViT-B-32", "ViT-B-16", "ViT-L-14")
    }


def test_the_embedded_model():
    entry = registry.find("clipq-tiny")
    assert entry.embedded
    assert [artefact.precision for artefact in entry.artefacts] == ["int8", "fp16"]
    for artefact in entry.artefacts:
        assert artefact.published
        assert artefact.path == f"zoo/clipq-tiny/clipq-tiny-{artefact.precision}.safetensors"


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_published_files_have_a_size_and_a_pinned_revision(entry):
    for artefact in entry.artefacts:
        assert bool(artefact.sha256) == (artefact.size > 0)
        if artefact.sha256 and not artefact.embedded:
            assert re.fullmatch("[0-9a-f]{40}", artefact.revision), "a branch moves, a commit does not"


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("ViT-B-32", "ViT-B-32/openai"),
        ("ViT-B-32/openai", "ViT-B-32/openai"),
        ("ViT-B-32-openai", "ViT-B-32/openai"),
        ("ViT-B-32/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-B-16-SigLIP2", "ViT-B-16-SigLIP2/webli"),
        ("clipq-tiny", "clipq-tiny/deit"),
    ],
)
def test_names(name, full):
    assert registry.find(name).name == full
    assert registry.is_known(name)


def test_every_full_name_finds_its_entry():
    assert [registry.find(name) for name in registry.list_models()] == registry.entries()


@pytest.mark.parametrize(("name", "near"), [("ViT-B-33", "ViT-B-32"), ("ViT-B-16/openal", "ViT-B-16/openai")])
def test_an_unknown_name_gets_the_nearest_match(name, near):
    assert not registry.is_known(name)
    with pytest.raises(UnknownNameError, match=f"unknown model '{name}'. Did you mean '{near}'"):
        registry.find(name)


def test_a_precision_that_is_not_there_is_none():
    assert registry.artefact(registry.find("ViT-B-32"), "int3") is None


def test_the_list_can_be_changed_by_its_owner_only():
    registry.entries().clear()
    assert registry.list_models() == list(ENTRIES)


# -- strictness ----------------------------------------------------------------------------------------------------

ENTRY = {
    "arch": '"A"',
    "tag": '"t"',
    "base": '"b/c"',
    "licence": '"MIT"',
    "quick_gelu": "true",
    "top1": "63.3",
    "artefacts": '[{precision = "int8", repo = "a/b", filename = "c", revision = "main", sha256 = "", size = 0}]',
}


def text(**changes: str | None) -> str:
    lines = [f"{key} = {value}" for key, value in {**ENTRY, **changes}.items() if value is not None]
    return "\n".join(["[[models]]", *lines, ""])


def test_a_good_registry_is_read():
    (entry,) = registry.parse(text(), "x.toml")
    assert (entry.name, entry.quick_gelu, entry.top1, entry.artefacts[0].repo) == ("A/t", True, 63.3, "a/b")
    assert registry.parse(text(top1=None), "x.toml")[0].top1 is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[[models", r"x\.toml is not TOML"),
        ("[[model]]", "one list, .*it has model"),
        ("", "it has nothing"),
        ("models = [1]", "model 1 is not a table"),
        (text(quick_gelu=None), r"model 1 \(A/t\) lacks quick_gelu"),
        (text(license='"MIT"'), "unknown key 'license'. Did you mean 'licence'"),
        (text(quick_gelu='"yes"'), "quick_gelu is 'yes', not true or false"),
        (text(top1="63"), "top1 is 63, not a number with a decimal point"),
        (text(artefacts='"none"'), "artefacts is 'none', not a list of tables"),
        (text() + text(), "A/t twice"),
        (text(artefacts=ENTRY["artefacts"].replace("size", "sise")), "artefact 1: unknown key 'sise'"),
        (text(artefacts=ENTRY["artefacts"].replace(', sha256 = ""', "")), "artefact 1 lacks sha256"),
        (text(artefacts=ENTRY["artefacts"].replace('sha256 = ""', 'sha256 = "AB"')), "sha256 is 'AB'"),
        (text(artefacts=ENTRY["artefacts"].replace('repo = "a/b",', "")), "needs either a path, or a repo"),
        (text(artefacts=ENTRY["artefacts"].replace("size", 'path = "p", size')), "needs either a path, or a repo"),
        (text(artefacts=ENTRY["artefacts"][:-1] + ", " + ENTRY["artefacts"][1:]), "two artefacts of the same"),
    ],
)
def test_a_registry_that_is_wrong_is_refused_by_name(written, said):
    with pytest.raises(RegistryError, match=said):
        registry.parse(written, "x.toml")


def test_reading_the_registry_needs_only_the_standard_library():
    code = "import sys; from clipq.zoo import registry; registry.list_models(); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "open_clip", "huggingface_hub", "numpy"} & set(done.stdout.split())


# -- files ---------------------------------------------------------------------------------------------------------


def test_an_unpublished_file_cannot_be_fetched():
    assert not ON_HUB.published
    with pytest.raises(DownloadError, match="not published yet; clipq.load builds it"):
        registry.fetch(ON_HUB)


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """An artefact that ships with clipq, in a checkout of this test's own."""
    monkeypatch.setattr("clipq.resources._PACKAGE", tmp_path / "clipq")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "small.bin").write_bytes(b"weights")
    return Artefact("int8", hashlib.sha256(b"weights").hexdigest(), 7, path="zoo/small.bin")


def test_an_embedded_file_is_used_where_it_lies(embedded):
    assert registry.fetch(embedded) == resource("zoo", "small.bin")
    assert registry.fetch(replace(embedded, sha256="")) == resource("zoo", "small.bin")


def test_an_embedded_file_that_was_altered_is_refused(embedded):
    resource("zoo", "small.bin").write_bytes(b"weightz")
    with pytest.raises(DownloadError, match=r"small\.bin was altered: sha256 [0-9a-f]{64}, not"):
        registry.fetch(embedded)


def test_an_embedded_file_that_is_missing_is_named(embedded):
    resource("zoo", "small.bin").unlink()
    with pytest.raises(ClipqError, match=r"zoo/small\.bin is missing from this installation"):
        registry.fetch(embedded)


FETCH = """
import sys; from clipq.zoo import registry
repo, filename, revision, digest, cache = sys.argv[1:]
artefact = registry.Artefact("int8", digest, 7, repo=repo, filename=filename, revision=revision)
print(registry.fetch(artefact, cache), end="")
"""


def test_a_published_file_comes_from_the_hub_that_the_environment_names(tmp_path):
    with HubServer() as server:
        commit = server.add(ON_HUB.repo, ON_HUB.filename, b"weights")
        server.add(ON_HUB.repo, ON_HUB.filename, b"a later version")
        digest = hashlib.sha256(b"weights").hexdigest()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FETCH, ON_HUB.repo, ON_HUB.filename, commit, digest, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": server.url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout, done.stderr
    assert Path(done.stdout).read_bytes() == b"weights"


def test_built_files_have_a_place_of_their_own(tmp_path, monkeypatch):
    entry = registry.find("ViT-B-32")
    keys = ("int8", "fp16", '{"image": "int8"}', '{"image": "fp16"}', "../up", "x" * 300)
    paths = [registry.built_path(other, key, tmp_path) for other in registry.entries() for key in keys]
    assert len(set(paths)) == len(paths)
    assert {path.parent.parent.parent for path in paths} == {tmp_path / "built"}
    assert registry.built_path(entry, "int8", tmp_path).name == "int8.safetensors"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert registry.built_path(entry, "int8").is_relative_to(tmp_path / "cache" / "clipq" / "built")
