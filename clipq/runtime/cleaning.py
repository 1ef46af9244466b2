"""open_clip's cleaning of texts, before they are split into tokens.

It begins with ftfy's `fix_text`, which mends broken Unicode. Of pure ASCII there is little to mend, and that is done
here; for other texts, and for entities like "&eacute;" that make such a text, ftfy itself is imported.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable, Mapping

from ..errors import MissingPackageError

_ENTITY = re.compile("&#?[0-9A-Za-z]{1,24};")
_ESCAPE = re.compile(r"\033\[(?:[0-9]|;)*[a-zA-Z]")  # colors of a terminal
_CONTROLS = dict.fromkeys([*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F])
_SEGMENT = 1_000_000  # characters that ftfy mends at once, where no line ends before
_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def fixed(text: str) -> str:
    """`text` as ftfy 6's `fix_text` leaves it, with its default settings.

    Raises `MissingPackageError` where ftfy is needed (for other than ASCII) and is not there.
    """
    if text.isascii():
        mended = _fixed_ascii(text)
        if mended is not None:
            return mended
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise MissingPackageError(
            f"open_clip's tokenizer mends texts beyond ASCII with the package ftfy ({error}); install it with: "
            "pip install ftfy"
        ) from error
    return fix_text(text)


def _fixed_ascii(text: str) -> str | None:
    """As `fixed`; None where an entity stands for something beyond ASCII."""
    done, start, entities = [], 0, True
    while start < len(text):
        stop = min(text.find("\n", start) + 1 or len(text), start + _SEGMENT)
        segment = text[start:stop]
        entities = entities and "<" not in segment  # in HTML they are meant as they are, from there to the end
        mended = _fixed_segment(segment, entities)
        if mended is None:
            return None
        done.append(mended)
        start = stop
    return "".join(done)


def _fixed_segment(text: str, entities: bool) -> str | None:
    before = None
    while text != before:
        before = text
        if entities and "&" in text:
            text = _ENTITY.sub(_character, text)
            if not text.isascii():
                return None
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = _ESCAPE.sub("", text).translate(_CONTROLS)
    return text


def _character(match: re.Match[str]) -> str:
    """What an entity stands for. Unlike HTML, ftfy also takes names of small letters that somebody made capitals."""
    entity = match.group()
    if entity.startswith("&#"):
        plain = html.unescape(entity)
        return entity if ";" in plain else plain
    from html.entities import html5

    if (found := html5.get(entity[1:])) is not None:
        return found
    small = html5.get(entity[1:].lower()) if entity == entity.upper() else None
    return entity if small is None or html.unescape(entity) != entity else small.upper()


def _basic(text: str) -> str:
    return html.unescape(html.unescape(fixed(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_basic(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    """Without punctuation, as big_vision prepares texts for SigLIP."""
    return " ".join(_basic(text).translate(_PUNCTUATION).lower().split())


CLEANERS: Mapping[str, Callable[[str], str]] = {
    "lower": _lower,
    "whitespace": _whitespace,
    "canonicalize": _canonicalize,
}
"""By open_clip's name."""
