"""Everyone. A new peer is a `Contestant` in a module of this folder, and its place in this list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clipq.errors import unknown_name

from . import onnx_runtime, open_vino, torch_peers
from .contestant import Contestant

YARDSTICKS = (torch_peers.CLIPQ, torch_peers.EAGER)
"""In every run: what the ratios and the cosines are relative to."""

CONTESTANTS = (*YARDSTICKS, *torch_peers.OTHERS, *onnx_runtime.CONTESTANTS, *open_vino.CONTESTANTS)


def chosen(only: Iterable[str] = (), without: Iterable[str] = ()) -> Sequence[Contestant]:
    """The yardsticks, and the rest as asked for. Raises `UnknownNameError` for a name nobody has."""
    names = {one.name for one in CONTESTANTS}
    only, without = set(only), set(without)
    for name in only | without:
        if name not in names:
            raise unknown_name("contestant", name, names)
    keep = (only or names) - without | {one.name for one in YARDSTICKS}
    return [one for one in CONTESTANTS if one.name in keep]
