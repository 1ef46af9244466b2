"""The float model that a quantized file was made from."""

from __future__ import annotations

import json

import pytest
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, model
from cli_helpers import error_of

import clipq
from clipq.cli import main
from clipq.cli.baseline import float_origin
from clipq.errors import ClipqError


@pytest.fixture
def made(tmp_path):
    """A file of a quantized model that says it comes from `source`."""

    def make(source: dict, kind: str = OPEN_CLIP, precision: str = "int8") -> str:
        clipq.save(model(kind, precision, source=source), tmp_path / "made.safetensors")
        return str(tmp_path / "made.safetensors")

    return make


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"name": "clipq-tiny/deit"}, ("clipq-tiny/deit", None)),
        ({"name": "ViT-B-32-openai"}, ("ViT-B-32-openai", None)),
        ({"name": "x", "arch": "RN50", "tag": "openai"}, ("RN50", "openai")),
    ],
)
def test_names_that_others_know(made, source, found):
    assert tuple(float_origin(made(source)).values()) == found


def test_a_transformers_model_is_named_by_its_base(made):
    assert float_origin(made({"base": "org/name"}, TWO_TOWERS))["name_or_path"] == "org/name"


@pytest.mark.parametrize(
    "source",
    [{}, {"name": "x"}, {"name": 5, "arch": ["RN50"]}, {"arch": "RN50", "tag": "none"}, {"arch": "/etc", "tag": "x"},
     {"base": "org/name"}, {"name": "/etc/passwd"}],
)  # fmt: skip
def test_a_file_that_names_nothing_says_how_to_name_it(made, source):
    with pytest.raises(ClipqError, match="--baseline MODEL"):
        float_origin(made(source))


def test_what_has_an_fp32_self_needs_no_other(made, tmp_path):
    assert (
        float_origin(made({}, precision="fp32"))
        is float_origin("ViT-B-32/openai")
        is float_origin(str(tmp_path))
        is None
    )


def test_bench_and_eval_of_a_quantized_file(quantized, task, capsys):
    """The tiny model lies in a folder, which no other machine knows; the embedded one has a name."""
    tiny = str(clipq.resources.resource("zoo", "clipq-tiny", "clipq-tiny-int8.safetensors"))
    bench = ["bench", tiny, "--batch-sizes", "1", "--runs", "1", "--no-memory", "--json"]
    assert main(bench) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["baseline"]["name"] == "clipq-tiny/deit"
    assert f"clipq: the baseline is clipq-tiny/deit in fp32, which {tiny} says it was made from" in err
    for argv in (["bench", str(quantized)], ["eval", str(quantized), "--task", task, "--baseline"]):
        assert main(argv) == 1
        assert "--baseline MODEL" in error_of(capsys)
