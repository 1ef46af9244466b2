"""The `clipq` command: one file a subcommand, each importing what is heavy only once it runs.

Nothing here computes: it reads arguments, calls what the library has for everybody, and shows the answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ClipqError, ClipqWarning
from ..version import VERSION
from . import bench, demo, embed, evaluate, info, list_models, quantize

COMMANDS = (list_models, info, quantize, evaluate, bench, embed, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 1 for a failure. Wrong usage leaves with SystemExit(2)."""
    args = build_parser().parse_args(argv)
    with _one_line_warnings():
        try:
            code = args.run(args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # `clipq list | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ClipqError, OSError) as error:
            print(f"clipq: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("clipq: interrupted", file=sys.stderr)
            return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; made without importing anything heavy."""
    parser = argparse.ArgumentParser(
        prog="clipq",
        description="CLIP models in int8: quantize, save, run, and measure what it cost.",
        epilog="`clipq COMMAND --help` shows a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"clipq {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print clipq's own warnings as `clipq: warning: ...`, without the file and line of the code that warned."""
    with warnings.catch_warnings():
        plain = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None):
            if issubclass(category, ClipqWarning):
                print(f"clipq: warning: {message}", file=file or sys.stderr)
            else:
                plain(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
