"""What is said of a model and a machine beside numbers, and what has to hold of a model before it is measured or used
for long work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import SchemeError
from .machine import cores, cpu_name, versions

if TYPE_CHECKING:
    from .models import Model
    from .work.processes import Processes


def described_model(model: Model) -> dict:
    """Name, precision per tower, where the weights came from, and what they are computed with."""
    source = dict(model.source)
    return {
        "name": model_name(model),
        "precision": {tower: str(name) for tower, name in model.precision.items()},
        "source": source,
        "fingerprint": model.fingerprint(),
        "kernel_path": model.kernel_path(),
        "device": str(model.device),
    }


def model_name(model: Model) -> str:
    """What a model is called, from where it came from; unlike `described_model` this reads no tensor."""
    source = model.source
    if source.get("name"):
        return str(source["name"])
    return "/".join(str(source[key]) for key in ("arch", "tag") if source.get(key)) or "unnamed"


def precision_name(described: Mapping) -> str:
    """ "int8", or "int8/fp32" (image/text) where the towers differ, of a described model."""
    return "/".join(dict.fromkeys(map(str, described["precision"].values())))


def weight_bytes(model: Model) -> int:
    """Bytes of all tensors of a model, as a file holds them."""
    from .modules.state import slots

    return sum(slot.tensor.nbytes for slot in slots(model.module).values())


def described_environment(processes: Processes) -> dict:
    """Versions, processor, cores and threads: numbers of two machines or versions may differ in the last digits."""
    import torch

    return {
        "versions": versions(),
        "processor": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "processes": processes.count,
    }


def check_model(model: Model, needs_text: bool = False) -> None:
    """Raise `SchemeError` where the numbers would not be the model's own: autocast, training mode, no text tower."""
    import torch

    if torch.is_autocast_enabled(model.device.type):
        raise SchemeError(
            f"autocast is on for {model.device.type!r}: it would change the precision that is being measured. "
            "Leave the `torch.autocast` block and call again."
        )
    if model.module.training:
        raise SchemeError("the model is in training mode (dropout changes its numbers); call model.module.eval() first")
    if needs_text and "text" not in model.towers:
        raise SchemeError(
            f"this model has the towers {', '.join(model.towers)} and no text tower, so it cannot name images; "
            "fidelity(model, baseline, folder) measures image models"
        )


def identity(model: Model, batch_size: int) -> dict:
    """What the embeddings depend on besides the data: work is resumed only if all of it is the same."""
    import torch

    return {
        "model": model.fingerprint(),
        "preprocess": _preprocess_digest(model),
        "kernel_path": model.kernel_path(),
        "device": model.device.type,
        "batch_size": batch_size,
        "torch": torch.__version__,
    }


def _preprocess_digest(model: Model) -> str:
    """sha256 of what the preprocessing makes of a test picture; its repr holds addresses and hides settings."""
    from PIL import Image

    ramp = Image.linear_gradient("L").resize((320, 256))
    picture = Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize((320, 256))))
    return hashlib.sha256(model.preprocess(picture).float().contiguous().numpy().tobytes()).hexdigest()
