"""Packages that exports need and clipq does not: imported when used, and named with the command that installs them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from ..errors import MissingPackageError


def needed(names: Iterable[str], extra: str, what: str) -> None:
    """Import the modules called `names`. Raises `MissingPackageError` with the command that installs them."""
    for name in names:
        package(name, extra, what)


def package(name: str, extra: str, what: str) -> Any:
    """The module called `name`, as `needed`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs the package {name} ({error}); install it with: pip install 'clipq[{extra}]'"
        ) from error


def version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
