"""`align`: a model whose embeddings lie in the space of an index that another model made; `fold`, its last step."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ClipqError, QuantizationError
from ..methods.finishing import finish
from ..models import Model
from ..modules.layers import QLinear
from ..modules.state import shapes
from .maps import Map
from .methods import check_method
from .places import Place, in_float64, norm_offset, place_of
from .widths import with_width

if TYPE_CHECKING:
    from ..indexes import Index, Layout
    from ..inputs.listing import Inputs

PAIRS = 4000


def align(
    model: Model,
    old: str | os.PathLike[str] | Index,
    data: str | os.PathLike[str] | Inputs,
    *,
    method: str = "best",
    pairs: int = PAIRS,
    layout: Layout | None = None,
    progress: bool | None = None,
) -> Model:
    """`model` with the map to the space of the index `old` folded in; the model that was given stays as it is.

    old: as for `clipq.drift`. data: what the index was made of, of which at most `pairs` are embedded to fit the map.
    method: see `alignment.fit`. The result embeds at the model's own speed; `clipq.save` writes it, `clipq.load` and
    `clipq.runtime` read it. Whether it is good enough is a question for `clipq.drift(..., align=True)`, which keeps
    pictures apart that nothing was fitted on.
    Raises `DataError` for fewer than 32 pairs, `QuantizationError` for a tower that no map can be folded into.
    """
    from ..inputs.listing import Inputs
    from .pairs import opened, paired, sampled

    check_method(method)
    inputs = data if isinstance(data, Inputs) else Inputs.of(data)
    place_of(model, inputs.tower)
    index = opened(old, layout)
    next(index.blocks())  # what is wrong with all of it shows at once
    (chosen,) = sampled(index, inputs, (pairs,))
    found = paired(model, index, inputs, chosen, progress)
    return fold(model, fitted(model, inputs.tower, found.new, found.old, method), inputs.tower)


def fitted(model: Model, tower: str, new: Tensor, old: Tensor, method: str = "best") -> Map:
    """`alignment.fit`, with an offset only where the tower can hold it."""
    from .fitting import fit

    found = fit(new, old, method, offset=takes_offset(model, tower))
    return found if holds(model, tower, found) else fit(new, old, method, offset=False)


def takes_offset(model: Model, tower: str) -> bool:
    """Whether an offset can be folded into that tower; False as well where no map can be."""
    try:
        place = place_of(model, tower)
    except QuantizationError:
        return False
    weight = place.weight()
    if weight is None or place.norm is None or place.settings is not None:
        return place.takes_offset
    return place.takes_offset and int(torch.linalg.matrix_rank(weight)) == len(weight)


def holds(model: Model, tower: str, found: Map) -> bool:
    """Whether the offset of `found` can be folded into that tower; True where there is none, or no place for a map."""
    if found.offset is None or not takes_offset(model, tower):
        return found.offset is None
    place = place_of(model, tower)
    if place.settings is not None or getattr(place.held, "bias", None) is not None:
        return True
    return norm_offset(place.norm, found.weight @ place.weight(), found.offset) is not None


def fold(model: Model, found: Map, tower: str = "image") -> Model:
    """A copy of `model` whose `tower` ends in `found`, and whose other tower, if it has one, in that map's
    `of_other_tower`.

    Tensors that stay the same are shared. A quantized last linear becomes float; where a timm trunk of open_clip has
    none, it gets one (of the size of an embedding, squared). Raises `QuantizationError` where a tower can hold none.
    """
    if found.is_identity:
        return model
    maps = {one: found if one == tower else found.of_other_tower() for one in model.towers}
    maps = {one: own for one, own in maps.items() if not own.is_identity}
    for one in maps:
        place_of(model, one)  # before anything is copied
    module, config = _copied(model.module), copy.deepcopy(model.config)
    folded = _wrapped(model, module, config, found)
    recipe = folded.recipe
    for one, own in maps.items():
        place = place_of(folded, one)
        recipe = replace(recipe, modules={k: v for k, v in recipe.modules.items() if k != place.path})
        _fold_one(folded, place, own, config)
    if found.weight.shape[0] != found.weight.shape[1]:
        with_width(folded, config, len(found.weight))
    folded = _wrapped(model, module, config, found)
    _check_readable(folded)
    finish(module, folded.host, recipe)
    return folded


def _copied(module: nn.Module) -> nn.Module:
    """A copy whose tensors are those of `module` itself, to be replaced and never written into."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _wrapped(model: Model, module: nn.Module, config: Mapping[str, Any], found: Map) -> Model:
    source = {**model.source, "alignment": dict(found.about)}
    given = {"preprocessing": model.preprocessing, "tokenizer": model.tokenizer_spec}
    return Model(module, config=config, **given, source=source)


def _fold_one(model: Model, place: Place, found: Map, config: dict[str, Any]) -> None:
    held, weight = place.held, place.weight()
    weight = found.weight if weight is None else found.weight @ weight
    bias, by_norm = _bias(held, found), False
    if bias is not None and getattr(held, "bias", None) is None and place.settings is None:
        by_norm = _into_norm(place, weight, found.offset)
        if not by_norm:
            raise QuantizationError(
                f"{place.path} and the norm before it can hold no offset; fit without: offset=False."
            )
    if held is None or (bias is not None and getattr(held, "bias", None) is None and not by_norm):
        for keys, value in place.settings.items():
            _set(config, keys, value)
        bias = torch.zeros(len(weight)).double() if bias is None else bias
    _put(model, place, weight, None if by_norm else bias)


def _bias(held: Any, found: Map) -> Tensor | None:
    """The bias of the linear once the map is behind it."""
    own = getattr(held, "bias", None)
    if own is None:
        return found.offset
    own = found.weight @ in_float64(own)
    return own if found.offset is None else own + found.offset


def _into_norm(place: Place, weight: Tensor, offset: Tensor) -> bool:
    change = norm_offset(place.norm, weight, offset)
    if change is None:
        return False
    own = place.norm.bias
    place.norm.bias = _parameter(in_float64(own) + change, own.dtype, own.device)
    return True


def _put(model: Model, place: Place, weight: Tensor, bias: Tensor | None) -> None:
    """A new linear, or parameter, in the place of the old one, of what stays float in the model."""
    held = place.held
    like = next(one for one in model.module.parameters() if one.is_floating_point()) if held is None else held
    dtype = like.compute_dtype if isinstance(like, QLinear) else (like if held is None else _first(like)).dtype
    device = like.weight.device if isinstance(like, nn.Module) else like.device
    if isinstance(held, nn.Parameter):
        setattr(place.owner, place.name, _parameter(weight.T, dtype, device))
        return
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = _parameter(weight, dtype, device)
    linear.bias = None if bias is None else _parameter(bias, dtype, device)
    setattr(place.owner, place.name, linear)


def _first(held: nn.Module | Tensor) -> Tensor:
    return held if isinstance(held, Tensor) else held.weight


def _parameter(values: Tensor, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(values.to(dtype).to(device).contiguous(), requires_grad=False)


def _set(config: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    config[keys[-1]] = value


def _check_readable(model: Model) -> None:
    """Raise `QuantizationError` unless the architecture that the file will name has these tensors."""
    try:
        twin = shapes(model.host.build(model.config))
    except (ClipqError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise QuantizationError(f"the model with the map cannot be written: {error}.") from error
    own = shapes(model.module)
    if other := sorted(name for name in {*twin, *own} if twin.get(name) != own.get(name)):
        raise QuantizationError(f"the model with the map cannot be written: its configuration has no such {other[0]}.")
