"""Image preprocessing as data: JSON settings that travel with the weights, and the transform they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Preprocess = Callable[["Image"], "Tensor"]


def build_preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """The transform (PIL image to float tensor [3, height, width]) of `settings`.

    `settings["kind"]` is "open_clip", "timm" or "transformers"; the rest is what that library describes its own
    preprocessing with. Raises `CheckpointError` if the library does not take them.
    """
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in _BUILDERS:
        raise unknown_name("preprocessing", kind, _BUILDERS)
    try:
        return _BUILDERS[kind]({k: v for k, v in settings.items() if k != "kind"})
    except CheckpointError:
        raise
    except Exception as error:  # the border to libraries that are given settings from who knows where
        raise CheckpointError(f"preprocessing settings {dict(settings)!r} do not fit {kind}: {error}.") from error


def from_image_processor(processor: Any) -> dict[str, Any]:
    """The settings of a transformers image processor."""
    import json

    values = json.loads(processor.to_json_string())
    return {"kind": "transformers", **values, "image_processor_type": type(processor).__name__}


def _open_clip(settings: dict[str, Any]) -> Preprocess:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)


def _timm(settings: dict[str, Any]) -> Preprocess:
    from timm.data import create_transform

    transform = create_transform(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    return lambda image: transform(image.convert("RGB"))


def _transformers(settings: dict[str, Any]) -> Preprocess:
    import transformers

    name = str(settings.pop("image_processor_type"))
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and hasattr(kind, "preprocess")):
        raise CheckpointError(f"{name!r} is not an image processor of transformers {transformers.__version__}.")
    processor = kind(**settings)
    return lambda image: processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


_BUILDERS: Mapping[str, Callable[[dict[str, Any]], Preprocess]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}
