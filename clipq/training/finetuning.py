"""`finetune`: a quantized model that was trained, without labels, to embed as its float teacher does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..arithmetic.precisions import Precisions, per_tower
from ..arithmetic.schemes import Scheme
from ..errors import QuantizationError, unknown_name
from ..inputs.images import spread
from ..methods.quantization import refuse_quantized
from ..methods.steps import is_calibrated
from ..models import Model
from ..version import VERSION
from ..work.processes import launched
from .batches import Batches, Split
from .checkpoints import folder_of
from .losses import check_losses
from .options import Options, check_number
from .parallel import own_device
from .running import Run, in_evaluation
from .sources import Data, Source, sources_for
from .students import FULL, LIGHT, MODES, beginnings, make_student

RATES = {LIGHT: (3e-5, 5e-4), FULL: (3e-5, 1e-4)}
"""The learning rates of each mode where none is given, for 8 bits and for fewer: what drifted little is soon overshot.

See `clipq.training.optimizing.RATES` for what they are times.
"""

_CALIBRATION = 128  # inputs that a scheme's own steps are calibrated on, at most


def finetune(
    model: Model | nn.Module,
    precision: Precisions = "int8",
    data: Data = None,
    *,
    steps: int = 200,
    mode: str = LIGHT,
    lr: float | None = None,
    resume: str | os.PathLike[str] | None = None,
    options: Options | None = None,
) -> Model:
    """Quantization-aware training: a new, quantized `Model`; the float `model`, the teacher, stays as it is.

    `data`: what to learn on, without labels: pictures or texts as `clipq.training.sources` lists them, of the kind that
    will be embedded; some hundreds do. Towers of a float `precision` are not trained. `mode`: "light" trains step
    sizes, norms and biases, which takes minutes on a CPU; "full" trains all weights, too, which few
    bits need. `lr`: the learning rate of norms and biases, of which all others are multiples. `resume`: a folder for
    checkpoints; the same call after a kill goes on there and gives the same numbers. `options`: batch size, losses,
    autocast and the like. Under `accelerate launch` the processes share each step, and each gets the model.

    The student computes with quantized numbers in every step; they begin with what the steps of its scheme choose, or
    `options.begin`, on the same data. In "full" mode weights are rounded anew each time, by step sizes learned as in
    LSQ (Esser et al., arXiv:1902.08153); in "light" mode the integers stay, and their step sizes are learned. What
    comes back computes what the student computed where its embeddings were nearest, to rounding.

    Raises `QuantizationError` for a quantized model and for settings that do not fit, `UnknownNameError` for names that
    do not exist, `DataError` for data that is missing or cannot be read, `OutputError` for a checkpoint that cannot be
    written.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    options = options or Options()
    teacher = model if isinstance(model, Model) else Model(model)
    refuse_quantized(teacher.module)
    schemes = {tower: one for tower, one in per_tower(precision).items() if tower in teacher.towers}
    rate = _checked(steps, _usual_rate(schemes, mode) if lr is None else lr)
    sources = sources_for(teacher, _trained(schemes), data)
    check_losses(options.losses, {tower: one.count for tower, one in sources.items()})
    processes = launched(teacher.device.type)
    teacher.to(own_device(processes, teacher.device))
    about = {"mode": mode, "steps": steps, "lr": rate, "processes": processes.count, **options.to_dict()}
    folder = None if resume is None else folder_of(Path(resume), _identity(teacher, schemes, sources, about))
    with in_evaluation(teacher.module):
        inputs = _calibration(teacher, beginnings(schemes, options.begin), sources)
        student = make_student(teacher.module, schemes, inputs, mode, options.begin)
        batches = Batches(sources, options.batch_size, options.seed, processes)
        Run(teacher, student, batches, steps, rate, options, folder).train()
    return _like(teacher, student.settle())


def _usual_rate(schemes: Mapping[str, Scheme], mode: str) -> float:
    few = any(scheme.weights.bits < 8 for scheme in schemes.values() if not scheme.is_float)
    return RATES[mode][few]


def _checked(steps: int, rate: float) -> float:
    """`rate`, where both are numbers that make sense."""
    check_number("steps", steps, 1)
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate < 1:
        raise QuantizationError(f"lr={rate!r} is not a learning rate; give a number between 0 and 1, such as 0.001.")
    return float(rate)


def _trained(schemes: Mapping[str, Scheme]) -> tuple[str, ...]:
    towers = tuple(tower for tower, scheme in schemes.items() if not scheme.is_float)
    if not towers:
        names = ", ".join(f"{tower}={scheme.name}" for tower, scheme in schemes.items())
        raise QuantizationError(f"nothing is quantized by {names}, so there is nothing to train; try precision='int8'.")
    return towers


def _identity(
    teacher: Model, schemes: Mapping[str, Scheme], sources: Mapping[str, Source], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the numbers of a run depend on, as JSON values."""
    return {
        "clipq_version": VERSION,
        "model": teacher.fingerprint(),
        "schemes": {tower: scheme.to_dict() for tower, scheme in schemes.items()},
        "data": {tower: source.digest for tower, source in sources.items()},
        "preprocessing": hashlib.sha256(json.dumps(teacher.preprocessing, sort_keys=True).encode()).hexdigest(),
        **about,
    }


def _calibration(
    teacher: Model, schemes: Mapping[str, Scheme], sources: Mapping[str, Source]
) -> dict[str, Sequence[Tensor]]:
    """What the steps of `schemes` look at: inputs that are trained on, as they are."""
    found = {}
    for tower in (tower for tower, scheme in schemes.items() if is_calibrated(scheme)):
        places = Split.of(sources[tower].count).training
        chosen = [places[place] for place in spread(len(places), _CALIBRATION)]
        found[tower] = [one.to(teacher.device) for one in sources[tower].batches(chosen)]
    return found


def _like(teacher: Model, module: nn.Module) -> Model:
    """`module` with all that goes with the model that it was made from."""
    return Model(
        module,
        config=teacher._config,
        preprocessing=teacher.preprocessing,
        tokenizer=teacher.tokenizer_spec,
        source=teacher.source,
    )
