"""Make eval/data/photos.parquet and its card from scripts/building/photos.toml.

    python scripts/building/photos.py                   # fetches the packages with apt-get and pip (95 MB, a minute)
    python scripts/building/photos.py --cache FOLDER    # packages that lie in FOLDER are not fetched again

Needs `apt-get` and `dpkg-deb`; where apt knows no Debian, put the .deb files that photos.toml names into FOLDER first.
Every original is compared with its sha256 before it is used.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

from package_files import file_in, unpacked
from PIL import Image, ImageOps

from clipq.errors import DataError
from clipq.resources import atomic_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".toml")
DATA = ROOT / "eval" / "data"

LICENCES = {
    "public domain": "public domain",
    "CC0-1.0": "[CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/)",
    "CC-BY-2.0": "[CC-BY-2.0](https://creativecommons.org/licenses/by/2.0/)",
    "CC-BY-3.0": "[CC-BY-3.0](https://creativecommons.org/licenses/by/3.0/)",
    "CC-BY-4.0": "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)",
}
"""Only these may ship; each as the card shows it."""

SHORT_SIDE, ASPECT, MAX_BYTES = 256, 1.5, 40_000

HEAD = """\
# The photos of the task `photos`

{n} photos, one a class, each with the one of ImageNet's 1,000 class names (open_clip's) that it shows. They
demonstrate; they are far too few to measure anything. None is from ImageNet. They were chosen by licence and by how
clearly they show their class, before any model saw them.

Changes: each was cropped to at most 3:2, reduced to a short side of at most {side} pixels and saved as JPEG without
metadata; those of gcompris-qt-data had been cropped, reduced or sharpened before.

The licence of each picture is stated where the last column says, and was read there; the files came from the packages
in the column before it. (The copyright file of Debian's gcompris-qt-data describes older pictures; GCompris's lists,
named here, are of those that the package holds.) The pictures keep their own licences, which are not clipq's.
`scripts/building/photos.py` makes them again.

| picture | class | index | author | licence | origin | package | licence stated in |
|---|---|---|---|---|---|---|---|
"""


def photo(original: bytes, crop: tuple[int, int, int, int] | None = None) -> Image.Image:
    """The picture that ships: RGB on white, `crop` (left, top, right, bottom) or the centre at 3:2 at most, reduced."""
    image = Image.open(io.BytesIO(original))
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    if crop:
        image = image.crop(crop)
    width, height = image.size
    width, height = min(width, round(height * ASPECT)), min(height, round(width * ASPECT))
    scale = min(1.0, SHORT_SIDE / min(width, height))  # never enlarged
    return ImageOps.fit(image, (round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> bytes:
    """JPEG of the highest quality, 90 at most, that stays under `MAX_BYTES`."""
    for quality in range(90, 40, -5):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise DataError(f"a picture of {image.size} does not fit into {MAX_BYTES} bytes")


def original(entry: Mapping, packages: Mapping, cache: Path) -> bytes:
    """The bytes of a photo as its package has it; `DataError` if they are not those that the table was written for."""
    name = entry["package"]
    data = file_in(unpacked(name, packages[name], cache), entry["file"])
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        wanted = f"{entry['sha256']} of version {packages[name]['version']}"
        raise DataError(f"{entry['file']} of {name} has the sha256 {found}, not {wanted}")
    return data


def checked(table: Mapping, names: list[str]) -> list[Mapping]:
    """The photos of the table, ordered by class; `DataError` for a licence or a class that may not be there."""
    for entry in table["photos"]:
        if entry["licence"] not in LICENCES:
            raise DataError(f"{entry['name']} has the licence {entry['licence']!r}; allowed are {', '.join(LICENCES)}")
        if names.count(entry["class"]) != 1:
            raise DataError(f"{entry['name']} has the class {entry['class']!r}, which is not one name of ImageNet's")
    return sorted(table["photos"], key=lambda entry: names.index(entry["class"]))


def write_parquet(path: Path, pictures: list[tuple[str, bytes, int]]) -> None:
    """Names, JPEG bytes and class indices, laid out as Hugging Face data sets lay out images."""
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    images = pyarrow.array([{"bytes": data, "path": f"{name}.jpg"} for name, data, _ in pictures], kind)
    labels = pyarrow.array([label for *_, label in pictures], pyarrow.int64())
    with atomic_path(path) as part:
        parquet.write_table(pyarrow.table({"image": images, "label": labels}), part, compression="none")


def card(photos: list[Mapping], table: Mapping, names: list[str]) -> str:
    """The markdown that says of every picture what it is, whose it is and who says so."""
    text = HEAD.format(n=len(photos), side=SHORT_SIDE)
    for entry in photos:
        package = table["packages"][entry["package"]]
        place = f"Debian {package['suite']}" if package["kind"] == "deb" else "PyPI"
        stated = table["statements"][entry["stated"]].replace("PACKAGE", entry["package"])
        stated = f"[{stated.partition('src/activities/')[2]}]({stated})" if stated.startswith("https:") else stated
        index, licence = names.index(entry["class"]), LICENCES[entry["licence"]]
        origin = f"[{entry['link'].split('/')[2]}](<{entry['link']}>)"
        text += f"| {entry['name']}.jpg | {entry['class']} | {index} | {entry['author']} | {licence} | {origin} "
        text += f"| {entry['package']} {package['version']} ({place}) | {stated} |\n"
    return text


def main() -> None:
    from open_clip import IMAGENET_CLASSNAMES

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "photos", help="folder of the fetched packages")
    cache, names = parser.parse_args().cache.resolve(), list(IMAGENET_CLASSNAMES)
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    photos = checked(table, names)
    pictures = []
    for entry in photos:
        image = photo(original(entry, table["packages"], cache), entry.get("crop"))
        pictures.append((entry["name"], jpeg(image), names.index(entry["class"])))
    write_parquet(DATA / "photos.parquet", pictures)
    with atomic_path(DATA / "photos.md") as part:
        part.write_text(card(photos, table, names), encoding="utf-8")
    print(f"{len(pictures)} photos, {sum(len(data) for _, data, _ in pictures)} bytes")


if __name__ == "__main__":
    main()
