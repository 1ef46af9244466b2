"""Write clipq/runtime/vocabulary/: CLIP's merges, and which characters are letters and numbers, as open_clip sees them.

    python scripts/building/make_vocabulary.py

The merges come from open_clip's copy of OpenAI's vocabulary; letters and numbers from the package `regex`, which splits
words for open_clip. To be run again when a newer `regex` knows a newer Unicode: what is in neither class is a symbol.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import regex
from open_clip.tokenizer import default_bpe

from clipq.resources import atomic_path

TARGET = Path(__file__).resolve().parents[2] / "clipq" / "runtime" / "vocabulary"
MERGES = 49152 - 256 - 2  # of the file's lines after the first: what SimpleTokenizer takes
CLASSES = {"L": r"\p{L}", "N": r"\p{N}"}


def merges() -> str:
    """One merge a line, the most frequent first: two pieces with a space between."""
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")
    return "\n".join(lines[1 : MERGES + 1]) + "\n"


def ranges(pattern: str) -> Iterator[tuple[int, int]]:
    """The first and last code points of each run of characters that `pattern` matches."""
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    for match in regex.finditer(pattern, every):
        yield from _unbroken(match.group())


def _unbroken(text: str) -> Iterator[tuple[int, int]]:
    """Runs without the gap of the surrogates."""
    start = before = ord(text[0])
    for character in text[1:]:
        if ord(character) != before + 1:
            yield start, before
            start = ord(character)
        before = ord(character)
    yield start, before


def characters() -> str:
    """A line for each class: its name, and its runs in hexadecimal."""
    lines = []
    for name, pattern in CLASSES.items():
        runs = (f"{first:X}-{last:X}" if first != last else f"{first:X}" for first, last in ranges(f"{pattern}+"))
        lines.append(f"{name} {' '.join(runs)}\n")
    return "".join(lines)


def main() -> None:
    for name, text in {"clip_merges.txt": merges(), "characters.txt": characters()}.items():
        with atomic_path(TARGET / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{TARGET / name}: {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
