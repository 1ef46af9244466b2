"""Scripts on the path, and one run of the comparison with peers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURING = ROOT / "scripts" / "measuring"
sys.path.insert(0, str(MEASURING))  # scripts/ is no package; a fresh process gets this path too

import bench_peers  # noqa: E402
from peer_helpers import arguments, tiny_model  # noqa: E402
from peers import workspace  # noqa: E402


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    import clipq

    return clipq.save(tiny_model(), tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> workspace.Workspace:
    """A workspace of the tiny model, as `bench_peers` prepares it."""
    place = workspace.Workspace(tmp_path_factory.mktemp("workspace"), 1, ("image", "text"), 2)
    workspace.prepare(place, tiny_model(), samples=2)
    return place


@pytest.fixture(scope="session")
def result(weights, tmp_path_factory) -> dict:
    """One run of the script with contestants that need torch only; the line it wrote."""
    output = tmp_path_factory.mktemp("results") / "peers-tiny.jsonl"
    bench_peers.main(arguments(weights, output, "--only", "torch bf16", "--all", "--no-memory"))
    return json.loads(output.read_text(encoding="utf-8"))
