"""Images in webdataset tars, read in place: members are found once and read by their offset, nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClipqError, DataError
from .images import MAX_BYTES, Images, is_image
from .places import forget, names_of, open_place, read_part, size_of

_MAX_LABEL_BYTES = 32  # "12345\n" and room to spare


@dataclass(frozen=True)
class MemberEntry:
    """An image inside an uncompressed tar."""

    archive: Path | str
    key: str
    label: int
    size: int
    offset: int

    def read(self) -> bytes:
        """Raises `SourceError` where the tar itself cannot be read."""
        return read_part(self.archive, self.offset, self.size)


@dataclass
class _Sample:
    """The members that share a key: `a/b.jpg` and `a/b.cls` are the sample `a/b`."""

    image: tarfile.TarInfo | None = None
    label: tarfile.TarInfo | None = None


def tar_images(archives: Sequence[Path], classes: Sequence[str], origin: str) -> Images:
    """The samples of webdataset tars: an image and a `.cls` (the class index in digits) under one name each.

    Raises `DataError` naming the tar and the member: no tar, a compressed, truncated or hostile one, an image
    without `.cls`, a label that is not a whole number or is out of range, a member above 64 MiB.
    """
    entries = tuple(entry for archive in archives for entry in _archive(archive, len(classes)))
    if not entries:
        raise DataError(f"{origin} holds no images; a webdataset tar has pairs of an image and a .cls")
    return Images(entries, origin, "webdataset", tuple(classes))


def tar_members(archives: Sequence[str]) -> tuple[MemberEntry, ...]:
    """The images of webdataset tars, by path or URL, in order; labels and all else that a sample has are left out.

    Raises `DataError` as `tar_images`, but not for a sample without a label.
    """
    return tuple(
        _picture(archive, name, sample.image)
        for archive, name in zip(archives, names_of(archives), strict=True)
        for sample in _read(archive).values()
        if sample.image
    )


def _picture(archive: str, name: str, member: tarfile.TarInfo) -> MemberEntry:
    return MemberEntry(archive, f"{name}/{member.name}", 0, member.size, member.offset_data)


def _archive(archive: Path, classes: int) -> list[MemberEntry]:
    return [_entry(archive, key, sample, classes) for key, sample in _read(archive).items()]


def _read(archive: Path | str) -> dict[str, _Sample]:
    forget(archive)
    try:
        with open_place(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return _samples(tar, archive, size_of(archive))
    except ClipqError:
        raise
    except Exception as error:  # tarfile meets hostile headers with errors of every kind, a RecursionError among them
        raise DataError(f"cannot read {archive} as an uncompressed tar: {error}; fetch or unpack it again") from error


def _samples(tar: tarfile.TarFile, archive: Path | str, end: int) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for member in tar:
        if member.isdir():
            continue
        _check_member(member, archive, end)
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if not stem:  # hidden, as ".jpg" and the "._a.jpg" of macOS are: left out, as in folders
            continue
        sample = samples.setdefault(folder + slash + stem, _Sample())
        if extension.lower() == "cls":
            sample.label = _once(sample.label, member, archive)
        elif is_image(f"a.{extension}"):
            sample.image = _once(sample.image, member, archive)
    return {key: sample for key, sample in samples.items() if sample.image or sample.label}


def _check_member(member: tarfile.TarInfo, archive: Path | str, end: int) -> None:
    name = f"member {member.name!r} of {archive}"
    if not member.name.rpartition("/")[2]:
        raise DataError(f"{name} has no name; pack the tar again")
    if not member.isreg() or member.issparse():
        raise DataError(f"{name} is a link, a device or sparse; only plain files and folders are read")
    if member.size > MAX_BYTES:
        raise DataError(f"{name} claims {member.size} bytes; at most {MAX_BYTES} are read")
    if member.offset_data + member.size > end:
        raise DataError(f"{name} is cut off: the tar is shorter than it says; fetch it again")


def _once(before: tarfile.TarInfo | None, member: tarfile.TarInfo, archive: Path | str) -> tarfile.TarInfo:
    if before is not None:
        raise DataError(f"{archive} has two members for one sample: {before.name!r} and {member.name!r}; keep one")
    return member


def _entry(archive: Path, key: str, sample: _Sample, classes: int) -> MemberEntry:
    if sample.label is None:
        raise DataError(f"{archive}: {sample.image.name!r} has no label; a member {key + '.cls'!r} must hold it")
    if sample.image is None:
        raise DataError(f"{archive}: {sample.label.name!r} has no image under the same name (.jpg, .png, .webp, ...)")
    label = _label(archive, sample.label, classes)
    member = sample.image
    return MemberEntry(archive, f"{archive.name}/{member.name}", label, member.size, member.offset_data)


def _label(archive: Path, member: tarfile.TarInfo, classes: int) -> int:
    content = MemberEntry(archive, member.name, 0, min(member.size, _MAX_LABEL_BYTES), member.offset_data).read()
    text = content.decode("ascii", "replace").strip()
    allowed = f"a whole number from 0 to {classes - 1}"
    if not text.isascii() or not text.isdigit():
        raise DataError(f"{member.name!r} of {archive} holds {text!r}; a .cls holds the class index, {allowed}")
    if int(text) >= classes:
        raise DataError(f"{member.name!r} of {archive} says class {text}, which is out of range: {allowed}")
    return int(text)
