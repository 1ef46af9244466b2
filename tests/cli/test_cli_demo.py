"""`clipq demo`: one page with everything in it."""

from __future__ import annotations

from clipq.cli import main


def test_demo_writes_one_page_with_everything_in_it(tmp_path, capsys, threads):
    page = tmp_path / "demo.html"
    assert main(["demo", "--quick", "--threads", "1", "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert str(page) in out
    assert "same answer as fp32" in out
    assert "drop" in out
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") >= 24
    assert "$" not in html.split("</style>")[1]
    assert "http" not in html
