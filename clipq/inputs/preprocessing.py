"""Image preprocessing as data: JSON settings that travel with the weights, and the transform they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .settings import PREPROCESSING, check_settings

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Preprocess = Callable[["Image"], "Tensor"]


def build_preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """The transform (PIL image to float tensor [3, height, width]) of `settings`.

    `settings["kind"]` is "open_clip", "timm" or "transformers"; the rest is what that library describes its own
    preprocessing with. Raises `CheckpointError` if the library does not take them.
    """
    check_settings(settings, PREPROCESSING, "preprocessing")
    kind = settings["kind"]
    try:
        return _BUILDERS[kind]({k: v for k, v in settings.items() if k != "kind"})
    except CheckpointError:
        raise
    except Exception as error:  # the border to libraries that are given settings from who knows where
        raise CheckpointError(f"preprocessing settings {dict(settings)!r} do not fit {kind}: {error}.") from error


def check_preprocessing(settings: Mapping[str, Any]) -> None:
    """Raise a `ClipqError` for settings that `build_preprocess` would refuse or whose transform would fail.

    None at all are allowed: a model may come without. What transformers alone knows is only found out by it.
    """
    if settings:
        check_settings(settings, PREPROCESSING, "preprocessing")
        if settings["kind"] == "transformers":
            _processor_name(settings.get("image_processor_type"))  # building one would import half of transformers
        else:
            build_preprocess(settings)


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

    return _InRgb(create_transform(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}))


class _InRgb:
    """timm's transform, which takes RGB alone, of pictures of any mode. `transforms`: its steps."""

    def __init__(self, transform: Any):
        self.transform, self.transforms = transform, transform.transforms

    def __call__(self, image: Image) -> Tensor:
        return self.transform(image.convert("RGB"))


def _transformers(settings: dict[str, Any]) -> Preprocess:
    import transformers

    name = _processor_name(settings.pop("image_processor_type", None))
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and hasattr(kind, "preprocess")):
        raise CheckpointError(f"{name!r} is not an image processor of transformers {transformers.__version__}.")
    processor = kind(**settings)
    return lambda image: processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


def _processor_name(name: Any) -> str:
    import transformers

    if not isinstance(name, str) or "ImageProcessor" not in name or name not in dir(transformers):
        raise CheckpointError(f"{name!r} is not an image processor of transformers {transformers.__version__}.")
    return name


_BUILDERS: Mapping[str, Callable[[dict[str, Any]], Preprocess]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}
