"""`clipq info`: this machine, what a clipq file says about itself, or what the zoo knows of a model."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import machine
from ..errors import DataError, unknown_name
from . import show

if TYPE_CHECKING:
    import torch

    from ..files.header import Header
    from ..loading.worth import TowerWorth, Worth
    from ..zoo.registry import Artefact, Entry

FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "asimdhp", "sve",
)  # fmt: skip
"""Instruction sets that decide how fast int8 and half precision are, under the names that Linux gives them."""


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "info",
        help="this machine, a clipq file, or a model of the zoo",
        description="Without FILE: the processor's features, the kernels that will run here and why, versions, and "
        "whether int8 is worth it here, by a measurement of about two seconds. "
        "With FILE: what the header of a clipq file or folder says; its weights are not read. "
        "With the name of a zoo model: its licence, its files, their sizes, and where they come from.",
    )
    help = "a clipq .safetensors file, or its folder, or a zoo name (see `clipq list`)"
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help=help)
    parser.add_argument("--no-measure", action="store_true", help="skip the measurement of fp32, bf16 and int8")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = _about(args.file) if args.file else about_machine()
    worth = [] if args.file or args.no_measure else _measured()
    if args.json:
        show.as_json(found | ({"worth": [one.to_dict() for one in worth]} if worth else {}))
        return 0
    shown = {name: _UNITS.get(name, _as_is)(value) for name, value in found.items() if value not in (None, "", {}, [])}
    show.facts((name, _in_words(value)) for name, value in shown.items())
    for one in worth:
        _print_worth(one)
    return 0


def _about(file: Path) -> dict[str, Any]:
    """What is there is a file; what is not may be a name."""
    from ..zoo import registry

    name = file.as_posix()
    if not file.exists() and registry.is_known(name):
        return about_entry(registry.find(name))
    if not file.exists() and not file.suffix:
        hint = "Or give the path of a clipq file or folder."
        raise unknown_name("file or model", name, registry.list_models(), hint)
    return about_embeddings(file) if _is_output(file) else about_file(file)


def _is_output(file: Path) -> bool:
    """Whether it is a file or a folder that `clipq embed` wrote; of two kinds of .safetensors, what it says decides."""
    from ..matrices.files import FORMATS, about_file
    from ..matrices.folders import MANIFEST

    if file.suffix != ".safetensors" or not file.is_file():
        return (file / MANIFEST).is_file() or (file.is_file() and file.suffix in FORMATS)
    try:
        about_file(file)
    except DataError:
        return False
    return True


def about_entry(entry: Entry) -> dict[str, Any]:
    """What the zoo knows of a model; nothing is fetched."""
    return {
        "name": entry.name,
        "also": [name for name in entry.names if name != entry.name],
        "licence": entry.licence,
        "base weights": entry.base or "clipq's own training",
        "quick GELU": entry.quick_gelu,
        "published fp32 top-1": entry.top1,
        "files": {one.precision: _artefact(entry, one) for one in entry.artefacts},
    }


def _artefact(entry: Entry, file: Artefact) -> str:
    from ..zoo.registry import built_path

    size = show.size(file.size)
    if file.embedded:
        return f"{size}, ships with clipq"
    if file.published:
        return f"{size}, published: {file.repo}/{file.filename} at {file.revision[:12]}"
    built = built_path(entry, file.precision)
    if built.is_file():
        return f"{show.size(built.stat().st_size)}, not published; built on this machine: {built}"
    return "not published; built from the base weights on first use"


def about_machine() -> dict[str, Any]:
    """The processor, the kernels that int8 linears run on here (and why no other), threads, versions."""
    import torch

    from .. import kernels
    from ..native import library

    flags = machine.cpu_flags()
    paths = {f"kernel path on {device.type}": kernels.chosen(device) for device in _devices()}
    reasons = {f"kernels on {device.type}": kernels.why(device) for device in _devices()}
    return {
        "processor": machine.cpu_name(),
        "features": [name for name in FEATURES if name in flags],
        "cores": machine.cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **paths,
        **reasons,
        "native instruction set": library.best_path() if library.available() else None,
        "versions": machine.versions(),
    }


def _devices() -> list[torch.device]:
    import torch

    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def _measured() -> list[Worth]:
    from ..loading import worth

    return [worth.measure(device) for device in _devices()]


def _print_worth(found: Worth) -> None:
    """The times of each precision and tower (median, middle half of the samples), and what follows from them."""
    columns = [cell for one in found.towers for cell in (f">{one.tower} ms, batch {one.batch_size}", ">x fp32")]
    rows = [
        [precision, *(cell for one in found.towers for cell in _cells(one, precision))]
        for precision in (timing.precision for timing in found.towers[0].timings)
    ]
    threads = f", {found.threads} thread{'s' if found.threads > 1 else ''}" if found.device == "cpu" else ""
    print()
    show.table(["precision", *columns], rows, f"two layers of a ViT-B/32 on {found.device}{threads}; *: the best")
    print(found.advice)


def _cells(tower: TowerWorth, precision: str) -> tuple[str, str]:
    timing = tower.timing(precision)
    measured = "-" if timing.ms is None else f"{timing.ms:.2f} ({timing.low:.2f}-{timing.high:.2f})"
    return measured, f"{timing.speed:.2f} {'*' if precision == tower.choice else ' '}"


def about_file(path: Path) -> dict[str, Any]:
    """What the header of a clipq file or folder says; no tensor is read, no torch imported."""
    from ..files.header import DATA_HASH_KEY, read_header

    header = read_header(path)
    config, recipe = header.config, header.config["recipe"]
    return {
        "file": str(header.path),
        "size": header.size,
        "parameters": _parameters(header),
        "precision": {tower: scheme["name"] for tower, scheme in recipe["towers"].items()},
        "fallback": {tower: scheme["fallback"] for tower, scheme in recipe["towers"].items()},
        "bytes per dtype": _bytes_per_dtype(header),
        "quantized modules": dict(Counter(recipe["modules"].values())),
        "host": config["host"],
        "source": config["source"],
        "preprocessing": config["preprocessing"],
        "vector spaces": _spaces(header),
        "measured": config.get("results"),
        "written by": f"clipq {config.get('clipq')}",
        "sha256 of the tensors": header.metadata[DATA_HASH_KEY],
    }


def _parameters(header: Header) -> int:
    """Values of all tensors but the scales and zero points that quantization added, and the packed tokenizer."""
    if type(stated := header.config.get("parameters")) is int:  # several share a byte
        return stated
    added = ("weight_scale", "weight_zero_point", "input_scale", "input_zero_point", "clipq.tokenizer")
    return sum(prod(tensor["shape"]) for name, tensor in header.tensors.items() if not name.endswith(added))


def _spaces(header: Header) -> dict[str, str] | None:
    """The id of each tower's space, where the file says it (clipq.space_of(FILE) hashes the others)."""
    from ..files.spaces import stated_spaces

    return {tower: space.id for tower, space in stated_spaces(header).items()} or None


def about_embeddings(path: Path) -> dict[str, Any]:
    """What `clipq embed` says of its file or folder of shards, but for the rows."""
    from ..matrices import read_about

    about = read_about(path)
    space = about.get("space") or {}
    known = {
        "embeddings": str(path),
        "model": about.get("name"),
        "precision": about.get("precision"),
        **{key: about.get(key) for key in ("tower", "normalized", "decode", "dtype", "width", "rows", "broken")},
        "shards": len(about["shards"]) if "shards" in about else None,
        "ranges": about.get("ranges"),
        "vector space": about.get("space_id"),
        "made of": {key: value for key, value in space.items() if key not in ("tower", "normalized", "decode")},
        "source": about.get("source"),
        "written by": f"clipq {about.get('clipq_version')}",
    }
    return known if space else {**known, "vector space": "not stated: written by clipq before 0.8"}


def _bytes_per_dtype(header: Header) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        begin, end = tensor["data_offsets"]
        sizes[tensor["dtype"]] += end - begin
    return dict(sizes.most_common())


def _as_is(value: object) -> object:
    return value


def _sizes(bytes_per_dtype: dict[str, int]) -> dict[str, str]:
    return {dtype: show.size(count) for dtype, count in bytes_per_dtype.items()}


_UNITS = {"size": show.size, "parameters": show.number, "bytes per dtype": _sizes}
"""What people read in place of plain numbers."""


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(
            f"{name}: {one if isinstance(one, str) else json.dumps(one)}"
            for name, one in value.items()
            if one is not None
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
