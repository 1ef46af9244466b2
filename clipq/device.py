"""The device a model is asked to run on: whether there is such a thing, and whether this machine has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ClipqError, unknown_name

if TYPE_CHECKING:
    import torch

_KINDS = ("cpu", "cuda", "mps", "xpu")


def usable_device(device: str | torch.device) -> torch.device:
    """The device that `device` names ("cpu", "cuda", "cuda:1", ...), if a tensor can be put there.

    Raises `UnknownNameError` if torch knows no such device, `ClipqError` if this machine has none.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise unknown_name("device", device, _KINDS, "A number may follow, as in cuda:1.") from error
    if found.type == "meta":
        raise ClipqError("device='meta' holds no numbers, so nothing can run there; give cpu or a GPU.")
    try:
        torch.zeros(1, device=found)
    except Exception as error:  # torch raises AssertionError, RuntimeError, NotImplementedError, AcceleratorError
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise ClipqError(
            f"device={str(device)!r} cannot be used here: {reason}. This machine has: {_here()}."
        ) from error
    return found


def _here() -> str:
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ", ".join(["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])])
