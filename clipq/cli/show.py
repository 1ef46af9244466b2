"""How the commands print: sizes, percentages, tables. rich is imported only when something is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 160  # a pipe or a file has no width of its own; rich would cut tables at 80


def size(count: float) -> str:
    """Bytes as people read them: "87.4 MB" (decimal units, as file managers and the hub use)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def number(count: float) -> str:
    """A count as people read it: 151277313 -> "151.3 M"."""
    for unit in ("", " k"):
        if abs(count) < 999.5:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} M"


def percent(share: float, digits: int = 2) -> str:
    """A share of one as a percentage: 0.9876 -> "98.76 %"."""
    return f"{100 * share:.{digits}f} %"


def console(stderr: bool = False) -> Console:
    """A console for plain text and tables; wide enough for whole tables when the output is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; columns whose heading starts with ">" are aligned right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        grid.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console().print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(str(value)))
    console().print(grid)


def note(text: str) -> None:
    """A line for the person watching, on stderr: stdout carries only the answer."""
    print(text, file=sys.stderr)


def as_json(value: object) -> None:
    """Print a value as JSON, and nothing else, so that another program can read stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
