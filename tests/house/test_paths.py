"""Every file and folder that the documentation, a comment or a docstring names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    "hatch_build.py",
    "eval/README.md",
    "eval/SPEED.md",
    "eval/tasks/*.toml",
    "zoo/README.md",
    "zoo/cards/*.md",
    "csrc/**/*.*",
    "scripts/**/*.py",
    "clipq/**/*.py",
    "docs/**/*.md",
    "tests/conftest.py",
    "tests/helpers/*.py",
)
FILES = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
NAMED = re.compile(r"(?<![\w./-])(?:scripts|tests|csrc|clipq)/(?:[\w.-]+/)*(?:[\w-]+\.(?:py|h|cpp|md|toml))?")
"""A path of this repository: a file with an ending, or a folder with a slash at its end."""

PLACEHOLDER = re.compile(r"\bNAME\b|^clipq/data/")
"""What a reader is to fill in, and where the wheel carries what lies beside the package in a checkout."""


def missing_in(text: str) -> list[str]:
    named = {path for path in NAMED.findall(text) if not PLACEHOLDER.search(path)}
    return sorted(path for path in named if not (ROOT / path).exists())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_is_there(path):
    missing = missing_in(path.read_text(encoding="utf-8"))
    assert not missing, f"{path.relative_to(ROOT)} names {missing}; say where that is now"


def test_the_check_sees_what_is_missing_and_what_is_there():
    text = "`scripts/gone.py`, clipq/gone/, csrc/gone.h. See (tests/test_gone.py); not eval/gone.py, a/clipq/gone.py"
    assert missing_in(text) == ["clipq/gone/", "csrc/gone.h", "scripts/gone.py", "tests/test_gone.py"]
    assert missing_in("clipq/errors.py, clipq/hosts/NAME.py, clipq/data/zoo/, `tests/house/`, scripts/measuring/") == []
    assert {"README.md", "CONTRIBUTING.md", "csrc/gemm.h", "zoo/cards/clipq-tiny.md"} <= {
        path.relative_to(ROOT).as_posix() for path in FILES
    }
