"""What a result says about the model, the data and the machine besides its numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..machine import cores, cpu_name, versions
from .embedding import Embedded
from .images import Images
from .processes import Processes

if TYPE_CHECKING:
    from ..models import Model


def described_model(model: Model) -> dict:
    """Name, precision per tower, where the weights came from, and what they are computed with."""
    source = dict(model.source)
    return {
        "name": _name(source),
        "precision": {tower: str(name) for tower, name in model.precision.items()},
        "source": source,
        "fingerprint": model.fingerprint(),
        "kernel_path": model.kernel_path(),
        "device": str(model.device),
    }


def _name(source: Mapping) -> str:
    if source.get("name"):
        return str(source["name"])
    return "/".join(str(source[key]) for key in ("arch", "tag") if source.get(key)) or "unnamed"


def described_run(model: Model, images: Images, embedded: Embedded, processes: Processes, begun: float) -> dict:
    """The fields that every `Result` has, whatever was measured; `begun` is its `time.perf_counter()`."""
    broken = {images.entries[row].key: reason for row, reason in sorted(embedded.broken.items())}
    return {
        "n": len(embedded.indices),
        "limit": images.limit,
        "model": described_model(model),
        "data": {"layout": images.layout, "digest": images.digest()},
        "broken": {"count": len(broken), "names": broken},
        "environment": described_environment(processes),
        "seconds": round(time.perf_counter() - begun, 3),
        "images_per_second": embedded.images_per_second and round(embedded.images_per_second, 2),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


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
