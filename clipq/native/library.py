"""Finds and loads the native library that is built from `csrc/`: plain C ABI, called through ctypes.

ctypes releases Python's lock, so calls from several Python threads run side by side. Where torch is loaded, its
threads are borrowed from torch's pool.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from ..errors import ClipqError, unknown_name

PATHS = ("portable", "avx2", "avx_vnni", "avx512_vnni", "neon_dotprod")
"""Every instruction set the library knows, in the order of `enum clipq_path` in csrc/clipq.h."""

_LIBRARY = Path(__file__).resolve().parent.parent / "_native.so"
_ABI = 5
MAX_INPUTS = 65793
"""The longest row whose sum of products of 8-bit numbers fits int32."""
BAD_SIZE = 2
"""The status of a call with a size or an index out of range."""
_INT, _LONG, _FLOAT, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_GRID = [_INT, _FLOAT, _INT]  # symmetric, input_scale, input_zero_point
_SIGNATURES = {
    "clipq_path": (_INT, []),
    "clipq_supports": (_INT, [_INT]),
    "clipq_packed_size": (ctypes.c_size_t, [_INT, _LONG, _LONG]),
    "clipq_pack": (_INT, [_INT, _POINTER, _LONG, _LONG, _POINTER]),
    "clipq_quantize_rows": (_INT, [_INT, _INT, _POINTER, _LONG, _LONG, _LONG, *_GRID, _POINTER, _POINTER, _POINTER]),
    "clipq_linear": (
        _INT,
        [_INT, _INT, _POINTER, _LONG, _LONG, *[_POINTER] * 4, _LONG, _LONG, _LONG, *_GRID],
    ),
    "clipq_gather_rows": (_INT, [_INT, _INT, _POINTER, _POINTER, _LONG, _LONG, _POINTER, _LONG, _POINTER]),
    "clipq_linear_step": (
        _INT,
        [_INT, _INT, _POINTER, _LONG, _LONG, *[_POINTER] * 4, _LONG, _LONG, _LONG, *_GRID, _INT, _INT, _POINTER],
    ),
    "clipq_cut_patches": (_INT, [_INT, _POINTER, *[_LONG] * 6, _POINTER]),
    "clipq_join_tokens": (
        _INT,
        [_INT, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, *[_POINTER] * 3, _FLOAT, _POINTER],
    ),
    "clipq_layer_norm": (_INT, [_INT, _POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _FLOAT, _POINTER]),
    "clipq_float_linear": (_INT, [_INT, _INT, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER]),
    "clipq_pool_attention": (_INT, [_INT, _INT, *[_POINTER] * 3, _LONG, _LONG, _LONG, _POINTER]),
    "clipq_preprocess": (_INT, [_INT, _POINTER, _LONG, _LONG, *[_POINTER] * 4]),
    "clipq_block_size": (ctypes.c_size_t, [_INT, _POINTER]),
    "clipq_pack_block": (_INT, [_INT, _POINTER, _POINTER]),
    "clipq_block_width": (_LONG, [_POINTER, ctypes.c_size_t]),
    "clipq_run_blocks": (
        _INT,
        [_INT, _POINTER, _LONG, _POINTER, _POINTER, _LONG, _INT, _POINTER, _LONG, _POINTER, _POINTER],
    ),
}
_FAILURES = {
    1: "the processor does not support this path",
    BAD_SIZE: "a size is out of range",
    3: "out of memory",
    4: "a block was packed by another build or for another path",
}


def available() -> bool:
    """Whether the library is there and loads."""
    return isinstance(_load(), ctypes.CDLL)


def why_not() -> str:
    """What keeps the library from running; empty if nothing does."""
    library = _load()
    return library if isinstance(library, str) else ""


def supported_paths() -> tuple[str, ...]:
    """The instruction sets that the library was built with and this processor has; empty without the library."""
    library = _load()
    if isinstance(library, str):
        return ()
    return tuple(name for path, name in enumerate(PATHS) if library.clipq_supports(path))


def best_path() -> str:
    """The instruction set that runs unless another is asked for. Raises `ClipqError` without the library."""
    return PATHS[load().clipq_path()]


@cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if not _LIBRARY.is_file():
        return "built without a C++ compiler; install g++ or clang++ and install clipq again"
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        abi = library.clipq_abi_version()
    except (OSError, AttributeError) as error:
        return f"{_LIBRARY.name} does not load ({error}); install clipq again"
    if abi != _ABI:
        return f"{_LIBRARY.name} is of another clipq version (ABI {abi}, not {_ABI}); install clipq again"
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def load() -> ctypes.CDLL:
    """The library. Raises `ClipqError` if it is not available."""
    library = _load()
    if isinstance(library, str):
        raise ClipqError(f"clipq's native library is not available: {library}.")
    return library


def resolved(path: str | None) -> str:
    """`path`, or the best one. Raises `UnknownNameError` for one that cannot run here."""
    if path is None:
        return best_path()
    if path not in supported_paths():
        raise unknown_name("native path", path, supported_paths(), "Those run on this processor.")
    return path


def check(status: int) -> None:
    """Raise what a call's status says."""
    if status == 3:
        raise MemoryError("clipq's native library ran out of memory")
    if status:
        raise ClipqError(f"clipq's native library refused a call: {_FAILURES.get(status, status)}.")
