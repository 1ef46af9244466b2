"""Try the clipq-runtime (or clipq) that is installed beside this Python: its native library, then a model.

    python scripts/building/try_wheel.py [--model zoo/clipq-tiny/clipq-tiny-int8.safetensors] [--library-only]

To be run by a Python that has the wheel and what it depends on, and nothing else; it says what it found.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "zoo" / "clipq-tiny" / "clipq-tiny-int8.safetensors"
LIBRARY = "clipq.native.library"
HEAVY = ("torch", "torchvision", "open_clip", "transformers", "timm", "datasets", "huggingface_hub")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, metavar="FILE")
    parser.add_argument("--library-only", action="store_true", help="do not load a model")
    options = parser.parse_args()
    import clipq

    place = Path(clipq.__file__).resolve().parent
    if place.is_relative_to(ROOT / "clipq"):
        sys.exit(f"{place} is the checkout; install the wheel into a fresh environment, and run its Python")
    print(f"clipq {clipq.__version__} in {place}, Python {sys.version.split()[0]} on {sys.platform}")
    try_library()
    if not options.library_only:
        try_model(options.model)
    if not has("clipq"):
        try_refusal(clipq)
    heavy = sorted(set(HEAVY) & set(sys.modules))
    if heavy:
        sys.exit(f"{', '.join(heavy)} was imported; the runtime must do without")


def has(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def try_library() -> None:
    """A linear of whole numbers, on one thread and on four, on every instruction set: exact."""
    library = importlib.import_module(LIBRARY)
    native, generator = library.load(), np.random.default_rng(0)
    m, n, k = 96, 768, 512
    weight = generator.integers(-127, 128, (n, k), dtype=np.int8)
    x = generator.integers(-127, 128, (m, k)).astype(np.float32)
    right = x.astype(np.int64) @ weight.T.astype(np.int64)
    one = np.ones(n, dtype=np.float32)
    for name in library.supported_paths():
        path = library.PATHS.index(name)
        packed = np.empty(native.clipq_packed_size(path, n, k), dtype=np.uint8)
        library.check(native.clipq_pack(path, _at(weight), n, k, _at(packed)))
        for threads in (1, 4):
            y = np.empty((m, n), dtype=np.float32)
            sizes = (path, threads, _at(x), k, m, _at(packed), _at(one), None, _at(y), n, n, k)
            library.check(native.clipq_linear(*sizes, 1, 1.0, 0))
            if not np.array_equal(y.astype(np.int64), right):
                sys.exit(f"the native library computes wrong numbers on {name} with {threads} threads")
    print(f"native library: {', '.join(library.supported_paths())}; the best is {library.best_path()}")


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def try_model(file: Path) -> None:
    """Texts and pictures into one space, the same alone and in a batch."""
    model = importlib.import_module("clipq.runtime").load(file)
    texts = ["a photo of a cat", "Ein Haus \N{EM DASH} am Meer \N{WATER WAVE}", ""]
    pictures = [np.full((40, 60, 3), level, dtype=np.uint8) for level in (0, 90, 255)]
    pictures.append(np.random.default_rng(0).integers(0, 256, (333, 222, 3), dtype=np.uint8))
    widths = set()
    for encode, inputs in ((model.encode_text, texts), (model.encode_image, pictures)):
        together = np.asarray(encode(inputs))
        if together.shape[0] != len(inputs) or not np.isfinite(together).all():
            sys.exit(f"{encode.__name__} of {len(inputs)} inputs gave {together.shape}, or numbers that are not finite")
        alone = np.stack([np.asarray(encode([one]))[0] for one in inputs])
        worst = float((unit(together) * unit(alone)).sum(1).min())
        if worst < 0.9999:
            sys.exit(f"{encode.__name__} gives other embeddings in a batch: cosine {worst:.6f}")
        widths.add(together.shape[1])
    print(f"{file.name}: {len(texts)} texts and {len(pictures)} pictures, embeddings of {widths} numbers")
    if len(widths) != 1:
        sys.exit("texts and pictures have embeddings of different widths")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def try_refusal(clipq: ModuleType) -> None:
    """What only the whole package has says so."""
    try:
        sys.exit(f"{clipq.load} is there, in a wheel that cannot have it")
    except ImportError as error:
        if "pip install clipq" not in str(error):
            sys.exit(f"clipq.load does not say how to install the whole package: {error}")


if __name__ == "__main__":
    main()
