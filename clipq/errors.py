"""Every error a user can meet, each a subclass of `ClipqError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClipqError(Exception):
    """Base of all errors clipq raises on purpose; the message says what to do."""


class UnknownNameError(ClipqError, ValueError):
    """A name (model, precision, task, option) that does not exist."""


class SchemeError(ClipqError, ValueError):
    """A quantization scheme or setting that is contradictory or not supported."""


class QuantizationError(ClipqError, ValueError):
    """A tensor or a model that cannot be quantized (non-finite weights, nothing to quantize)."""


class BudgetError(ClipqError, ValueError):
    """A size, time or loss of accuracy that no choice of precisions keeps within; the message names the nearest."""


class CheckpointError(ClipqError, ValueError):
    """A checkpoint file that is truncated, tampered with, foreign, from the future or hostile."""


class DownloadError(ClipqError, OSError):
    """A file that could not be fetched, or arrived with the wrong contents."""


class DataError(ClipqError, ValueError):
    """An evaluation data set that is missing, empty or not laid out as expected."""


class SourceError(DataError):
    """A file of inputs that cannot be read where it could be before: no input is to blame, so none is left out."""


class ResultError(ClipqError, ValueError):
    """An evaluation result that cannot be read, resumed or compared."""


class OutputError(ClipqError, OSError):
    """A file that cannot be written: a full disk, a missing or read-only folder, something else in its place."""


class SpaceError(ClipqError, ValueError):
    """Vectors of two spaces that were to stand side by side; the message names what differs."""


class ExportError(ClipqError, RuntimeError):
    """A model that a runtime's format cannot express, or an export that gives other embeddings than the model."""


class EngineError(ClipqError, RuntimeError):
    """An engine (Ray, Daft, processes of this machine) that cannot start, or whose workers die again and again."""


class MissingPackageError(ClipqError, ImportError):
    """A package that an extra of clipq installs, and that is not there; the message has the command."""


class ClipqWarning(UserWarning):
    """Something works, but not as well as the user would expect."""


def first_line(error: Exception) -> str:
    """What an error of another library says, without what follows it; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def unknown_name(kind: str, value: object, allowed: Iterable[str], hint: str = "") -> UnknownNameError:
    """The error for `value` not being one of `allowed`: names the nearest match, the choices and what to do."""
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    nearest = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return UnknownNameError(f"unknown {kind} {value!r}.{nearest} Allowed: {shown}.{' ' + hint if hint else ''}")
