"""The error for what only the full package can do."""

from __future__ import annotations

from ..errors import CheckpointError


def refused(what: str, key: str, value: object, allowed: str) -> CheckpointError:
    """`what` (such as "preprocessing of kind 'timm'") has a setting that clipq.runtime does not follow."""
    return CheckpointError(
        f"{what}: clipq.runtime cannot follow {key}={value!r}; allowed: {allowed}. "
        "clipq.load of the full package (pip install clipq) runs whatever the model's own library can."
    )
