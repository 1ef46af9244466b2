"""The end of a sharded job: what a kill there costs, where the folder is put, and what its names are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checkpoint_helpers import TWO_TOWERS, model, tokenizer_spec

from clipq.embedding import Embedder, Inputs, ShardedFolder, embed_with, sharded
from clipq.embedding.jobs import InThisProcess
from clipq.errors import OutputError
from clipq.matrices import read_manifest
from clipq.work.spent import Spent


@pytest.fixture(scope="module")
def embedder():
    return Embedder(
        model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing={"kind": "open_clip", "size": 32}), batch_size=2
    )


@pytest.fixture
def lines(tmp_path) -> Inputs:
    """Five texts and an empty line."""
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\n\nthree\nfour\nfive\n")
    return Inputs.of(path)


def made(embedder, lines, path, engine=None) -> Spent:
    spent = Spent()
    engine = engine or InThisProcess()
    embed_with(engine, embedder, lines, ShardedFolder(path, 2), progress=False, spent=spent)
    return spent


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class _Killed(BaseException):
    """Not an exception that anybody catches."""


@pytest.mark.parametrize("step", ["save_broken", "put_in_place"])
def test_a_kill_after_the_manifest_costs_no_row(embedder, lines, tmp_path, step, monkeypatch):
    made(embedder, lines, tmp_path / "whole")
    monkeypatch.setattr(sharded, step, lambda *_: (_ for _ in ()).throw(_Killed()))
    with pytest.raises(_Killed):
        made(embedder, lines, tmp_path / "out")
    monkeypatch.undo()
    assert made(embedder, lines, tmp_path / "out").rows == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "out", "whole"]


def test_a_worker_in_another_folder_writes_to_the_same_place(embedder, lines, tmp_path, monkeypatch):
    class Elsewhere(InThisProcess):
        def made(self, *given):
            with monkeypatch.context() as patch:
                patch.chdir(tmp_path / "elsewhere")
                yield from super().made(*given)

    (tmp_path / "elsewhere").mkdir()
    made(embedder, lines, tmp_path / "whole")
    monkeypatch.chdir(tmp_path)
    made(embedder, lines, "out", Elsewhere())
    assert files(tmp_path / "out") == files(tmp_path / "whole") and not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.parametrize("there", ["nothing", "a folder", "shards"])
def test_a_link_stands_for_the_folder_that_it_leads_to(embedder, lines, tmp_path, there):
    link, real = tmp_path / "link", tmp_path / "disk" / "real"
    real.parent.mkdir()
    link.symlink_to(real)
    if there != "nothing":
        real.mkdir()
    if there == "shards":
        made(embedder, lines, link)
    made(embedder, lines, link)
    assert link.is_symlink() and read_manifest(link)["rows"] == 5 and [*real.parent.iterdir()] == [real]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "lines.txt", "link"]


def test_what_cannot_be_replaced_stays(embedder, lines, tmp_path, monkeypatch):
    made(embedder, lines, tmp_path / "out")
    before, replace = files(tmp_path / "out"), os.replace

    def full(source, target):
        if Path(source).name == "shards":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space"):
        made(embedder, lines, tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "out", "out.unfinished"]
