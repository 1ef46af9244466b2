"""Whose the photos of a task are: the page carries them, so it names their authors and licences too."""

from __future__ import annotations

import re
from pathlib import Path

from ...resources import resource

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def credits(data: str | None) -> dict[int, str]:
    """By class index "author, licence", from the table of the card beside the data file; empty without a card.

    data: the file as the task names it. The card is the Markdown file of the same name, as that of the photos is.
    """
    card = None if data is None else resource(*data.split("/")).with_suffix(".md")
    if card is None or not card.is_file():
        return {}
    head, *rows = _cells(card)
    places = [head.index(name) for name in ("index", "author", "licence")]
    found = ([row[place] for place in places] for row in rows if len(row) == len(head))
    unnamed = {"not named": "author not named"}
    return {
        int(index): f"{unnamed.get(author, author)}, {licence}" for index, author, licence in found if index.isdecimal()
    }


def _cells(card: Path) -> list[list[str]]:
    """The cells of a Markdown table, its links as their texts."""
    lines = [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[_LINK.sub(r"\1", cell).strip() for cell in line.strip("|").split("|")] for line in lines]
