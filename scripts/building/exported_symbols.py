"""What a shared library of any system offers and needs: ELF (Linux), Mach-O (macOS) and PE (Windows), 64 bits each.

Sources: System V ABI and its symbol tables; Apple's mach-o/loader.h; Microsoft's PE format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path


class LibraryFormatError(Exception):
    """A file that is no library of these formats; the message is one line."""


@dataclass(frozen=True)
class Library:
    """`architecture` as compilers call it; `needs`: the libraries it is linked with, by their file names."""

    system: str
    architecture: str
    exports: frozenset[str]
    needs: tuple[str, ...]
    least_system: str = ""
    """The oldest macOS that loads it; empty on other systems, whose formats do not say."""


def read_library(path: Path) -> Library:
    """What `path` is. Raises `LibraryFormatError` for anything but a little-endian 64-bit ELF, Mach-O or PE file."""
    data = path.read_bytes()
    for start, read in _READERS.items():
        if data.startswith(start):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError, KeyError) as error:
                raise LibraryFormatError(f"{path} is damaged, or not of 64 bits: {error!r}") from error
    raise LibraryFormatError(f"{path} is neither ELF, Mach-O nor PE; it starts with {data[:4]!r}")


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _elf(data: bytes) -> Library:
    machine = {62: "x86_64", 183: "aarch64"}[struct.unpack_from("<H", data, 18)[0]]
    (table,), (size, count) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * i) for i in range(count)]
    exports, needs = set(), []
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind not in (6, 11):  # dynamic entries, dynamic symbols
            continue
        names = sections[link][4]
        if kind == 11:
            for at in range(start, start + length, 24):
                name, info, other, section = struct.unpack_from("<IBBH", data, at)
                if section and info >> 4 in (1, 2) and other & 3 in (0, 3):  # defined; global or weak; visible
                    exports.add(_text(data, names + name))
        else:
            entries = struct.iter_unpack("<qQ", data[start : start + length])
            needs += [_text(data, names + value) for tag, value in entries if tag == 1]
    return Library("linux", machine, frozenset(exports), tuple(needs))


def _macho(data: bytes) -> Library:
    machine = {0x01000007: "x86_64", 0x0100000C: "aarch64"}[struct.unpack_from("<I", data, 4)[0]]
    exports, needs, least, at = set(), [], "", 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 0xC:  # LC_LOAD_DYLIB
            needs.append(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 0x32:  # LC_BUILD_VERSION
            version = struct.unpack_from("<I", data, at + 12)[0]
            least = f"{version >> 16}.{version >> 8 & 255}"
        elif command in (0x80000022, 0x80000033):  # LC_DYLD_INFO_ONLY, LC_DYLD_EXPORTS_TRIE
            start, length = struct.unpack_from("<II", data, at + (40 if command == 0x80000022 else 8))
            exports |= set(_names_of_trie(data[start : start + length], 0, "")) if length else set()
        at += size
    return Library("macos", machine, frozenset(name.removeprefix("_") for name in exports), tuple(needs), least)


def _names_of_trie(trie: bytes, at: int, prefix: str) -> list[str]:
    """The names below a node: its own value's size, its value, its number of children, each with the text to it."""
    size, at = _uleb(trie, at)
    names, at = ([prefix] if size else []), at + size
    children, at = trie[at], at + 1
    for _ in range(children):
        text = _text(trie, at)
        node, at = _uleb(trie, at + len(text) + 1)
        names += _names_of_trie(trie, node, prefix + text)
    return names


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    """A number of any length, 7 bits a byte, and where the next one starts."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _pe(data: bytes) -> Library:
    head = struct.unpack_from("<I", data, 60)[0]
    machine = {0x8664: "x86_64", 0xAA64: "aarch64"}[struct.unpack_from("<H", data, head + 4)[0]]
    count, optional_size = struct.unpack_from("<H", data, head + 6)[0], struct.unpack_from("<H", data, head + 20)[0]
    table = head + 24 + optional_size
    sections = [struct.unpack_from("<IIII", data, table + 40 * i + 8) for i in range(count)]

    def place(address: int) -> int:
        for size, start, stored, offset in sections:
            if start <= address < start + max(size, stored):
                return address - start + offset
        raise ValueError(f"nothing lies at {address:#x}")

    directories = head + 24 + 112
    exported, _, imported = struct.unpack_from("<III", data, directories)
    exports: set[str] = set()
    if exported:
        names, list_at = struct.unpack_from("<I", data, place(exported) + 24)[0], place(exported) + 32
        pointers = struct.unpack_from(f"<{names}I", data, place(struct.unpack_from("<I", data, list_at)[0]))
        exports = {_text(data, place(pointer)) for pointer in pointers}
    needs = []
    at = place(imported) if imported else 0
    while at and (name := struct.unpack_from("<I", data, at + 12)[0]):
        needs.append(_text(data, place(name)))
        at += 20
    return Library("windows", machine, frozenset(exports), tuple(needs))


_READERS = {b"\x7fELF\x02\x01": _elf, b"\xcf\xfa\xed\xfe": _macho, b"MZ": _pe}
