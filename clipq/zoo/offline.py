"""A local path never touches the network, whatever a configuration beside the weights names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _OfflineHere:
    """huggingface_hub's setting, which is true in the threads that are within `no_network`, else as it was."""

    def __init__(self, before: object):
        self.before = before
        self.depths: dict[int, int] = {}

    def __bool__(self) -> bool:
        return threading.get_ident() in self.depths or bool(self.before)


_LOCK = threading.Lock()


@contextmanager
def no_network() -> Iterator[None]:
    """Within, this thread asks no hub: its libraries find what is in the cache, and else raise; other threads go on.

    huggingface_hub, and with it transformers, open_clip and timm, looks at one setting before every request. It is
    replaced by one that knows its threads, because a download may run beside a load.
    """
    from huggingface_hub import constants

    thread = threading.get_ident()
    with _LOCK:
        setting = constants.HF_HUB_OFFLINE
        if not isinstance(setting, _OfflineHere):
            setting = constants.HF_HUB_OFFLINE = _OfflineHere(setting)
        setting.depths[thread] = setting.depths.get(thread, 0) + 1
    try:
        yield
    finally:
        with _LOCK:
            setting.depths[thread] -= 1
            if not setting.depths[thread]:
                del setting.depths[thread]
            if not setting.depths and constants.HF_HUB_OFFLINE is setting:
                constants.HF_HUB_OFFLINE = setting.before
