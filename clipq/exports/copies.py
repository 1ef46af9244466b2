"""What is traced: a copy of a model with its host's own calls, whose int8 linears record instead of computing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ExportError
from ..hosts.calls import uninstall
from ..models import Model
from ..modules.layers import KEPT, QLinear, QuantizedModule
from .forms import Form, kind_of, precisions_for

INPUTS = {"image": "pixel_values", "text": "input_ids"}
OUTPUTS = {"image": "image_embeds", "text": "text_embeds"}
"""What transformers calls them."""


def exportable(model: Model, towers: Sequence[str], forms: Mapping[str, Form], target: str) -> Model:
    """A copy of `model` to be traced; integers are shared with it, floats that stay are copied.

    Raises `ExportError`, naming the layer, for a linear of `towers` that has no form in such a file.
    """
    shared = {id(one): one for one in model.module.buffers()}
    module = copy.deepcopy(model.module, shared).cpu().eval().requires_grad_(False)
    uninstall(module)
    _widen(module, model)
    for name, part in list(module.named_modules()):
        if isinstance(part, QLinear) and model.host.tower_of(module, name) in towers:
            part._kernel = _form(name, part, forms, target)
    return Model(
        module,
        config=model._config,
        preprocessing=model.preprocessing,
        tokenizer=model.tokenizer_spec,
        source=model.source,
    )


def _widen(module: nn.Module, model: Model) -> None:
    """Make float32 of all floats around integers, whatever the fallback; a float tower keeps its precision."""
    quantized = {tower for tower, scheme in model.recipe.schemes.items() if not scheme.is_float}
    for name, part in module.named_modules():
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                place = f"{name}.{key}" if name else key
                if tensor is None or key in KEPT or not tensor.is_floating_point():
                    continue
                if model.host.tower_of(module, place) in quantized:
                    held[key] = nn.Parameter(tensor.float(), False) if held is part._parameters else tensor.float()
        if isinstance(part, QuantizedModule):
            part.compute_dtype = torch.float32


def _form(name: str, layer: QLinear, forms: Mapping[str, Form], target: str) -> nn.Module:
    kind = kind_of(layer.spec, layer.activations)
    if kind not in forms:
        activations = "float inputs" if layer.activations is None else f"{kind or layer.activations} inputs"
        raise ExportError(
            f"{name} has {layer.spec.label} weights and {activations}, for which {target!r} has no form. It has one "
            f"for {', '.join(precisions_for(forms))}: quantize the float model to one of these."
        )
    return forms[kind](layer.kernel_weights(layer.bias, layer.activations))


class Tower(nn.Module):
    """One tower as a function of one tensor, in the float type of its graph's border, float32."""

    def __init__(self, model: Model, tower: str, normalize: bool):
        super().__init__()
        self.module, self._host, self._tower, self._normalize = model.module, model.host, tower, normalize
        self._dtype = _float_type(model, tower)

    def forward(self, inputs: Tensor) -> Tensor:
        """pixels [batch, 3, height, width] or ids [batch, context] to [batch, width]."""
        if self._tower == "image":
            found = self._host.encode_image(self.module, inputs.to(self._dtype))
        else:
            found = self._host.encode_text(self.module, inputs)
        return F.normalize(found.float(), dim=-1) if self._normalize else found.float()


def _float_type(model: Model, tower: str) -> torch.dtype:
    """That of the tower's own parameters."""
    named = model.module.named_parameters()
    own = (one.dtype for name, one in named if model.host.tower_of(model.module, name) == tower)
    return next((dtype for dtype in own if dtype.is_floating_point), torch.float32)


class Towers(nn.Module):
    """Both towers, for one graph: their batches are two."""

    def __init__(self, model: Model, normalize: bool):
        super().__init__()
        self.image, self.text = (Tower(model, tower, normalize) for tower in ("image", "text"))

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(pixel_values), self.text(input_ids)


def example(model: Model, tower: str) -> Tensor:
    """Two inputs of a tower, of the size that it takes. Raises `ExportError` for a model of no fixed size."""
    if tower == "image":
        if (shape := model.host.pixel_shape(model.module)) is None:
            raise ExportError(
                f"{type(model.module).__name__} takes images of no fixed size, and a graph is made for one; export the "
                "text tower alone (towers=('text',)), or a model of one size."
            )
        return torch.zeros(2, *shape)
    context, vocabulary = model.host.context_length(model.module), model.host.vocabulary(model.module)
    return (torch.arange(2 * context, dtype=torch.int64) % max(vocabulary or 2, 2)).reshape(2, context)
