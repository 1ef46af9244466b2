"""Figures as files: SVG, PNG or PDF by the ending, the same bytes for the same figure."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ClipqError, ClipqWarning, unknown_name
from ..resources import check_output_path, output_path
from .style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA = {
    ".svg": {"Date": None, "Creator": "clipq"},
    ".png": {"Software": "clipq"},
    ".pdf": {"CreationDate": None, "Creator": "clipq", "Producer": None},
}
"""What is written into a file besides the picture: no date and no version, which would make every file another one."""

_DOTS_PER_INCH = 160


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raise before the work what would come after it: an ending that is none, a place that cannot be written
    (`OutputError`), or that matplotlib is missing (`ClipqError`).
    """
    _suffix(path)
    check_output_path(path)
    check_matplotlib()


def check_matplotlib() -> None:
    """Raise `ClipqError` if matplotlib cannot be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ClipqError(f"plots need matplotlib ({error}); install it with: pip install 'clipq[plots]'") from error


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as its file's ending says (.svg, .png, .pdf), whole or not at all, and return the path.

    The same figure gives the same bytes. In an SVG text is text. Raises `UnknownNameError` for another ending,
    `OutputError` if the file cannot be written; names in letters that the font lacks are a `ClipqWarning`.
    """
    path, suffix = Path(path), _suffix(path)
    metadata = {**_METADATA[suffix], "Title": figure.get_label()}  # what a screen reader says of an SVG
    options = {"format": suffix[1:], "metadata": metadata, "dpi": _DOTS_PER_INCH}
    with styled(), warnings.catch_warnings(record=True) as caught, output_path(path) as temporary:
        warnings.simplefilter("always")
        figure.savefig(temporary, **options)
    if suffix != ".svg" and any("missing from font" in str(one.message) for one in caught):
        text = f"{path} shows boxes for letters that its font lacks; the reader of an SVG brings its own fonts"
        warnings.warn(text, ClipqWarning, stacklevel=2)
    return path


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _METADATA:
        raise unknown_name("ending of a plot", suffix, _METADATA, f"The plot was to be written to {os.fspath(path)}.")
    return suffix
