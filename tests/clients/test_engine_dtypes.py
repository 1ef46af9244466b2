"""Compressed vectors by the processes of this machine and by Ray: the bytes of one process (Daft: test_daft_engine)."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipq.embedding import Embedder, ShardedFolder
from clipq.embedding.sharded import embed_with
from clipq.engines.local import Local
from clipq.engines.table import engine_named
from clipq.matrices import read_shards

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages


@pytest.fixture(scope="module")
def pictures(drawings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for number, picture in enumerate(drawings):
        picture.save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray")
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield module
    module.shutdown()


def files(engine, pictures: Path, folder: Path, dtype: str) -> dict[str, bytes]:
    into = ShardedFolder(folder, 8, "parquet")
    embed_with(engine, Embedder("clipq-tiny", batch_size=4, dtype=dtype), pictures, into, progress=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes_of_this_machine(pictures, tmp_path, dtype="int8"):
    alone = files(Local(threads=1), pictures, tmp_path / "one", dtype)
    assert files(Local(2, 1), pictures, tmp_path / "two", dtype) == alone and len(alone) >= 4
    assert sum(len(shard.names) for shard in read_shards(tmp_path / "two")) == 23


def test_ray(pictures, ray, tmp_path, dtype="ubinary"):
    alone = files(Local(threads=1), pictures, tmp_path / "local", dtype)
    assert files(engine_named("ray", 2, 1), pictures, tmp_path / "ray", dtype) == alone and len(alone) >= 4
