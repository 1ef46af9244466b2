"""Figures as files: the ending says the format, the bytes are the same every time, no setting is changed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image
from plot_helpers import written

import clipq.plots
from clipq import plots
from clipq.errors import ClipqError, ClipqWarning, OutputError, UnknownNameError
from clipq.plots import style

HEADS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", [*HEADS, ".SVG"])
def test_the_same_report_gives_the_same_bytes(report, tmp_path, suffix):
    files = [plots.save(plots.bench(report), tmp_path / f"{i}{suffix}") for i in range(2)]
    contents = [file.read_bytes() for file in files]
    assert contents[0] == contents[1] and contents[0].startswith(HEADS[suffix.lower()])
    assert not re.search(rb"20\d\d-\d\d-\d\dT|D:20\d\d", contents[0])  # no date of making


def test_an_svg_is_small_and_its_text_is_text(report, tmp_path):
    figure = plots.bench(report)
    content = plots.save(figure, tmp_path / "a.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(content)
    texts = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    first = report["rows"][0]
    numbers = {style.digits(first["ms"]["median"] / first["batch_size"]), f"{first['speedup']:.2f} x"}
    assert {*numbers, "milliseconds an image", "fp32"} <= texts
    assert root.find("{http://www.w3.org/2000/svg}title").text == "ViT-B-32: time of int8 against fp32"
    assert len(content) < 40_000 and "nan" not in content.lower()


def test_the_card_is_white_on_any_page(report, tmp_path):
    with Image.open(plots.save(plots.bench(report), tmp_path / "a.png")) as image:
        assert image.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svgz", "svg"])
def test_another_ending_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(UnknownNameError, match=r"Allowed: \.pdf, \.png, \.svg\."):
        plots.check_plot(tmp_path / name)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        plots.check_plot(tmp_path / "typo" / "a.svg")
    plots.check_plot(tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_how_to_get_it(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what an import of a missing package does too
    for call in (lambda: plots.check_plot(tmp_path / "a.svg"), lambda: plots.bench(report)):
        with pytest.raises(ClipqError, match=re.escape("pip install 'clipq[plots]'")):
            call()


def test_settings_of_the_caller_count_for_nothing_and_stay(report, tmp_path):
    plain = plots.save(plots.bench(report), tmp_path / "a.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert plots.save(plots.bench(report), tmp_path / "b.svg").read_bytes() == plain
        assert dict(matplotlib.rcParams) == before


def test_the_room_is_there_without_being_imported_by_name():
    code = "import sys, clipq; clipq.plots.bench; sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_imports_pyplot():
    found = set()
    for path in Path(clipq.plots.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {getattr(node, "module", None), *(name.name for name in node.names)}
    assert "Figure" in found and not {name for name in found if name and "pyplot" in name}


def test_names_of_any_letters(report, tmp_path):
    report["model"]["name"] = report["baseline"]["name"] = "$a_b$ & <c>\x07 \udcff 猫"
    figure = plots.bench(report)
    assert "$a_b$ & <c>? ? 猫: time of int8" in written(figure)
    root = ElementTree.parse(plots.save(figure, tmp_path / "a.svg")).getroot()
    assert "$a_b$ & <c>? ? 猫: time of int8 against fp32" in {node.text for node in root.iter()}
    with pytest.warns(ClipqWarning, match="boxes for letters that its font lacks"):
        plots.save(figure, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (236.4, "236"),
        (13.24, "13.2"),
        (1.619, "1.62"),
        (0.01234, "0.0123"),
        (0.0, "0"),
        (99.96, "100"),
        (0.64, "0.640"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert style.digits(value) == text
