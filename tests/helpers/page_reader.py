"""Reads a page as a browser without scripts would: its pictures, headings, texts, and what it would load."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

_VOID = {"meta", "img", "wbr", "link", "br", "hr", "input"}
_LOADING = {"src", "srcset", "href", "data", "poster", "action", "background", "xlink:href"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""

    def picture(self) -> Image.Image:
        """The decoded picture of an <img> that carries it."""
        head, _, content = self.attributes["src"].partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        return Image.open(io.BytesIO(base64.b64decode(content)))


@dataclass
class Page(HTMLParser):
    """All elements in the order in which they begin, each with the text in it."""

    path: Path
    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.source = self.path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {[one.tag for one in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1].tag == tag, f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        """The elements of these tags whose attributes are these (`class_` for class)."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            one
            for one in self.elements
            if one.tag in tags and all(one.attributes.get(name) == value for name, value in wanted.items())
        ]

    def texts(self, *tags: str, **attributes: str) -> list[str]:
        return [" ".join(one.text.split()) for one in self.all(*tags, **attributes)]

    @property
    def style(self) -> str:
        (style,) = self.all("style")
        return style.text

    def loaded(self) -> list[str]:
        """Addresses that a browser would ask for, or that a click would lead to."""
        return [
            value or ""
            for one in self.elements
            for name, value in one.attributes.items()
            if name in _LOADING and not (value or "").startswith("data:image/")
        ]
