"""A folder that a job's workers write into: on a file system that all of them see, or a URL that fsspec opens."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..inputs.places import file_system, is_remote
from ..resources import output_path, unwritten


@dataclass(frozen=True)
class Store:
    """The files of one folder, by name. A file is there whole or not at all (an object store puts it at once)."""

    place: str

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> Store:
        """The folder, made if need be. Raises `OutputError` where it cannot be."""
        if is_remote(place):
            system, path = file_system(str(place))
            with suppress(Exception):  # object stores have no folders
                system.makedirs(path, exist_ok=True)
            return cls(str(place).rstrip("/"))
        folder = Path(place).absolute()
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"cannot write into {folder}: that is no folder. Give the name of one, or of none yet.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritten(folder, error) from error
        return cls(str(folder))

    def names(self) -> list[str]:
        """Of all files, sorted."""
        if not is_remote(self.place):
            return sorted(one.name for one in Path(self.place).iterdir() if one.is_file())
        system, path = file_system(self.place)
        system.invalidate_cache()
        found = system.ls(path, detail=False) if system.exists(path) else []
        return sorted(one.rstrip("/").rpartition("/")[2] for one in found)

    def read(self, name: str) -> bytes:
        if not is_remote(self.place):
            return Path(self.place, name).read_bytes()
        system, path = file_system(self.place)
        return system.cat_file(f"{path}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Raises `OutputError`."""
        if not is_remote(self.place):
            with output_path(Path(self.place, name)) as temporary:
                temporary.write_bytes(content)
            return
        system, path = file_system(self.place)
        try:
            system.pipe_file(f"{path}/{name}", content)
        except Exception as error:  # the border to file systems of every kind
            raise unwritten(f"{self.place}/{name}", error) from error

    def remove(self, name: str) -> None:
        if not is_remote(self.place):
            Path(self.place, name).unlink(missing_ok=True)
            return
        system, path = file_system(self.place)
        with suppress(FileNotFoundError):
            system.rm_file(f"{path}/{name}")
