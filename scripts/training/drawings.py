"""Openly licensed drawings with names: fetch, fold names into concepts, render, pack.

The drawings are emoji sets of several art styles, published on npm as SVG. This module knows no model; train_tiny.py
trains on what it returns.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

TEMPLATES = (
    "{c}",
    "a drawing of {c}",
    "an emoji of {c}",
    "a picture of {c}",
    "a small icon of {c}",
    "a cartoon of {c}",
    "{c}, clip art",
)

_TONE = r"(?:medium-light|medium-dark|light|medium|dark)"
_TONE_WORDS = re.compile(rf"(?:-{_TONE}-skin-tone|-tone[1-5])(?=-|$)")
_TONE_SUFFIX = re.compile(rf"-({_TONE})$")
_TONE_CODES = re.compile(r"-(?:1f3f[bcdef]|fe0f|200d-27a1)(?=-|$)")
_NOT_A_COUNTRY = ("flag-in-hole",)
_DIRECTED = re.compile(
    r"left|right|flag|arrow|button|keycap|clock|facing|letter|digit|circled|hand|index|fist|mark|symbol|squared|"
    r"regional|sign|input|curly|moon|quarter|east|west|squint|wink|abc|123|number|text|calendar|back|forward|"
    r"thirty|^[0-9]|yen|dollar|euro|pound|email|e-mail|leo|aries|taurus|gemini|cancer|virgo|scorpio|capricorn|pisces"
)


@dataclass(frozen=True)
class DrawingSet:
    """One npm package of drawings, pinned, with what its licence asks to be said."""

    name: str
    version: str
    licence: str
    author: str
    url: str

    @property
    def package(self) -> str:
        """The npm package's name."""
        return f"@iconify-json/{self.name}"


@dataclass
class Icons:
    """One set's drawings by name, its other names for them, and the code points it states."""

    source: DrawingSet
    svg: dict[str, str]
    mirrored: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """One drawing to render: which concept it shows, in which set and skin tone."""

    concept: str
    set_name: str
    tone: str
    svg: str
    mirror: bool = False


TRAINING_SETS = (
    DrawingSet("noto", "1.2.9", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    DrawingSet("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    DrawingSet("fluent-emoji", "1.2.7", "MIT", "Microsoft Corporation", "https://github.com/microsoft/fluentui-emoji"),
    DrawingSet(
        "fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "https://github.com/microsoft/fluentui-emoji"
    ),
    DrawingSet("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "https://github.com/EmojiTwo/emojitwo"),
    DrawingSet("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"),
    DrawingSet(
        "streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "https://github.com/webalys-hq/streamline-vectors"
    ),
)
LOOSE_SETS = ("fxemoji", "streamline-emojis")  # their names are unspaced or numbered
HELD_OUT = DrawingSet("twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "https://github.com/jdecked/twemoji")


def fetch_set(source: DrawingSet, cache: Path) -> Path:
    """Return the folder of one unpacked npm package, downloading it with the npm client where it is missing."""
    stem = f"iconify-json-{source.name}-{source.version}"
    folder = cache / stem / "package"
    if not (folder / "icons.json").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        spec = f"{source.package}@{source.version}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), spec], check=True)
        with tarfile.open(cache / f"{stem}.tgz") as archive:
            archive.extractall(cache / stem, filter="data")
    return folder


def read_set(source: DrawingSet, folder: Path) -> Icons:
    """Read one unpacked package into whole SVG documents, aliases and code points."""
    data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    size = (data.get("width", 16), data.get("height", 16))
    icons = Icons(source, {name: _document(icon, size) for name, icon in data["icons"].items()})
    for name, alias in data.get("aliases", {}).items():
        if alias.get("hFlip"):
            icons.mirrored[name] = alias["parent"]
        else:
            icons.aliases[name] = alias["parent"]
    chars = folder / "chars.json"
    icons.codes = json.loads(chars.read_text(encoding="utf-8")) if chars.is_file() else {}
    return icons


def _document(icon: dict, size: tuple[int, int]) -> str:
    width, height = icon.get("width", size[0]), icon.get("height", size[1])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def split_tone(name: str, names: Iterable[str] = ()) -> tuple[str, str]:
    """Split an icon's name into its name without skin tones and the tones; names: all names of its set."""
    tones = "".join(_TONE_WORDS.findall(name)).strip("-")
    rest = _TONE_WORDS.sub("", name)
    if tones and not re.fullmatch(_TONE, rest):  # "light-skin-tone" alone is a drawing of its own
        return rest, tones.replace("-skin-tone", "")
    match = _TONE_SUFFIX.search(name)
    # A bare "-light" is a tone only where the set has the middle ones too: a "police-car-light" has none.
    if match and f"{name[: match.start()]}-medium-dark" in names:
        return name[: match.start()], match[1]
    return name, ""


def fold_name(name: str, names: Iterable[str] = ()) -> str:
    """Fold one icon's name to what every set would call it: no skin tone, one spelling for flags, no mirror image."""
    rest, _ = split_tone(name, names)
    rest = re.sub(r"^flag-for-(?:flag-)?", "flag-", rest)
    return re.sub(r"(?<=[a-z])-facing-right$", "", rest)


def fold_code(code: str) -> str:
    """Drop skin tones, presentation selectors and the facing-right mark from a code point sequence."""
    return _TONE_CODES.sub("", code)


class Concepts:
    """Which names mean the same concept, over all sets, and the name each concept goes by."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._apart: set[str] = set()

    def find(self, name: str) -> str:
        """Return the name that stands for the concept of a folded name."""
        self._parent.setdefault(name, name)
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, keep: str, other: str) -> None:
        """Say that two folded names mean one concept; the first one's name is kept."""
        keep, other = self.find(keep), self.find(other)
        if other in self._apart and keep in self._apart:
            return
        if other in self._apart:
            keep, other = other, keep
        self._parent[other] = keep

    def keep_apart(self, names: Iterable[str]) -> None:
        """Let no later alias join any two of these: sets alias the insect cricket to the game."""
        self._apart.update(self.find(name) for name in names)

    def names(self) -> dict[str, list[str]]:
        """Return every concept with all its names, sorted."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._parent):
            groups[self.find(name)].append(name)
        return dict(groups)

    def __contains__(self, name: str) -> bool:
        return name in self._parent


def fold_concepts(reference: Icons, others: Iterable[Icons]) -> Concepts:
    """Fold the names of all sets into concepts: by code point, by alias, and by equal picture in the reference set."""
    concepts = Concepts()
    by_picture: dict[str, str] = {}
    coded = set(reference.codes.values())
    plain = [name for name in reference.svg if not split_tone(name, reference.svg)[1]]
    for name in sorted(plain, key=lambda n: (n not in coded, len(n), n)):
        folded = concepts.find(fold_name(name, reference.svg))
        concepts.join(by_picture.setdefault(reference.svg[name], folded), folded)
    concepts.keep_apart(fold_name(name, reference.svg) for name in plain if name in coded)
    by_code: dict[str, str] = {}
    for icons in (reference, *others):
        for name in sorted(icons.svg):
            concepts.find(fold_name(name, icons.svg))
        for code, name in sorted(icons.codes.items()):
            folded = fold_name(name, icons.svg)
            concepts.join(by_code.setdefault(fold_code(code), folded), folded)
        for name, target in sorted(icons.aliases.items()):
            concepts.join(fold_name(target, icons.svg), fold_name(name, icons.svg))
    return concepts


def loose_names(icons: Icons, concepts: Concepts) -> dict[str, str]:
    """Map a set's own spellings (numbered, unspaced, bare countries) to concepts' names; leave out what fits none."""
    known = {name.replace("-", ""): name for group in concepts.names().values() for name in group}
    found = {}
    for name in icons.svg:
        plain = re.sub(r"-\d+$", "", name) if icons.source.name.startswith("streamline") else name
        squashed = plain.replace("-", "")
        country = re.sub(r"flag$", "", squashed)
        for guess in (squashed, f"flag{country}", re.sub(r"(sign|symbol|face)$", "", squashed), f"{squashed}face"):
            if guess in known:
                found[name] = known[guess]
                break
    return found


def drawings_of(icons: Icons, concepts: Concepts, loose: dict[str, str] | None = None) -> Iterator[Drawing]:
    """Yield one set's drawings with their concepts, leaving out pairs of people in two skin tones."""
    everything = {**{name: name for name in icons.svg}, **icons.mirrored}
    for name, target in sorted(everything.items()):
        folded, tone = split_tone(name, everything)
        if "-" in tone.replace("medium-", ""):
            continue
        known = fold_name(name, everything) if loose is None else loose.get(name)
        if known is not None:
            yield Drawing(concepts.find(known), icons.source.name, tone, icons.svg[target], name in icons.mirrored)


def can_flip(concept: str) -> bool:
    """Say whether a mirrored drawing still shows the same concept."""
    return not _DIRECTED.search(concept)


def words(name: str) -> str:
    """Write a concept's name as it stands in a caption."""
    if name.startswith("flag-") and name not in _NOT_A_COUNTRY:
        return "flag of " + name.removeprefix("flag-").replace("-", " ")
    return name.replace("-", " ").strip()


def captions(name: str, templates: Iterable[str] = TEMPLATES) -> list[str]:
    """Write every template's caption for one concept's name."""
    return [template.format(c=words(name)) for template in templates]


def render(drawing: Drawing, size: int) -> np.ndarray:
    """Render a drawing to a size x size RGBA picture, centred and whole, without any system font."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=drawing.svg, width=size, skip_system_fonts=True))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    pixels = np.asarray(canvas)
    return pixels[:, ::-1].copy() if drawing.mirror else pixels


def on_white(pixels: np.ndarray) -> Image.Image:
    """Lay an RGBA picture on white."""
    picture = Image.fromarray(pixels)
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
