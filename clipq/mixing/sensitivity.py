"""How much each block suffers from each precision, without labels.

As HAWQ (Dong et al., arXiv:1905.03696) and the like rank layers, but by what is wanted of a CLIP: the embedding. Each
unit alone is put into a precision, and the embeddings are compared with fp32's; and for each precision of a whole tower
the error of the residual stream is measured after every block.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arithmetic.precisions import Precision, resolve
from ..errors import DataError, QuantizationError, unknown_name
from ..hosts import Host, find_host, unwrapped
from ..hosts.calls import install
from ..methods.calibration import Calibration, inputs_of
from ..modules.layers import QuantizedModule
from ..resources import output_path
from .differences import Answers
from .encoding import Inputs, blocks_of, embedded, evaluating, fewer, streams
from .units import Trials, Unit, units_of

PRECISIONS_TRIED = ("fp16", "int8", "int8-weight-only")
_INPUTS = 32  # of each tower: a pass over them is made for each unit and precision
_ANSWERS = 256
_STREAMED = 4  # inputs at a time, whose streams after all blocks are in memory


@dataclass(frozen=True)
class Effect:
    """On the embeddings of a tower, when `unit` alone has `precision`. `cosine`, `kl`, `changed`: see `Difference`."""

    tower: str
    unit: str
    precision: str
    cosine: float
    kl: float
    changed: float


@dataclass(frozen=True)
class Noise:
    """|error| / |value| of the residual stream after a block (the `depth`th, from 1) of a tower all in `precision`."""

    tower: str
    block: str
    depth: int
    precision: str
    noise: float


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` measured. `inputs`: how many, of each tower."""

    effects: tuple[Effect, ...]
    noise: tuple[Noise, ...]
    inputs: dict[str, int]

    def of(self, tower: str, unit: str, precision: str) -> Effect:
        """The effect of one unit in one precision. Raises `UnknownNameError` for what was not measured."""
        for one in self.effects:
            if (one.tower, one.unit, one.precision) == (tower, unit, precision):
                return one
        raise unknown_name(
            "measurement", f"{tower} {unit} {precision}", [f"{e.tower} {e.unit} {e.precision}" for e in self.effects]
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write JSON lines, whole or not at all: one an effect, one a noise, after one that says of how many inputs."""
        lines = [{"kind": "inputs", **self.inputs}]
        lines += [{"kind": "effect", **asdict(one)} for one in self.effects]
        lines += [{"kind": "noise", **asdict(one)} for one in self.noise]
        with output_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """What `save` wrote. Raises `DataError` for another file."""
        found: dict[str, list[Any]] = {"inputs": [], "effect": [], "noise": []}
        kinds = {"inputs": dict, "effect": Effect, "noise": Noise}
        try:
            for line in Path(path).read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                kind = values.pop("kind")
                found[kind].append(kinds[kind](**values))
            return cls(tuple(found["effect"]), tuple(found["noise"]), found["inputs"][0])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{os.fspath(path)} holds no sensitivities: {error!r}. Measure them again.") from error


def sensitivity(
    model: Any,
    precisions: Sequence[Precision] = PRECISIONS_TRIED,
    *,
    calibration: Calibration = None,
    towers: Sequence[str] | None = None,
) -> Sensitivity:
    """Measure how much each unit of `model` (a float one, which stays as it is) suffers from each precision.

    `calibration`: inputs for one tower or {"image": ..., "text": ...}, as for `quantize`; their labels are not needed.
    `towers`: those to measure (default: all). Steps of a precision run over a whole tower in it.
    """
    module = unwrapped(model) if isinstance(model, nn.Module) else getattr(model, "module", model)
    host = find_host(module)
    chosen = checked_towers(host, module, towers)
    schemes = [resolve(one) for one in precisions]
    inputs = inputs_of(model, with_answers(model, chosen, calibration), calibration)
    with evaluating(module):
        trials = Trials(module, host, units_of(module, host, chosen), {one.name: one for one in schemes}, inputs)
        return measured(module, host, trials, inputs)


def checked_towers(host: Host, module: nn.Module, towers: Sequence[str] | None) -> tuple[str, ...]:
    """The towers to work on. Raises `UnknownNameError` for another one, `QuantizationError` for quantized models."""
    if any(isinstance(part, QuantizedModule) for part in module.modules()):
        raise QuantizationError("the model is quantized already; load it again with precision='fp32'.")
    own = host.towers(module)
    for tower in towers or ():
        if tower not in own:
            raise unknown_name("tower", tower, own)
    return own if towers is None else tuple(towers)


def with_answers(model: Any, towers: Sequence[str], calibration: Calibration) -> tuple[str, ...]:
    """`towers`, and the text tower that has answers for the images, where its texts are given or can be read."""
    module = getattr(model, "module", model)
    own = find_host(module).towers(module)
    given = set(calibration) if isinstance(calibration, Mapping) else set()
    readable = getattr(model, "tokenizer_spec", None) is not None and not (calibration is not None and not given)
    return tuple(one for one in own if one in towers or one in given or (one == "text" and readable))


@torch.no_grad()
def measured(module: nn.Module, host: Host, trials: Trials, inputs: Inputs) -> Sensitivity:
    """The effects and the noise of all units and precisions of `trials`."""
    install(module)
    towers = list(dict.fromkeys(unit.tower for unit in trials.units))
    asked = {tower: fewer(batches, _INPUTS) for tower, batches in inputs.items()}
    answers = {tower: _answers(module, host, tower, inputs, asked) for tower in towers}
    effects = [
        _effect(trials, unit, name, answers[unit.tower], asked[unit.tower], (module, host))
        for name in trials.candidates
        for unit in trials.units
        if trials.can(unit, name)
    ]
    noise = [
        one
        for tower in towers
        for name in trials.candidates
        for one in _noise(module, host, trials, tower, name, asked[tower])
    ]
    return Sensitivity(tuple(effects), tuple(noise), {t: sum(map(len, asked[t])) for t in towers})


def _answers(module: nn.Module, host: Host, tower: str, inputs: Inputs, asked: Inputs) -> Answers:
    others = {one: fewer(batches, _ANSWERS) for one, batches in inputs.items() if one != tower}
    return Answers.of(
        {one: embedded(module, host, one, batches) for one, batches in {**others, tower: asked[tower]}.items()}, tower
    )


def _effect(
    trials: Trials, unit: Unit, precision: str, answers: Answers, batches: Sequence[Tensor], of: tuple[nn.Module, Host]
) -> Effect:
    with trials.tried({unit: precision}):
        found = answers.difference(embedded(*of, unit.tower, batches))
    return Effect(unit.tower, unit.name, precision, found.cosine, found.kl, found.changed)


def _noise(
    module: nn.Module, host: Host, trials: Trials, tower: str, precision: str, batches: Sequence[Tensor]
) -> list[Noise]:
    names = [view.name for view in blocks_of(module, host, tower)]
    choice = {one: precision for one in trials.units if one.tower == tower and trials.can(one, precision)}
    errors, values = torch.zeros(len(names), dtype=torch.float64), torch.zeros(len(names), dtype=torch.float64)
    for batch in torch.cat(list(batches)).split(_STREAMED) if names else ():
        exact = streams(module, host, tower, batch)
        with trials.tried(choice):
            found = streams(module, host, tower, batch)
        errors += torch.stack([(a - b).double().square().sum().cpu() for a, b in zip(found, exact, strict=True)])
        values += torch.stack([one.double().square().sum().cpu() for one in exact])
    shares = (errors / values).sqrt().tolist()
    return [
        Noise(tower, name, i + 1, precision, share) for i, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
