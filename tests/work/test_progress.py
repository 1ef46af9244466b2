"""Lines of progress where there is no terminal: now and then, and none for what is short."""

from __future__ import annotations

from itertools import count

from clipq.work.progress import Lines


def _clock(step: float):
    ticks = count()
    return lambda: next(ticks) * step


def _said(capsys, total: int, rows: int, step: float) -> list[str]:
    lines = Lines("images", total, _clock(step))
    for _ in range(0, total, rows):
        lines.advance(rows)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_what_is_short_says_nothing(capsys):
    assert _said(capsys, 100, 10, step=0.9) == []


def test_a_line_every_ten_seconds_and_tenth(capsys):
    said = _said(capsys, 1000, 10, step=2.0)
    assert said[0] == "clipq: images: 100 of 1000 (10 %), about 3 min left"
    assert [line.split()[2] for line in said] == [str(n) for n in range(100, 1000, 100)]
    assert said[-1].endswith("(90 %), about 20 s left")


def test_quick_steps_wait_ten_seconds(capsys):
    assert [line.split()[2] for line in _said(capsys, 100, 10, step=4.0)] == ["30", "60", "90"]


def test_slow_work_says_so_once_a_minute(capsys):
    said = _said(capsys, 100_000, 10, step=30.0)
    assert said[0].startswith("clipq: images: 20 of 100000 (0 %), about ") and said[0].endswith(" h left")
    assert said[1].startswith("clipq: images: 40 of 100000")
