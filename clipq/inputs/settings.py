"""Settings of preprocessing and tokenizers that came with a file: checked before anything is built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CheckpointError, unknown_name

_MAX_PIXELS = 1 << 13  # a side; the largest models of this kind take 1024
_EDGES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What open_clip's settings, and transformers' of CLIP, mean where they name none."""
Check = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and what is, in words."""


def is_number(value: Any) -> bool:
    """Whether it is a number of a usual size, and no bool."""
    return type(value) in (int, float) and abs(value) < 1e30  # so is not a NaN


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_PIXELS


def _all(value: Any, counts: tuple[int, ...], check: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) in counts and all(map(check, value))


def _is_size(value: Any) -> bool:
    return _is_side(value) or _all(value, (1, 2), _is_side)


def _is_shape(value: Any) -> bool:
    return _is_side(value) or _all(value, (2, 3), _is_side)


def _is_size_or_edges(value: Any) -> bool:
    if isinstance(value, Mapping):
        sides = {k: v for k, v in value.items() if v is not None}
        return bool(sides) and set(sides) <= set(_EDGES) and all(map(_is_side, sides.values()))
    return value is None or _is_size(value)


def _is_color(value: Any) -> bool:
    byte = lambda one: type(one) is int and 0 <= one <= 255  # noqa: E731
    return byte(value) or _all(value, (3,), byte)


def one_of(*allowed: Any) -> Check:
    """The check for one of these values."""
    return lambda value: any(type(value) is type(one) and value == one for one in allowed), f"one of {list(allowed)}"


_SIDES = f"whole numbers from 1 to {_MAX_PIXELS}"
_MEAN: Check = (lambda value: is_number(value) or _all(value, (3,), is_number), "a number, or three")
_STD: Check = (
    lambda value: _MEAN[0](value) and all(one > 0 for one in (value if isinstance(value, list | tuple) else [value])),
    "a number above zero, or three",
)
_FLAG: Check = (lambda value: type(value) in (bool, type(None)), "true or false")
_RATIO: Check = (lambda value: value is None or (is_number(value) and 0 < value <= 4), "a number above 0, up to 4")
_SIZE: Check = (_is_size_or_edges, f"{_SIDES}, or a table of {', '.join(_EDGES)}")


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check[0](value), check[1]


PREPROCESSING: Mapping[str, Mapping[str, Check]] = {
    "open_clip": {
        "size": (_is_size, f"one or two {_SIDES}"),
        "mode": one_of("RGB"),
        "mean": _MEAN,
        "std": _STD,
        "interpolation": one_of("bicubic", "bilinear", "random"),
        "resize_mode": one_of("shortest", "longest", "squash"),
        "fill_color": (_is_color, "0 to 255, or three of it"),
    },
    "timm": {
        "input_size": (_is_shape, f"one to three {_SIDES}"),
        "mean": _MEAN,
        "std": _STD,
        "interpolation": one_of("bicubic", "bilinear", "nearest", "lanczos", "hamming", "box", "random"),
        "crop_pct": _RATIO,
        "crop_mode": one_of("center", "squash", "border", None),
    },
    "transformers": {
        "size": _SIZE,
        "crop_size": _SIZE,
        "pad_size": _SIZE,
        "image_mean": _or_none(_MEAN),
        "image_std": _or_none(_STD),
        "resample": (lambda value: value is None or (type(value) is int and 0 <= value <= 5), "0 to 5"),
        "rescale_factor": _or_none((is_number, "a number")),
        **{f"do_{what}": _FLAG for what in ("resize", "rescale", "normalize", "center_crop", "convert_rgb", "pad")},
    },
}
"""What the settings of each kind may be; keys that do not stand here are the library's own business."""

_CLEAN = ("lower", "canonicalize", "whitespace")
_LENGTH: Check = (lambda value: type(value) is int and 0 < value <= 1 << 20, "a whole number above 0; 77 is usual")
TOKENIZERS: Mapping[str, Mapping[str, Check]] = {
    "open_clip": {
        "context_length": _LENGTH,
        "clean": one_of(*_CLEAN, None),
        "reduction_mask": one_of("", "simple", "random", "shuffle", "syntax", None),
    },
    "transformers": {
        "context_length": _LENGTH,
        "clean": one_of(*_CLEAN, None),
        "strip_sep_token": one_of(True, False),
        "tokenizer_mode": one_of("", "clips", None),
    },
}
"""As `PREPROCESSING`; other keys are not allowed."""


def check_settings(settings: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Check]], what: str) -> None:
    """Raise `UnknownNameError` for a kind, `CheckpointError` for a value, that `kinds` does not allow."""
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown_name(what, kind, kinds)
    for key, (allowed, words) in kinds[kind].items():
        if key in settings and not allowed(settings[key]):
            raise CheckpointError(f"{what} of kind {kind!r}: {key} is {settings[key]!r}; allowed: {words}.")
