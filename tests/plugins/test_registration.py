"""transformers knows clipq's quantizer as soon as both are imported, whichever comes first; clipq alone stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

ORDERS = {
    "clipq first, twice": "import clipq, importlib as i; i.reload(clipq); from transformers.quantizers import auto",
    "transformers first": "import transformers; from transformers.quantizers import auto; import clipq",
}
CHECK = """
import sys
assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["clipq"] is clipq.ClipqConfig
assert auto.AUTO_QUANTIZER_MAPPING["clipq"].__name__ == "ClipqQuantizer"
assert not [one for one in sys.meta_path if type(one).__module__.startswith("clipq")]
"""


@pytest.mark.parametrize("order", ORDERS)
def test_in_whichever_order(order):
    subprocess.run([sys.executable, "-c", ORDERS[order] + CHECK], check=True, timeout=120)


def test_clipq_alone_imports_nothing():
    code = "import sys, clipq; heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
