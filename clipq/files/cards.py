"""The model card that goes with a published model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..version import VERSION

if TYPE_CHECKING:
    from ..arithmetic.specs import QuantSpec
    from ..models import Model

_BODY = """\
# {title}

{base_line} quantized by [clipq](https://pypi.org/project/clipq/) {version}: {precision}.

```python
import clipq

model = clipq.load("PATH_OR_REPO")
embeddings = model.encode_image(pixels, normalize=True)
```

## Recipe
{recipe}

## Measured
{results}
"""


def model_card(model: Model, results: Mapping[str, Any]) -> str:
    """A card in the hub's format: YAML front matter (base_model, ...), recipe, measured numbers."""
    from huggingface_hub import ModelCardData

    base, name = model.source.get("base"), model.source.get("name") or model.config.get("arch") or "CLIP"
    quantized = any(not scheme.is_float for scheme in model.recipe.schemes.values())
    front = ModelCardData(
        library_name="clipq",
        pipeline_tag="zero-shot-image-classification" if "text" in model.towers else "image-feature-extraction",
        license=str(model.source.get("licence") or "other").lower(),
        base_model=base,
        base_model_relation="quantized" if base and quantized else None,
        tags=["clip", "clipq", model.host.name, *sorted(set(model.precision.values()))],
    )
    body = _BODY.format(
        title=f"{name} {model.precision_name}",
        base_line=f"[{base}](https://huggingface.co/{base})" if base else name,
        version=VERSION,
        precision=model.precision_name,
        recipe=_recipe(model),
        results=_results(results),
    )
    return f"---\n{front}\n---\n\n{body}"


def _recipe(model: Model) -> str:
    lines = []
    for tower in model.towers:
        scheme = model.recipe.schemes[tower]
        if scheme.is_float:
            lines.append(f"- {tower} tower: {scheme.name}")
            continue
        dynamic = "dynamic" if scheme.activations is None or scheme.activations.dynamic else "static"
        activations = scheme.activations and f"per {scheme.activations.granularity}, {dynamic}"
        weights = f"{scheme.weights.label} weights per {_shared(scheme.weights)}"
        lines.append(f"- {tower} tower: {weights}, activations {activations or 'float'}; LayerNorm and softmax float")
    for tower, shown in model.recipe.calibration.items():
        inputs = {"image": "images", "text": "texts"}[tower]
        lines.append(
            f"- {tower} tower calibrated on {shown['count']} {inputs}, sha256 of their tensors {shown['sha256']}"
        )
    return "\n".join(lines)


def _shared(spec: QuantSpec) -> str:
    """What shares a scale."""
    return f"group of {spec.group_size}" if spec.group_size else spec.granularity


def _results(results: Mapping[str, Any]) -> str:
    if not results:
        return "Nothing has been measured for this file yet: `clipq eval` does."
    return "\n".join(["| what | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in results.items())])
