"""What a result says about its model, data and machine besides its numbers."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..description import described_environment, described_model, weight_bytes
from ..inputs.images import Images
from ..work.processes import Processes
from .embedding import Embedded

if TYPE_CHECKING:
    from ..models import Model


def described_run(model: Model, images: Images, embedded: Embedded, processes: Processes, begun: float) -> dict:
    """The fields that every `Result` has, whatever was measured; `begun` is its `time.perf_counter()`."""
    broken = {images.entries[row].key: reason for row, reason in sorted(embedded.broken.items())}
    return {
        "n": len(embedded.indices),
        "limit": images.limit,
        "model": {**described_model(model), "weight_bytes": weight_bytes(model)},
        "data": {"layout": images.layout, "digest": images.digest()},
        "broken": {"count": len(broken), "names": broken},
        "environment": described_environment(processes),
        "seconds": round(time.perf_counter() - begun, 3),
        "images_per_second": embedded.images_per_second and round(embedded.images_per_second, 2),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
