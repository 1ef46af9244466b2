"""`clipq list` and `clipq info`: the zoo, this machine, a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from cli_helpers import error_of

import clipq
from clipq.arithmetic.precisions import ABOUT, PRECISIONS
from clipq.cli import main
from clipq.loading import worth
from clipq.zoo import registry


def test_list_shows_the_zoo(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in clipq.list_models())
    assert "embedded" in out
    lines = {line.split()[0]: line for line in out.splitlines() if "/" in line}
    assert "image: the blocks" in lines["MobileCLIP-B/datacompdr"] and "both towers" in lines["ViT-B-32/openai"]


def test_list_as_json_is_the_registry(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found] == clipq.list_models()
    assert all(entry["licence"] and entry["status"] for entry in found)


def test_info_of_a_zoo_name_says_where_its_files_come_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["info", "clipq-tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "clipq-tiny/deit" and found["licence"] == "Apache-2.0"
    assert found["files"]["int8"].endswith(" MB, ships with clipq")
    entry = registry.find("ViT-B-32/openai")
    assert main(["info", "ViT-B-32/openai"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"licence {entry.licence}" in out and "int8: not published; built from the base weights on first use" in out
    built = registry.built_path(entry, "int8")
    built.parent.mkdir(parents=True)
    built.write_bytes(bytes(1000))
    assert main(["info", "ViT-B-32-openai"]) == 0
    assert "int8: 1.0 kB, not published; built on this machine: " in " ".join(capsys.readouterr().out.split())


def test_info_of_what_is_neither_a_file_nor_a_name(capsys):
    assert main(["info", "clipq-tinny"]) == 1
    assert "unknown file or model 'clipq-tinny'. Did you mean 'clipq-tiny" in error_of(capsys)


def test_info_of_the_machine(quick, capsys):
    from clipq.machine import cores, versions

    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cores"] == cores()
    assert found["versions"] == versions()
    assert found["kernels on cpu"][found["kernel path on cpu"]] == "chosen"
    assert main(["info"]) == 0
    assert found["kernel path on cpu"] in capsys.readouterr().out


def test_info_answers_whether_int8_is_worth_it(quick, capsys):
    assert main(["info", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["worth"]
    assert [one["device"] for one in answers][0] == "cpu"
    (image, text) = answers[0]["towers"]
    assert answers[0]["choice"] == {"image": image["choice"], "text": text["choice"]}
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert answers[0]["advice"] in " ".join(out.split())
    rows = {line.split()[0]: line for line in reversed(out.splitlines()) if line.strip()}
    for timing in image["timings"]:
        assert f" {timing['speed']:.2f} " in rows[timing["precision"]]
    assert "*" in rows[image["choice"]]


def test_info_without_the_measurement(monkeypatch, capsys):
    monkeypatch.setattr(worth, "measure", lambda *a, **k: pytest.fail("measured"))
    assert main(["info", "--no-measure"]) == 0
    assert "x fp32" not in capsys.readouterr().out
    assert main(["info", "--no-measure", "--json"]) == 0
    assert "worth" not in json.loads(capsys.readouterr().out)


def test_info_names_a_native_library_that_is_missing(monkeypatch, capsys):
    from clipq import kernels

    why = {"native": "no compiler was there", "reference": "chosen"}
    monkeypatch.setattr(kernels, "chosen", lambda device, weights=None: "reference")
    monkeypatch.setattr(kernels, "why", lambda device: why)
    timing = [worth.Timing("fp32", 1.0, 2.0, 1.9, 2.1), worth.Timing("bf16", 0.1), worth.Timing("int8", 0.25)]
    tower = worth.TowerWorth("image", 4, tuple(timing), "fp32")
    monkeypatch.setattr(worth, "_race", lambda name, *others: replace(tower, tower=name))
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "int8 is 0.25 x as fast as fp32 for images and 0.25 x for texts here: not worth it for speed" in out
    assert "clipq's native library is missing (no compiler was there), so int8 runs on reference." in out


def test_info_of_a_file(quantized, capsys):
    assert main(["info", str(quantized), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == {"image": "int8", "text": "int8"}
    assert found["host"] == "open_clip"
    assert found["bytes per dtype"]["I8"]
    assert main(["info", str(quantized)]) == 0
    assert "image: int8" in capsys.readouterr().out


def test_info_of_a_file_needs_no_torch(quantized):
    code = f"import sys\nfrom clipq.cli import main\nassert main(['info', {str(quantized)!r}]) == 0\n"
    code += "assert not {'torch', 'numpy', 'open_clip', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\xff" * 64])
def test_info_of_what_is_no_clipq_file(content, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["info", str(path)]) == 1
    assert "x.safetensors" in error_of(capsys)


def test_list_explains_the_precisions(capsys):
    assert main(["list", "--precisions"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in PRECISIONS)
    assert re.search(r"int8-best +pictures or texts", shown)
    assert main(["list", "--precisions", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed.keys() == PRECISIONS.keys() == ABOUT.keys()
    assert listed["int8-best"]["steps"] == list(PRECISIONS["int8-best"].steps)
