"""The names of rows, for indexes that know only numbers: a file with a name a line, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..matrices.files import beside

if TYPE_CHECKING:
    from .layouts import Layout


def names_for(path: Path, layout: Layout, rows: int) -> tuple[str, ...]:
    """The names of rows 0 to `rows` - 1, of the file that `layout` names or `FILE.names.txt`. Raises `DataError`."""
    return names_of(path, layout, range(rows))


def names_of(path: Path, layout: Layout, ids: Sequence[int]) -> tuple[str, ...]:
    """As `names_for`, of the vectors that an index calls by these numbers."""
    source = Path(layout.names) if layout.names is not None else beside(path)[0]
    if not source.is_file():
        raise DataError(
            f"{path} does not say which picture or text a row is of, and there is no {source}: give a file with a name "
            'a line, in the order of the rows (or JSON: a list, or {"number": "name"}), with --names.'
        )
    named = _read(source)
    try:
        return tuple(named[number] for number in ids)
    except LookupError:
        missing = next(number for number in ids if number not in named)
        raise DataError(f"{source} has no name for {missing}, which is in {path}; {len(named)} are named.") from None


def _read(source: Path) -> Mapping[int, str]:
    try:
        text = source.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}.") from error
    if source.suffix == ".json":
        return _numbered(source, text)
    return dict(enumerate(text.removesuffix("\n").split("\n")))


def _numbered(source: Path, text: str) -> dict[int, str]:
    try:
        found: Any = json.loads(text)
        pairs = enumerate(found) if isinstance(found, list) else ((int(key), one) for key, one in found.items())
        named = dict(pairs)
        if not all(isinstance(name, str) for name in named.values()):
            raise ValueError("a name is no string")
    except (ValueError, AttributeError) as error:
        raise DataError(f'{source} is no JSON list of names, nor {{"number": "name"}}: {error}.') from error
    return named
