"""A run: steps of a student towards its teacher, looked at now and then, kept so that it can be resumed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import QuantizationError
from ..models import Model
from ..work.progress import span
from .batches import Batches
from .checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from .losses import ACROSS, LOSSES
from .optimizing import optimizer_of, restore, set_rates, state_of
from .options import Drift, Options
from .parallel import average_gradients, of_all
from .students import Student

_PART = 32  # held-out inputs embedded at a time
_BEST = "best/"  # before the names of the best parameters in a checkpoint
_SCALE = 100.0  # of similarities, where a model has no factor of its own: where CLIP clips it
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Run:
    """`steps` steps of `student` towards `teacher`. `folder`: where checkpoints are kept, or None."""

    teacher: Model
    student: Student
    batches: Batches
    steps: int
    rate: float
    options: Options
    folder: Path | None
    done: int = 0
    seen: list[Drift] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = next(self.student.module.parameters()).device
        self.parameters: dict[str, nn.Parameter] = self.student.parameters()
        self.optimizer = optimizer_of(self.parameters, self.rate)
        scaled = self.options.autocast == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled, init_scale=2.0**14)
        own = getattr(self.teacher.module, "logit_scale", None)
        self.scale = _SCALE if own is None else float(own.detach().exp())

    def train(self) -> None:
        """From the newest checkpoint, or the beginning, to the end; then the parameters are those of the least drift.

        Raises `QuantizationError` where it diverges.
        """
        self._resume()
        begun, first = time.monotonic(), self.done
        with self.batches.reading(first, self.steps) as batches:
            for batch in batches:
                loss = self._step({tower: one.to(self.device) for tower, one in batch.items()})
                if self.done % self.options.every == 0 or self.done == self.steps:
                    self._look(loss, (time.monotonic() - begun) / (self.done - first))
                    self._keep()
        self._put(self.best)

    def _step(self, batch: Mapping[str, Tensor]) -> Tensor:
        set_rates(self.optimizer, self.done, self.steps)
        loss = self._loss(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        average_gradients(self.parameters.values(), self.batches.processes)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        return loss.detach()

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            wanted = {tower: _unit(self._teach(tower, one)) for tower, one in batch.items()}
        with self._autocast():
            found = {tower: self.student.encode(tower, one) for tower, one in batch.items()}
        found = {tower: _unit(one) for tower, one in found.items()}
        weights = {name: weight for name, weight in self.options.losses.items() if weight}
        everybody = self._of_all(found), self._of_all(wanted)
        parts = [
            weight * LOSSES[name](*(everybody if name in ACROSS else (found, wanted)), self.scale)
            for name, weight in weights.items()
        ]
        return torch.stack(parts).sum()

    def _of_all(self, embedded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not any(self.options.losses.get(name) for name in ACROSS):
            return dict(embedded)
        return {tower: of_all(one, self.batches.processes) for tower, one in embedded.items()}

    def _teach(self, tower: str, batch: Tensor) -> Tensor:
        host = self.teacher.host
        encode = host.encode_image if tower == "image" else host.encode_text
        return encode(self.teacher.module, batch)

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.options.autocast)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @cached_property
    def _held_out(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each tower, what is held out, and the teacher's embeddings of it."""
        found = {}
        for tower in self.student.towers:
            inputs = self.batches.held_out(tower).to(self.device)
            with torch.no_grad():
                found[tower] = inputs, _unit(torch.cat([self._teach(tower, one) for one in inputs.split(_PART)]))
        return found

    @torch.no_grad()
    def drift(self) -> dict[str, float]:
        """For each tower the mean of 1 - cosine to the teacher on what is held out."""
        found = {}
        for tower, (inputs, wanted) in self._held_out.items():
            own = _unit(torch.cat([self.student.encode(tower, one) for one in inputs.split(_PART)]))
            found[tower] = float(1 - (own.double() * wanted.double()).sum(-1).mean())
        return found

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, one in self.parameters.items():
            one.copy_(tensors[name])

    def _look(self, loss: Tensor | None, seconds: float = 0.0) -> None:
        """See the drift, in every process: all keep the same best parameters."""
        now = Drift(self.done, None if loss is None else float(loss), self.drift())
        if not all(map(math.isfinite, now.drift.values())):
            raise QuantizationError(
                f"the training diverged: after {self.done} steps the embeddings are not finite. Give a smaller "
                f"lr than {self.rate:g}, or autocast='no'."
            )
        if all(sum(now.drift.values()) < sum(one.drift.values()) for one in self.seen):
            self.best = {name: one.detach().clone() for name, one in self.parameters.items()}
        self.seen.append(now)
        if self.batches.processes.is_main:
            self._say(now, seconds)

    def _say(self, now: Drift, seconds: float) -> None:
        if self.options.progress is not False:
            print(_line(now, self.seen[0], self.steps, seconds), file=sys.stderr, flush=True)
        if self.options.tell:
            self.options.tell(now)

    def _keep(self) -> None:
        if self.folder is None or not self.batches.processes.is_main:
            return
        tensors = {**self.parameters, **state_of(self.optimizer, self.parameters)}
        best = {f"{_BEST}{name}": one for name, one in self.best.items()}
        seen = [[one.step, one.loss, dict(one.drift)] for one in self.seen]
        values = {"scaler": self.scaler.state_dict(), "seen": seen}
        write_checkpoint(self.folder, Checkpoint(self.done, {**tensors, **best}, values))

    def _resume(self) -> None:
        shapes = {prefix + name: one.shape for name, one in self.parameters.items() for prefix in ("", _BEST)}
        kept = None if self.folder is None else newest_checkpoint(self.folder, shapes)
        if kept is None:
            self._look(None)
            return
        self._put(kept.tensors)
        self.best = {name: kept.tensors[f"{_BEST}{name}"] for name in self.parameters}
        restore(self.optimizer, self.parameters, kept.tensors)
        self.scaler.load_state_dict(kept.values["scaler"])
        self.seen = [Drift(*one) for one in kept.values["seen"]]
        self.done = kept.step


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """`module` with its dropout and the like switched off, and as it was afterwards."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.float(), dim=-1)


def _line(now: Drift, first: Drift, steps: int, seconds: float) -> str:
    drifts = ", ".join(f"{tower} drift {one:.2e}{_before(tower, now, first)}" for tower, one in now.drift.items())
    loss = "" if now.loss is None else f"loss {now.loss:.2e}, "
    left = f", about {span(seconds * (steps - now.step))} left" if 0 < now.step < steps else ""
    return f"clipq: finetune: step {now.step} of {steps}: {loss}{drifts}{left}"


def _before(tower: str, now: Drift, first: Drift) -> str:
    return f" ({first.drift[tower]:.2e} at the start)" if now.step != first.step else ""
