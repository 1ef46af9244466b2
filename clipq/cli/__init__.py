"""The `clipq` command: one file a subcommand, each importing what is heavy only once it runs.

Nothing here computes: it reads arguments, calls what the library has for everybody, and shows the answer.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ClipqError, ClipqWarning
from ..version import VERSION
from . import bench, demo, drift, embed, evaluate, export, finetune, info, list_models, quantize, sensitivity

COMMANDS = (list_models, info, quantize, finetune, sensitivity, evaluate, bench, embed, drift, export, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 1 for a failure. Wrong usage leaves with SystemExit(2)."""
    args = build_parser().parse_args(argv)
    with _one_line_warnings(), _one_line_of_retries():
        try:
            code = args.run(args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # `clipq list | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ClipqError, OSError) as error:
            print(f"clipq: error: {one_line(str(error))}", file=sys.stderr)
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
                print(f"clipq: warning: {one_line(str(message))}", file=file or sys.stderr)
            else:
                plain(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


_OPTIONS = (
    "autocast|baseline|batch_size|batch_sizes|cache_dir|candidates|data|device|every|fallback|limit|lr|max_drop|max_ms|"
    "max_size|mode|precision|pretrained|resume|runs|seed|steps|threads"
)


def one_line(text: str) -> str:
    """A message in one line, which names options as they are typed: "--data FOLDER", where Python has "data=FOLDER".

    Quoted reasons may have brought full stops of their own: no ".." ends a sentence.
    """
    text = re.sub(rf"(?<![^\s(])({_OPTIONS})=(?:'([^'\s]*)')?", _as_typed, text)
    return re.sub(r"(?<![./\\])\.\.(?=\s|$)", ".", " ".join(text.split()))


def _as_typed(argument: re.Match[str]) -> str:
    name, quoted = argument.groups()
    return f"--{name.replace('_', '-')} {quoted or ''}"


class _FirstRetry(logging.Filter):
    """Lets one line through of the two that huggingface_hub logs for every time that it tries again."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if " thrown while requesting " not in text:
            return not text.startswith("Retrying in ")
        said, self.said = self.said, True
        record.msg, record.args = "clipq: %s; trying again for half a minute", (text,)
        return not said


@contextmanager
def _one_line_of_retries() -> Iterator[None]:
    logger, first = logging.getLogger("huggingface_hub.utils._http"), _FirstRetry()
    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)
