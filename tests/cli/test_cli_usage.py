"""Usage, exit codes and messages, in this process and as a real one."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from cli_helpers import error_of

import clipq
from clipq.cli import main, one_line, show


@pytest.mark.parametrize("command", ["list", "info", "quantize", "finetune", "eval", "bench", "embed", "demo"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"usage: clipq {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["lst"],
        ["quantize", "ViT-B-32"],
        ["quantize", "ViT-B-32", "-o", "x.safetensors", "--precision", "int9"],
        ["eval", "ViT-B-32"],
        ["eval", "ViT-B-32", "--task", "x", "--limit", "0"],
        ["bench", "ViT-B-32", "--batch-sizes", "1,two"],
        ["info", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: clipq" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.split() == ["clipq", clipq.__version__]


def test_an_unknown_model_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(["quantize", "ViT-B-23", "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "'ViT-B-32'" in error_of(capsys)
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_found_before_a_model_is_loaded(capsys):
    assert main(["eval", "no-such-model", "--task", "imagenet"]) == 1
    assert "unknown task 'imagenet'" in error_of(capsys)


def test_warnings_are_one_line(capsys, recwarn):
    import warnings

    from clipq.cli import _one_line_warnings
    from clipq.errors import ClipqWarning

    with _one_line_warnings():
        warnings.simplefilter("always")
        warnings.warn("half of it stays float", ClipqWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "clipq: warning: half of it stays float"
    assert "UserWarning: something else" in err or any(str(w.message) == "something else" for w in recwarn)


def test_retries_of_the_hub_are_one_line(caplog):
    """The lines are those of huggingface_hub 1.x; to make it write them takes 23 seconds."""
    from clipq.cli import _one_line_of_retries

    logger = logging.getLogger("huggingface_hub.utils._http")
    with _one_line_of_retries():
        for i in range(1, 6):
            logger.warning("'[Errno 111] Connection refused' thrown while requesting GET https://hub/x")
            logger.warning(f"Retrying in 1s [Retry {i}/5].")
        logger.warning("something else")
    first, last = caplog.messages
    assert first.startswith("clipq: '[Errno 111] Connection refused' thrown") and first.endswith("half a minute")
    assert last == "something else" and not logger.filters


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a reason.. Do\n it..", "a reason. Do it."),
        ("in ../x and x/.. and ... so on", "in ../x and x/.. and ... so on"),
        ("device='tpu' is none (pretrained=TAG)", "--device tpu is none (--pretrained TAG)"),
        ("batch_size=0 of x/precision=1/cache_dir=y", "--batch-size 0 of x/precision=1/cache_dir=y"),
    ],
)
def test_messages_are_one_line_in_the_words_of_the_command_line(text, line):
    assert one_line(text) == line


@pytest.mark.parametrize(("device", "words"), [("tpu", "unknown device 'tpu'"), ("cuda:99", "This machine has: cpu")])
def test_a_device_that_is_not_here_is_one_line(device, words, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("x")
    assert (
        main(["embed", "clipq-tiny", str(tmp_path / "x.txt"), "-o", str(tmp_path / "x.npy"), "--device", device]) == 1
    )
    assert words in error_of(capsys)


def test_sizes_and_counts_read_well():
    assert [show.size(n) for n in (0, 999, 1000, 12_345_678, 2_500_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "2.50 GB",
    ]
    assert [show.number(n) for n in (7, 1500, 151_277_313)] == ["7", "1.5 k", "151.3 M"]


def test_the_module_and_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "clipq", "info", "no-such-file"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("clipq: error: ")
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m clipq list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
