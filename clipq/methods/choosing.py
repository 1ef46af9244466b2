"""Run the steps of each tower's scheme, between the replacement of its modules and their packing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from ..errors import QuantizationError
from ..hosts import Host
from ..hosts.calls import install
from ..modules.attention import QAttention
from ..modules.layers import QLinear
from .recipes import Recipe
from .steps import is_calibrated, steps_of
from .work import Floats, Work

_UNSETTLED = "unsettled"  # a kernel that no table has: nothing else then packs the layer, alone or in a stack


def choose_numbers(
    module: nn.Module,
    host: Host,
    recipe: Recipe,
    originals: Mapping[str, nn.Module],
    inputs: Mapping[str, Sequence[Tensor]],
) -> None:
    """Let the steps of each scheme choose the integers of the modules that stand in place of `originals`.

    `inputs`: batches of calibration data for each tower that has any. Raises `QuantizationError` for a tower whose
    steps need them and that has none.
    """
    install(module)  # texts without their padding, which no embedding depends on
    undo: list[Callable[[], None]] = []
    try:
        for tower, scheme in recipe.schemes.items():
            if scheme.steps:
                if is_calibrated(scheme) and not inputs.get(tower):
                    raise needs_calibration(tower, scheme.name)
                own = {name: one for name, one in originals.items() if host.tower_of(module, name) == tower}
                floats = _unsettled(module, own)
                _run(Work(module, host, tower, scheme, floats, inputs.get(tower, ()), undo))
    except BaseException:  # an interrupted quantization leaves the model as it was, too
        for back in reversed(undo):
            back()
        raise


def _unsettled(module: nn.Module, originals: Mapping[str, nn.Module]) -> dict[QLinear, Floats]:
    """The linears in the place of `originals`, computing with the weights of these for now."""
    floats = {one.layer: one for name, part in originals.items() for one in _floats(name, part, module)}
    for layer, one in floats.items():
        layer.use_kernel(_UNSETTLED)
        layer._kernel = one
    return floats


def _run(work: Work) -> None:
    for step in steps_of(work.scheme):
        step.run(work)
    for one in work.floats.values():
        one.settle()


def needs_calibration(tower: str, precision: str) -> QuantizationError:
    """What is said where there is nothing to calibrate on."""
    what = "pictures (a folder, a list, or a tensor [n, 3, height, width])"
    what = what if tower == "image" else "texts (a list of strings, a text file, or token ids [n, tokens])"
    return QuantizationError(
        f"{precision!r} chooses its numbers by looking at what the {tower} tower computes; give it some {what}: "
        f"calibration={{{tower!r}: ...}}. A hundred of the kind that will be embedded are enough."
    )


def _floats(name: str, original: nn.Module, module: nn.Module) -> Iterator[Floats]:
    """The linears in the place of `original`, with its weights."""
    part = module.get_submodule(name)
    if isinstance(part, QAttention):
        yield Floats(f"{name}.in_proj", part.in_proj, original.in_proj_weight, original.in_proj_bias)
        yield Floats(f"{name}.out_proj", part.out_proj, original.out_proj.weight, original.out_proj.bias)
    elif isinstance(part, QLinear):
        yield Floats(name, part, original.weight, original.bias)
