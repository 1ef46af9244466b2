"""The names of rows, for indexes that know only numbers: a file with a name a line, or JSON."""

from __future__ import annotations

import itertools
import json
import operator
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
    """As `names_for`, of the vectors that an index calls by these numbers.

    Where these are 0, 1, 2, ... a list has just as many names: one more, as of a headline, and all would be shifted.
    """
    source = Path(layout.names) if layout.names is not None else beside(path)[0]
    if not source.is_file():
        raise DataError(
            f"{path} does not say which picture or text a row is of, and there is no {source}: write there a name a "
            'line, in the order of the rows; of OLD, name another file, or JSON (a list, or {"number": "name"}), with '
            "--names."
        )
    named, is_list = _read(source)
    if is_list and len(named) != len(ids) and all(map(operator.eq, ids, itertools.count())):
        raise DataError(
            f"{source} has {len(named)} names and {path} {len(ids)} vectors; give a name for each and nothing else, no "
            "headline and no empty line at the end."
        )
    try:
        return tuple(named[number] for number in ids)
    except LookupError:
        missing = next(number for number in ids if number not in named)
        raise DataError(f"{source} has no name for {missing}, which is in {path}; {len(named)} are named.") from None


def _read(source: Path) -> tuple[Mapping[int, str], bool]:
    """The names by number, and whether the file is a list, which says no numbers."""
    try:
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}.") from error
    if source.suffix == ".json":
        return _numbered(source, text)
    return dict(enumerate(text.removesuffix("\n").split("\n"))), True


def _numbered(source: Path, text: str) -> tuple[dict[int, str], bool]:
    try:
        found: Any = json.loads(text)
        pairs = enumerate(found) if isinstance(found, list) else ((int(key), one) for key, one in found.items())
        named = dict(pairs)
        if not all(isinstance(name, str) for name in named.values()):
            raise ValueError("a name is no string")
    except (ValueError, AttributeError) as error:
        raise DataError(f'{source} is no JSON list of names, nor {{"number": "name"}}: {error}.') from error
    return named, isinstance(found, list)
