"""What the tests of the commands read: the tiny configuration, pictures' colours, a short measurement, an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from clipq.loading import worth

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (30, 60, 220)}


measure_quickly = partial(
    worth.measure,
    limit=0.02,
    sizes=worth.Sizes(1, 16, 32, 16, image_width=32, text_width=32, head_width=16, context_length=12, vocab_size=64),
)
"""The measurement of this machine, with tiny models."""


@contextmanager
def small_files_only(limit: int) -> Iterator[None]:
    """No file may have more than `limit` bytes: a write fails in the middle, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def error_of(capsys) -> str:
    """The one line that a failed command leaves on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clipq: error: ")
    return line
