"""Coverage-guided fuzzing of what reads foreign bytes: checkpoint headers, tars, parquet tables (pip install atheris).

    python scripts/building/fuzz_readers.py header CORPUS_FOLDER -max_total_time=60
    python scripts/building/fuzz_readers.py sealed -max_total_time=60     # a header with valid hashes around the bytes
    python scripts/building/fuzz_readers.py tar -max_total_time=60
    python scripts/building/fuzz_readers.py table -max_total_time=60
    python scripts/building/fuzz_readers.py rows -max_total_time=60     # tables and tars as clipq embed lists them

What is read or refused with a `ClipqError` is well; anything else stops the run, and libFuzzer keeps the input. Options
are libFuzzer's.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["clipq", "tarfile"]):
    from clipq.errors import ClipqError
    from clipq.files.header import CONFIG_KEY, DATA_HASH_KEY, HEADER_HASH_KEY, NO_HASH, VERSION_KEY, read_header, seal
    from clipq.inputs.archives import tar_images
    from clipq.inputs.listing import Inputs
    from clipq.inputs.tables import table_images

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
CONFIG = {"host": "timm", "config": {}, "preprocessing": {}, "recipe": {}, "source": {}, "tokenizer": None}


def header(data: bytes) -> None:
    read_header(_file("a.safetensors", data))


def sealed(data: bytes) -> None:
    """The bytes are the JSON of the tensors and of clipq's own part, behind a zero byte."""
    tensors, _, config = data.partition(b"\0")
    entries = _json(tensors)
    keys = {DATA_HASH_KEY: NO_HASH, HEADER_HASH_KEY: NO_HASH, VERSION_KEY: "1"}
    entries["__metadata__"] = {**keys, CONFIG_KEY: config.decode("utf-8", "replace") or json.dumps(CONFIG)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    path = _file("b.safetensors", len(text).to_bytes(8, "little") + text + bytes(64))
    seal(path)
    read_header(path)


def _json(text: bytes) -> dict:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, dict) else {"x": value}
    return {}


def tar(data: bytes) -> None:
    images = tar_images([_file("a.tar", data)], ["cat", "dog"], "a.tar")
    for entry in images.entries[:3]:
        entry.read()


def table(data: bytes) -> None:
    table_images([_file("a.parquet", data)], "image", "label", ["cat", "dog"], "a.parquet")


def rows(data: bytes) -> None:
    """A table or a tar as `clipq embed` lists it; what a row raises is the row's own."""
    for name in ("c.parquet", "c.tar"):
        with contextlib.suppress(ClipqError):
            found = Inputs.of(_file(name, data))
            for row in range(min(3, len(found.names))):
                with contextlib.suppress(OSError):
                    found.entry(row).read()


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


READERS: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "sealed": sealed,
    "tar": tar,
    "table": table,
    "rows": rows,
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"{__doc__}\nNAME is one of: {', '.join(READERS)}.")
    read = READERS[sys.argv.pop(1)]

    def once(data: bytes) -> None:
        with contextlib.suppress(ClipqError):
            read(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
