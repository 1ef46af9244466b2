"""Images in folders: one folder per class (wnid, class index or class name), or any folder of pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import ClipqWarning, DataError, unknown_name
from .images import EXTENSIONS, FileEntry, Images, is_image


def pictures(folder: str | os.PathLike[str]) -> Images:
    """Every picture below `folder`, sorted by path, without labels (all 0). Raises `DataError` if there is none.

    What is named like a picture and is no plain file (a fifo, a device, a dangling link) is in the list: to read it
    fails with the reason. Links to folders are not followed; a folder that cannot be listed is a `ClipqWarning`.
    """
    root = _folder(folder)
    entries = tuple(_entry(path, root, 0) for path in _pictures_below(root))
    if not entries:
        raise _empty(root, "pictures")
    return Images(entries, str(folder), "pictures")


def has_pictures(folder: Path) -> bool:
    """Whether there is any picture below `folder`."""
    return any(_visible(name) for _, _, names in os.walk(folder) for name in names)


def class_folders(folder: Path, classes: Sequence[str], wnids: Sequence[str] = ()) -> Images:
    """The images of `folder/<class>/**`, labelled by the class folder; a subset of the classes is fine.

    wnids: if given, folders are named by these WordNet ids, in class order. Else by class name or by class index.
    classes: empty means that the folder names are the classes, underscores read as spaces.
    Raises `DataError` for a missing or empty folder and for a folder that is no class.
    """
    root = _folder(folder)
    found = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if not found:
        raise _empty(root, "class folders")
    names = tuple(classes) or tuple(one.name.replace("_", " ") for one in found)
    label_of = _by_wnid(root, wnids) if wnids else _by_name_or_index(root, names)
    entries = tuple(entry for one in found for entry in _class(root, one, label_of(one.name)))
    return Images(entries, str(folder), "wnid folders" if wnids else "class folders", names)


def _class(root: Path, folder: Path, label: int) -> list[FileEntry]:
    entries = [_entry(path, root, label) for path in _pictures_below(folder)]
    if not entries:
        raise _empty(folder, "pictures")
    return entries


def _entry(path: Path, root: Path, label: int) -> FileEntry:
    try:
        size = path.stat().st_size
    except OSError:  # a dangling link or a loop of links: the reader says so
        size = 0
    return FileEntry(path, path.relative_to(root).as_posix(), label, size)


def _pictures_below(folder: Path) -> list[Path]:
    walk = os.walk(folder, onerror=_left_out)
    return sorted(Path(base) / name for base, _, names in walk for name in names if _visible(name))


def _left_out(error: OSError) -> None:
    text = f"the folder {error.filename} cannot be read ({error.strerror}); what is in it is left out"
    warnings.warn(text, ClipqWarning, stacklevel=2)


def _visible(name: str) -> bool:
    return is_image(name) and not name.startswith(".")


def _by_wnid(root: Path, wnids: Sequence[str]) -> Callable[[str], int]:
    index = {wnid: label for label, wnid in enumerate(wnids)}

    def label_of(name: str) -> int:
        if name not in index:
            hint = f"Class folders of {root} are named by wnid; move others out of it (or give its val/ folder)."
            raise DataError(str(unknown_name("class folder", name, index, hint)))
        return index[name]

    return label_of


def _by_name_or_index(root: Path, names: Sequence[str]) -> Callable[[str], int]:
    index = {_plain(name): label for label, name in enumerate(names)}
    if len(index) != len(names):
        raise DataError(f"two class folders of {root} differ only in case, underscores or hyphens; rename one of them")

    def label_of(folder: str) -> int:
        if _plain(folder) in index:
            return index[_plain(folder)]
        if folder.isascii() and folder.isdigit():
            return _in_range(folder, len(names), root)
        hint = f"Folders of {root} are named by class, or by class index 0 to {len(names) - 1}."
        raise DataError(str(unknown_name("class folder", folder, names, hint)))

    return label_of


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _in_range(folder: str, classes: int, root: Path) -> int:
    if int(folder) >= classes:
        raise DataError(f"class folder {folder!r} of {root} is out of range: class indices go from 0 to {classes - 1}")
    return int(folder)


def _folder(folder: str | os.PathLike[str]) -> Path:
    root = Path(folder)
    try:
        with os.scandir(root):
            return root
    except FileNotFoundError as error:
        raise DataError(f"{root} does not exist; give the folder that holds the images") from error
    except NotADirectoryError as error:
        raise DataError(f"{root} is not a folder; give the folder that holds the images") from error
    except (OSError, ValueError) as error:
        raise DataError(f"the folder {root} cannot be read: {getattr(error, 'strerror', error)}") from error


def _empty(folder: Path, what: str) -> DataError:
    return DataError(f"{folder} holds no {what}; images end in {', '.join(sorted(EXTENSIONS))}")
