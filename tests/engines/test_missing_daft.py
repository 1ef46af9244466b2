"""Without Daft: what needs it says how to install it, and nothing else asks for it."""

from __future__ import annotations

import sys

import pytest

import clipq.engines.daft
from clipq.engines.table import ENGINES, engine_named
from clipq.errors import MissingPackageError, UnknownNameError

COMMAND = r"pip install 'clipq\[daft\]'"


@pytest.fixture
def without_daft(monkeypatch):
    monkeypatch.setitem(sys.modules, "daft", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "clipq.engines.daft_provider", raising=False)


@pytest.mark.parametrize("name", ["ClipqProvider", "embedded"])
def test_its_expressions(name, without_daft):
    with pytest.raises(MissingPackageError, match=COMMAND):
        getattr(clipq.engines.daft, name)


def test_its_engine(without_daft):
    engine = engine_named("daft", 2)
    with pytest.raises(MissingPackageError, match=COMMAND):
        next(engine.made(None, None, [range(3)], None, None))


def test_names():
    assert {"local", "ray", "daft"} == {*ENGINES}
    assert {"ClipqProvider", "Daft", "embedded"} <= {*dir(clipq.engines.daft)}
    with pytest.raises(UnknownNameError, match="'dafts'.*Did you mean 'daft'"):
        engine_named("dafts")
    with pytest.raises(AttributeError, match="clipq.engines.daft"):
        _ = clipq.engines.daft.Provider
