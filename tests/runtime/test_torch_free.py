"""The inputs of clipq.runtime are made without torch and the hosts: of imports, building and calling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizer_cases
from checkpoint_helpers import hf_tokenizer

from clipq.inputs.tokenization import describe_tokenizer

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("torch", "torchvision", "open_clip", "transformers", "timm", "datasets", "huggingface_hub", "regex")
IMPORT = "import clipq.runtime.preprocessing, clipq.runtime.tokenizing"
PIXELS = f"""{IMPORT}
from PIL import Image
image = Image.linear_gradient("L")
for settings in (
    {{"kind": "open_clip", "resize_mode": "longest", "size": [20, 30]}},
    {{"kind": "timm", "crop_mode": "border"}},
    {{"kind": "transformers", "image_processor_type": "CLIPImageProcessor"}},
    {{"kind": "transformers", "image_processor_type": "SiglipImageProcessorPil"}},
):
    assert clipq.runtime.preprocessing.build_pixels(settings)(image).shape[0] == 3
"""
OPEN_CLIP = f"""{IMPORT}
tokens = clipq.runtime.tokenizing.build_tokens({{"kind": "open_clip", "context_length": 77}}, {{}})
assert tokens(TEXTS).shape == (len(TEXTS), 77)
"""
OTHERS = f"""{IMPORT}
import json, sys
settings, files = json.loads(sys.argv[1])
assert clipq.runtime.tokenizing.build_tokens(settings, files)(["a cat"]).shape == (1, 16)
"""


def modules_after(code: str, *arguments: str) -> set[str]:
    """The top-level modules that are imported when `code` has run in a process of its own."""
    report = "\nimport sys; print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code + report, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split("MODULES ")[-1].split())


@pytest.mark.parametrize("code", [IMPORT, PIXELS], ids=["import", "pixels"])
def test_pictures(code):
    found = modules_after(code)
    assert not found & {*HOSTS, "tokenizers", "ftfy"}
    assert "numpy" in found


def test_open_clips_tokens_of_ascii_need_nothing():
    found = modules_after(f"TEXTS = ['a photo of a cat', '&amp; <b>', '']\n{OPEN_CLIP}")
    assert not found & {*HOSTS, "tokenizers", "ftfy", "PIL"}


def test_open_clips_tokens_of_other_texts_need_ftfy():
    found = modules_after(f"TEXTS = ['caf\\u00e9']\n{OPEN_CLIP}")
    assert not found & {*HOSTS, "tokenizers"}
    assert "ftfy" in found


@pytest.mark.parametrize("text", ["caf\\u00e9", "caf&eacute;"])
def test_without_ftfy_the_error_says_how_to_install_it(text):
    code = f"""
import sys; sys.modules["ftfy"] = None
{IMPORT}
from clipq.errors import MissingPackageError
tokens = clipq.runtime.tokenizing.build_tokens({{"kind": "open_clip", "context_length": 77}}, {{}})
tokens("a cat")
try: tokens("{text}")
except MissingPackageError as error: assert "pip install ftfy" in str(error), error
else: raise SystemExit("no error")
"""
    assert not modules_after(code) & set(HOSTS)


@pytest.mark.parametrize("made", [hf_tokenizer, tokenizer_cases.clip, tokenizer_cases.t5], ids=["BERT", "CLIP", "T5"])
def test_tokens_of_transformers_need_tokenizers_alone(made):
    spec = describe_tokenizer(made(), 16)
    found = modules_after(OTHERS, json.dumps([spec.settings, spec.files]))
    assert not found & {*HOSTS, "ftfy", "PIL"}
    assert "tokenizers" in found


def test_clipq_itself_imports_none_of_it():
    assert not modules_after("import clipq, clipq.runtime") & {*HOSTS, "numpy", "PIL", "tokenizers", "ftfy"}
