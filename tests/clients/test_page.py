"""Every block of Python in docs/ runs as it stands, with small models in place of those of the hub."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (DOCS / "use-it-with.md", DOCS / "exports.md", DOCS / "runtime.md", DOCS / "spaces.md", DOCS / "daft.md")
EXTRA = {"sentence_transformers", "faiss", "usearch", "clip_benchmark", "compressed_tensors"}
EXTRA |= {"onnxruntime", "openvino", "MNN", "daft"}
"""What clipq's extras bring."""

STAND_INS = {
    "openai/clip-vit-base-patch32": "{transformers}",
    "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "local-dir:{open_clip}",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": "test_vit",
    "pretrained=True": "pretrained=False",
}
"""What stands in the page, and what the test puts in its place: folders of tiny models, random weights."""


def blocks() -> list[pytest.param]:
    found, heading = [], ""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for part in re.finditer(r"^## ([^\n]+)$|^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        heading = part[1] or heading
        if code := part[2]:
            marks = [pytest.mark.clients] if imports(code) & EXTRA or starts_processes(code) else []
            found.append(pytest.param(code, id=f"{heading.partition(' (')[0]}-{len(found)}", marks=marks))
    return found


def imports(code: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names


def starts_processes(code: str) -> bool:
    """Such a block is a script of its own, which takes the seconds of a fresh interpreter."""
    return "num_proc" in code


def run(code: str, place: Path) -> None:
    if not starts_processes(code):
        exec(compile(code, "a block", "exec"), {"__name__": "__main__"})
        return
    (place / "block.py").write_text(code, "utf-8")
    subprocess.run([sys.executable, "block.py"], cwd=place, check=True, timeout=120)


@pytest.mark.parametrize("code", blocks())
@pytest.mark.filterwarnings("default")  # of other people's packages
def test_a_block_runs_as_it_stands(code, place, clip_folder, open_clip_folder, capsys):
    for package in sorted(imports(code)):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; `make test-clients` installs it")
    for name, stand_in in STAND_INS.items():
        code = code.replace(name, stand_in.format(transformers=clip_folder, open_clip=open_clip_folder))
    run(code, place)
    assert ("print(" in code) == bool(capsys.readouterr().out)


def test_the_page_names_what_the_table_replaces():
    assert len(blocks()) > 8
    text = PAGES[0].read_text("utf-8")
    assert [name for name in STAND_INS if name not in text] == []
