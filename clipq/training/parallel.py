"""Several processes that train one student: the mean of their gradients, and all their embeddings for some losses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..work.processes import Processes


def own_device(processes: Processes, device: torch.device) -> torch.device:
    """The device of this process: `device`, or where several were launched on GPUs, the one that is this one's."""
    if processes.count == 1 or device.type == "cpu":
        return device
    from accelerate import PartialState

    return PartialState().device


def average_gradients(parameters: Iterable[Tensor], processes: Processes) -> None:
    """Put the mean over all processes in the place of each gradient; a missing one counts as zero."""
    if processes.count == 1:
        return
    from accelerate.utils import reduce

    ones = list(parameters)
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in ones]
    mean = reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="mean")
    for one, part in zip(ones, mean.split([one.numel() for one in ones]), strict=True):
        one.grad = part.view_as(one)


def of_all(rows: Tensor, processes: Processes) -> Tensor:
    """The rows of all processes, in order. The gradient comes back to this one's from the losses of all."""
    if processes.count == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows.contiguous()))
