"""Calibration data: from what users have to batches of pixels or token ids, evenly chosen, the same ones every time.

For the image tower: a folder of pictures, a list of pictures (paths, bytes, PIL images, arrays), preprocessed images
[n, channels, height, width], an iterable of batches of them, such as a DataLoader, or a `datasets.Dataset` with a
column of images. For the text tower: strings, a text file with one text a line, token ids [n, tokens], or a
`datasets.Dataset` with a column of strings. Labels are not needed, and not read. Data of an evaluation is refused:
see `held_out`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.precisions import check_towers
from ..arithmetic.schemes import Scheme
from ..errors import DataError, QuantizationError
from ..hosts import find_host
from ..inputs import borders, folders, given
from ..inputs.datasets import dataset_pictures, dataset_texts, is_dataset
from ..inputs.images import decode_upright, spread
from ..inputs.preprocessing import build_preprocess
from .defaults import default_pictures, default_texts
from .held_out import refuse_held_out
from .steps import is_calibrated

Calibration = Any
"""What the module's docstring lists, for the tower that needs it, or {"image": ..., "text": ...}; None: clipq's own."""

MOST_PICTURES = 128
MOST_TEXTS = 512
_MOST = {"image": MOST_PICTURES, "text": MOST_TEXTS}
_BATCH = 32


def inputs_for(model: Any, schemes: Mapping[str, Scheme], calibration: Calibration) -> dict[str, Sequence[Tensor]]:
    """Batches for each tower whose numbers are chosen by looking at inputs. `model`: a `clipq.Model` or its module.

    Raises `DataError` for what cannot be read (naming it), `QuantizationError` where something is missing to read it.
    """
    return inputs_of(model, [tower for tower, scheme in schemes.items() if is_calibrated(scheme)], calibration)


def inputs_of(
    model: Any, towers: Sequence[str], calibration: Calibration, most: int | None = None
) -> dict[str, Sequence[Tensor]]:
    """Batches for each of `towers`, of at most `most` inputs in all; otherwise as `inputs_for`."""
    given = _by_tower(towers, calibration)
    for source in given.values():
        refuse_held_out(source)
    readers = {"image": _pixels, "text": _ids}
    device = next(getattr(model, "module", model).parameters()).device
    found = {tower: readers[tower](model, given.get(tower), most or _MOST[tower]) for tower in towers}
    return {tower: [batch.to(device) for batch in whole.split(_BATCH)] for tower, whole in found.items()}


def account(inputs: Mapping[str, Sequence[Tensor]]) -> dict[str, dict[str, Any]]:
    """What was calibrated on, for each tower: how many images or texts, and the sha256 of their tensors' bytes."""
    found = {}
    for tower, batches in inputs.items():
        digest = hashlib.sha256(f"{batches[0].dtype} {list(batches[0].shape[1:])}".encode())
        for batch in batches:
            digest.update(batch.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        found[tower] = {"count": sum(map(len, batches)), "sha256": digest.hexdigest()}
    return found


def _by_tower(towers: Sequence[str], calibration: Calibration) -> Mapping[str, Any]:
    if calibration is None:
        return {}
    if not isinstance(calibration, Mapping):
        if len(towers) > 1:
            raise QuantizationError(
                "both towers are to be calibrated, and calibration= is for one; give "
                'calibration={"image": ..., "text": ...}, or leave out the one that clipq\'s own data will do for.'
            )
        calibration = dict.fromkeys(towers, calibration)
    check_towers(calibration)
    if not set(calibration) <= set(towers) or not calibration:
        raise QuantizationError(
            f"calibration data was given for {', '.join(calibration) or 'nothing'}, but this precision looks at inputs "
            f"of {', '.join(towers) or 'neither tower'} only; leave out what is not used."
        )
    return calibration


def _pixels(model: Any, source: Any, most: int) -> Tensor:
    """[n, channels, height, width], at most `most`."""
    if isinstance(source, Tensor):
        return _checked(model, source[spread(len(source), most)])
    if source is None:
        return _preprocessed(model, default_pictures(), most)
    if is_dataset(source):
        return _preprocessed(model, dataset_pictures(source), most)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        return _preprocessed(model, folders.pictures(source).entries, most)
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes, Sequence)):
        return _checked(model, _from_batches(source, most))
    found = borders.pictures(source)
    return _pixels(model, found, most) if isinstance(found, Tensor) else _preprocessed(model, found, most)


def _from_batches(batches: Iterable[Any], most: int) -> Tensor:
    """The first images of batches of them."""
    found, count = [], 0
    for batch in batches:
        found.append(images_of(batch))
        count += len(found[-1])
        if count >= most:
            break
    if not found:
        raise DataError("the calibration data has no batches; give at least one image.")
    return torch.cat(found)[:most]


def images_of(batch: Any) -> Tensor:
    """The images of a batch, alone or with labels and the like behind them."""
    pixels = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(pixels, Tensor):
        raise DataError(f"a batch of data is a {type(pixels).__name__}; give tensors of preprocessed images.")
    return pixels


def _checked(model: Any, pixels: Tensor) -> Tensor:
    module = getattr(model, "module", model)
    host = find_host(module)
    borders.check_pixels(pixels, host.pixel_shape(module), host.any_size(module))
    if not len(pixels):
        raise DataError("the calibration data holds no image; give at least one.")
    return pixels.float()


def _preprocessed(model: Any, pictures: Sequence[Any], most: int) -> Tensor:
    if not pictures:
        raise DataError("the calibration data holds no picture; give at least one.")
    preprocess = getattr(model, "preprocess", None) or _preprocess_of(model)
    pixels, unreadable = [], []
    for place in spread(len(pictures), most):
        try:
            pixels.append(preprocess(opened(pictures[place])))
        except (OSError, DataError) as error:
            unreadable.append(f"{named(pictures[place], place)} ({error})")
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of the calibration pictures cannot be read: {'; '.join(unreadable)}. "
            "Leave them out, or mend them."
        )
    return torch.stack(pixels)


def _is_entry(picture: Any) -> bool:
    """Whether it is an entry of a folder or a table, which is read when it is wanted."""
    return hasattr(picture, "read") and hasattr(picture, "key")


def named(picture: Any, place: int) -> str:
    """What a picture is called in messages: its path, or its place in the list."""
    if _is_entry(picture):
        return picture.key
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else f"number {place}"


def opened(picture: Any) -> Any:
    """The upright RGB image of an entry, or of whatever `given.open_picture` opens."""
    return decode_upright(picture.read()) if _is_entry(picture) else given.open_picture(picture)


def _preprocess_of(module: Any) -> Any:
    settings = find_host(module).preprocessing(module)
    if not settings:
        raise QuantizationError(
            f"how pictures are prepared for this {type(module).__name__} is not known; give preprocessed images "
            "[n, channels, height, width], or quantize a clipq.Model, which knows."
        )
    return build_preprocess(settings)


def _ids(model: Any, source: Any, most: int) -> Tensor:
    """int64 [n, tokens], at most `most`."""
    if isinstance(source, Tensor):
        module = getattr(model, "module", model)
        host = find_host(module)
        borders.check_ids(source, host.context_length(module), host.vocabulary(module))
        return source[spread(len(source), most)].long()
    if source is None:
        texts = default_texts(most)
    elif is_dataset(source):
        texts = given.strings(dataset_texts(source))
    elif isinstance(source, (str, os.PathLike)):
        texts = [line for line in lines_of(Path(source)) if line.strip()]
    else:
        texts = given.strings(islice(source, 1 << 20) if not isinstance(source, Sequence) else source)
    if not texts:
        raise DataError("the calibration data holds no text; give at least one.")
    if getattr(model, "tokenizer_spec", None) is None:
        raise QuantizationError(
            f"this {type(model).__name__} has no tokenizer; give token ids [n, tokens], or quantize a clipq.Model."
        )
    return model.tokenizer([texts[place] for place in spread(len(texts), most)])


def lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the calibration texts {path} cannot be read: {error}") from error
