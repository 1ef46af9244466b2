"""`clipq demo`: the command, on a visitor's own pictures; its page is looked at in test_demo_page.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_helpers import COLOURS, error_of
from page_reader import Page
from PIL import Image

from clipq.cli import demo, main


@pytest.fixture(autouse=True)
def _short(monkeypatch, threads) -> None:
    monkeypatch.setattr(demo, "QUICK", demo.Scope(8, 3, 1, (1, 2)))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A photo that lies on its side and says so, a square, and what is no picture."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((600, 400)).convert("RGB").save(folder / "lying-down.jpg", exif=exif)
    Image.new("RGB", (40, 36), COLOURS["red"]).save(folder / "$red_<1>.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


def run(*argv: object, output: Path) -> Page:
    assert main(["demo", *map(str, argv), "--quick", "--threads", "1", "-o", str(output)]) == 0
    return Page(output)


def test_ones_own_pictures(folder, tmp_path, capsys):
    page = run(folder, "--labels", "a red square, a  grey-scale ramp", output=tmp_path / "x.html")
    printed = capsys.readouterr()
    verdict, *_, last = printed.out.strip().splitlines()
    assert verdict.startswith("int8 gives the same answer as fp32 on ") and "of 2 pictures" in verdict
    assert page.texts("h1") == [verdict]
    assert last.startswith(f"the page: {tmp_path / 'x.html'} (all of it took ")
    assert "clipq: left out broken.png: " in printed.err
    assert "$red_<1>.png" in printed.out
    assert "a grey-scale ramp (" in printed.out or "a red square (" in printed.out
    assert page.texts("h3")[:2] == ["$red_<1>.png", "lying-down.jpg"]
    small, turned = page.all("img")[:2]
    assert (small.attributes["width"], small.attributes["height"]) == ("40", "36")
    assert (turned.attributes["width"], turned.attributes["height"]) == ("320", "480")
    assert turned.picture().getpixel((310, 240))[0] < 20 < 235 < turned.picture().getpixel((10, 240))[0]


def test_what_is_left_out_and_what_cannot_be_known_is_said(folder, tmp_path):
    page = run(folder, "--labels", "a,b,c", output=tmp_path / "x.html")
    assert page.texts("h2")[:3] == ["Your pictures", "Where the two disagree", "Left out"]
    (left_out,) = page.texts("ul", class_="broken")
    assert left_out.startswith("broken.png: ") and len(left_out) > len("broken.png: ")
    assert not page.all("li", class_="right") and "right (" not in page.source and "drop" not in page.source
    assert {text.split(" ")[0] for text in page.texts("span", class_="name")} == {"a", "b", "c"}
    assert any("your 3 names" in text for text in page.texts("p"))
    tiles = page.texts("div", class_="tile")
    assert len(tiles) == 4 and "mean cosine" in tiles[1]
    assert page.texts("dd")[-1] == f"clipq demo '{folder}' --labels a,b,c --quick --threads 1 -o {tmp_path}/x.html"


def test_a_single_photo_without_names_is_given_those_of_imagenet(folder, tmp_path, capsys, monkeypatch):
    import open_clip

    few = open_clip.IMAGENET_CLASSNAMES[:20]
    monkeypatch.setattr(open_clip, "IMAGENET_CLASSNAMES", [*few, few[3]])
    page = run(folder / "lying-down.jpg", "--precision", "fp16", output=tmp_path / "x.html")
    assert "the 1,000 names of ImageNet" in capsys.readouterr().err
    assert any("ImageNet’s 1,000 names" in text for text in page.texts("p"))
    assert set(page.texts("span", class_="name")) <= set(few)
    (verdict,) = page.texts("h1")
    assert verdict.startswith("fp16 gives the same answer as fp32 on ")
    assert page.texts("p", class_="who")[:2] == ["fp32", "fp16"]
    assert page.texts("dd")[-1].endswith(f"lying-down.jpg' --precision fp16 --quick --threads 1 -o {tmp_path}/x.html")


def test_of_a_large_folder_some_are_looked_at_and_that_is_said(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(7):
        Image.new("RGB", (20, 20), (30 * i, 90, 90)).save(folder / f"{i}.png")
    (folder / "0.png").rename(os.fsdecode(os.fsencode(folder) + b"/0\xff.png"))  # no UTF-8
    page = run(folder, "--labels", "a,b", "--open", output=tmp_path / "x.html")
    assert any("3 of 7, evenly spaced, were looked at" in text for text in page.texts("p"))
    assert page.texts("h3")[:3] == ["0?.png", "2.png", "4.png"]
    assert opened == [(tmp_path / "x.html").as_uri()]


WRONG = {
    "labels without pictures": (["--labels", "a,b"], "give those too"),
    "no labels in --labels": (["{pictures}", "--labels", ""], "an empty name"),
    "an empty label": (["{pictures}", "--labels", "a,,c"], "an empty name"),
    "a single label": (["{pictures}", "--labels", "a cat"], "at least two"),
    "a label twice": (["{pictures}", "--labels", "a cat,b,a  cat"], "'a cat' twice"),
    "nothing there": (["{here}/nothing", "--labels", "a,b"], "nothing does not exist"),
    "no pictures": (["{here}/empty"], "holds no pictures"),
    "no picture": (["{here}/notes.txt"], "not named like a picture"),
    "a fifo": (["{here}/fifo.png"], "a fifo"),
    "nowhere to write": (["{pictures}", "-o", "{here}/gone/x.html"], "there is no folder"),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_found_before_any_work(argv, message, tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.setattr(demo, "MODEL", "no-such-model")  # an error about it would come from the work
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    os.mkfifo(tmp_path / "fifo.png")
    argv = [one.format(pictures=pictures, here=tmp_path) for one in argv]
    output = [] if "-o" in argv else ["-o", str(tmp_path / "x.html")]
    assert main(["demo", *argv, *output]) == 1
    assert message in error_of(capsys)
    assert not (tmp_path / "x.html").exists()


def test_a_picture_that_cannot_be_read_is_one_error(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"no picture")
    argv = [str(tmp_path / "x.png"), "--labels", "a,b", "--quick", "--threads", "1", "-o", str(tmp_path / "x.html")]
    assert main(["demo", *argv]) == 1
    assert "none of the 1 inputs can be read; the first: x.png" in error_of(capsys)
    assert not (tmp_path / "x.html").exists()
