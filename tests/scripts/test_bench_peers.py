"""The comparison with peers: who takes part, what fails and what does not, and the table that comes of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from clipq.errors import ClipqError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
MEASURING = ROOT / "scripts" / "measuring"
sys.path.insert(0, str(MEASURING))  # scripts/ is no package; a fresh process gets this path too

import bench_peers  # noqa: E402
from peers import measuring, racing, torch_peers, workspace  # noqa: E402
from peers.contestant import Contestant, reason_to_skip  # noqa: E402
from peers.contestants import CONTESTANTS, YARDSTICKS, chosen  # noqa: E402
from peers.racing import Race, best_rows, promising  # noqa: E402

CLIPQ, EAGER = (one.name for one in YARDSTICKS)


def tiny_model():
    from tiny_models import build, config

    from clipq.inputs.tokenization import TokenizerSpec
    from clipq.models import Model

    return Model(
        build("open_clip CLIP"),
        config=config("open_clip CLIP"),
        preprocessing={"kind": "open_clip", "size": 32},
        tokenizer=TokenizerSpec({"kind": "open_clip", "context_length": 16}),
        source={"name": "tiny"},
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import clipq

    return clipq.save(tiny_model(), tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> workspace.Workspace:
    """A workspace of the tiny model, as `bench_peers` prepares it."""
    place = workspace.Workspace(tmp_path_factory.mktemp("workspace"), 1, ("image", "text"), 2)
    workspace.prepare(place, tiny_model(), samples=2)
    return place


def nothing_but_zeros(inputs: np.ndarray) -> np.ndarray:
    return np.zeros((len(inputs), 48), np.float32)


def not_finite(inputs: np.ndarray) -> np.ndarray:
    return np.full((len(inputs), 48), np.nan, np.float32)


def refuses(*arguments: object) -> None:
    raise RuntimeError("\n\nno such kernel\nand a long explanation")


def settings_of(encode, place, tower, batch):
    return {"only": partial(_given, encode)}


def _given(encode):
    return encode


def contestant(name: str, encode=nothing_but_zeros, **other) -> Contestant:
    return Contestant(name, "int8", (), ("numpy",), partial(settings_of, encode), **other)


def arguments(weights: Path, output: Path, *more: str) -> list[str]:
    fast = ["--batch-sizes", "1,2", "--runs", "2", "--threads", "1", "--calibration", "2"]
    return ["--weights", str(weights), *fast, "--output", str(output), *more]


@pytest.fixture(scope="module")
def result(weights, tmp_path_factory) -> dict:
    """One run of the script with contestants that need torch only; the line it wrote."""
    output = tmp_path_factory.mktemp("results") / "peers-tiny.jsonl"
    bench_peers.main(arguments(weights, output, "--only", "torch bf16", "--all", "--no-memory"))
    return json.loads(output.read_text(encoding="utf-8"))


def test_every_contestant_meets_every_input_and_batch_size(result):
    cells = {(row["tower"], row["input"], row["batch_size"]) for row in result["rows"]}
    kinds = [("image", "images"), ("text", "captions"), ("text", "full")]
    assert cells == {(*kind, size) for kind in kinds for size in (1, 2)}
    assert len(result["rows"]) == len(cells) * len([CLIPQ, EAGER, "torch bf16"])
    assert not result["failures"]


def test_times_ratios_and_cosines_belong_together(result):
    own = {(r["tower"], r["input"], r["batch_size"]): r["ms"] for r in result["rows"] if r["contestant"] == CLIPQ}
    for row in result["rows"]:
        assert 0 < row["ms"]["min"] <= row["ms"]["median"] <= row["ms"]["max"]
        clipq = own[row["tower"], row["input"], row["batch_size"]]
        assert row["ratio"] == pytest.approx(row["ms"]["median"] / clipq["median"])
        assert row["cosine"]["min"] > 0.99
        if row["contestant"] == EAGER:
            assert row["cosine"]["min"] == pytest.approx(1)


def test_a_result_says_where_it_comes_from(result):
    assert result["model"]["name"] == "tiny" and result["weights"] == "given"
    assert result["environment"]["threads"] == 1
    measured = {one["name"]: one for one in result["contestants"]}
    assert measured["torch bf16"]["versions"]["torch"] == result["environment"]["versions"]["torch"]
    assert {one["status"] for one in measured.values()} == {"measured"}
    assert result["inputs"]["tokens"]["full"] == {"min": 16, "mean": 16, "max": 16}


def test_a_second_run_is_a_second_line(weights, tmp_path, capsys):
    output = tmp_path / "results.jsonl"
    for _ in range(2):
        more = ("--only", CLIPQ, "--towers", "text", "--no-memory", "--quick")
        bench_peers.main(arguments(weights, output, *more))
    first, second = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert first["runs"] == second["runs"] == 3
    assert {row["batch_size"] for row in first["rows"]} == {1, 8}
    assert "text tower, captions, batch 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (contestant("exports", export=refuses), "RuntimeError: no such kernel"),
        (Contestant("opens", "int8", (), (), lambda *_: {"only": refuses}), "only: RuntimeError: no such kernel"),
        (contestant("runs", refuses), "only: RuntimeError: no such kernel"),
        (contestant("is not finite", not_finite), "only: ValueError: the embeddings are not finite"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_contestant_that_fails_is_reported_and_the_others_go_on(place, wrong, why):
    race = Race(place, [*YARDSTICKS, wrong], (1,), 1)
    race.run()
    assert {row["contestant"] for row in race.rows} == {CLIPQ, EAGER}
    assert {(failure["contestant"], failure["error"]) for failure in race.failures} == {(wrong.name, why)}
    status = {one["name"]: (one["status"], one["reason"]) for one in race.entries()}
    assert status == {CLIPQ: ("measured", None), EAGER: ("measured", None), wrong.name: ("failed", why)}


def test_who_is_missing_is_skipped_by_name(place):
    missing = Contestant("absent", "int8", ("no-such-distribution", "numpy"), (), refuses)
    optional = contestant("optional", flag="compile")
    unfit = contestant("unfit", obstacle=lambda: "this processor cannot")
    race = Race(place, [missing, optional, unfit], (1,), 1)
    assert race.skipped() == {
        "absent": "not installed: no-such-distribution",
        "optional": "only with --compile",
        "unfit": "this processor cannot",
    }
    race.run()
    assert not race.rows and not race.failures
    assert reason_to_skip(missing, True, frozenset()) == "not installed: no-such-distribution"
    assert reason_to_skip(unfit, True, frozenset()) is None
    assert reason_to_skip(optional, False, frozenset({"compile"})) is None


def test_choosing_keeps_the_yardsticks():
    assert chosen() == list(CONTESTANTS)
    assert [one.name for one in chosen(only=["OpenVINO fp32"])] == [CLIPQ, EAGER, "OpenVINO fp32"]
    assert {one.name for one in CONTESTANTS} - {one.name for one in chosen(without=["torch bf16"])} == {"torch bf16"}
    with pytest.raises(UnknownNameError, match="Did you mean 'OpenVINO fp32'"):
        chosen(only=["Openvino fp32"])


def test_a_wrong_name_ends_the_script_with_one_line():
    with pytest.raises(SystemExit, match="unknown architecture 'ViT-B-33'. Did you mean 'ViT-B-32'"):
        bench_peers.main(["--model", "ViT-B-33"])


def test_only_models_of_open_clip_can_be_exported(tmp_path):
    from tiny_models import build

    import clipq

    file = clipq.save(build("transformers CLIP"), tmp_path / "other.safetensors")
    with pytest.raises(ClipqError, match="fp32 open_clip models"):
        workspace.open_model("", str(file))


def test_the_fastest_setting_counts_and_hopeless_ones_are_not_timed():
    once = {(CLIPQ, "only"): 1.0, ("peer", "fast"): 2.0, ("peer", "slower"): 2.5, ("peer", "hopeless"): 9.0}
    assert promising(once) == [(CLIPQ, "only"), ("peer", "fast"), ("peer", "slower")]
    samples = {(CLIPQ, "only"): [10.0, 30.0, 20.0], ("peer", "fast"): [9.0, 40.0, 50.0], ("peer", "slower"): [30.0] * 3}
    own, peer = best_rows(samples, once)
    assert own["ratio"] == 1 and own["ms"] == {"median": 20, "min": 10, "max": 30} and not own["other_settings_ms"]
    assert (peer["setting"], peer["ratio"]) == ("slower", 1.5)
    assert peer["other_settings_ms"] == {"fast": 40.0, "hopeless": 9000.0}


def test_who_is_far_too_slow_is_timed_once_and_left_out_of_larger_batches(place, monkeypatch):
    monkeypatch.setattr(racing, "single", lambda encode, inputs: 9.0 if encode is nothing_but_zeros else 1.0)
    race = Race(place, [*YARDSTICKS, contestant("slow")], (2, 1), 3)
    race.run()
    slow = [row for row in race.rows if row["contestant"] == "slow"]
    assert {(row["batch_size"], row["samples"], row["ms"]["median"]) for row in slow} == {(1, 1, 9000.0)}
    assert {row["samples"] for row in race.rows if row["contestant"] != "slow"} == {3}
    assert {(f["contestant"], f["batch_size"], f["error"][:9]) for f in race.failures} == {("slow", 2, "left out:")}


def test_turns_alternate():
    calls = []
    encoders = {(name, ""): partial(lambda name, inputs: calls.append(name), name) for name in "ABC"}
    once = dict.fromkeys(encoders, measuring.SAMPLE_SECONDS / 2)
    samples, errors = measuring.in_turns(encoders, np.zeros(1), 4, once)
    assert calls == list("AABBCC") * 4  # two calls fill a sample
    assert {len(found) for found in samples.values()} == {4} and not errors


def test_who_fails_late_loses_only_its_own_samples():
    calls = []

    def second_time(inputs: np.ndarray) -> None:
        calls.append(inputs)
        if len(calls) == 2:
            raise MemoryError

    encoders = {("A", ""): nothing_but_zeros, ("B", ""): second_time}
    samples, errors = measuring.in_turns(encoders, np.zeros(1), 3, dict.fromkeys(encoders, 1.0))
    assert [*samples] == [("A", "")] and len(samples["A", ""]) == 3
    assert errors == {("B", ""): "MemoryError"}


def test_memory_is_measured_in_a_fresh_process(place):
    found = measuring.memory(contestant("zeros"), place)
    assert 0 < found["idle"] <= found["loaded"] <= found["peak"]


def test_the_plain_module_is_the_model_that_was_given(place):
    import torch

    model, plain = tiny_model().module, workspace.plain_module(place)
    tokens = torch.from_numpy(place.inputs("captions"))
    pixels = torch.from_numpy(place.inputs("images"))
    assert {type(part).__module__.split(".")[0] for part in plain.modules()} <= {"open_clip", "torch"}
    with torch.inference_mode():
        torch.testing.assert_close(plain.encode_text(tokens), model.encode_text(tokens))
        torch.testing.assert_close(plain.encode_image(pixels), model.encode_image(pixels))


def test_attention_made_of_linears_is_the_same_attention(place):
    import torch
    from torch import nn

    plain, rewritten = workspace.plain_module(place), workspace.plain_module(place)
    torch_peers.with_linear_attention(rewritten)
    assert not [part for part in rewritten.modules() if isinstance(part, nn.MultiheadAttention)]
    tokens, pixels = (torch.from_numpy(place.inputs(kind)) for kind in ("captions", "images"))
    with torch.inference_mode():
        torch.testing.assert_close(rewritten.encode_text(tokens), plain.encode_text(tokens))
        torch.testing.assert_close(rewritten.encode_image(pixels), plain.encode_image(pixels))


def test_captions_have_6_to_40_tokens_and_full_texts_have_all():
    from open_clip import get_tokenizer

    texts = workspace.texts(32, 8)
    found = {kind: workspace.lengths(get_tokenizer("ViT-B-32")(texts[kind])) for kind in ("captions", "full")}
    assert (found["captions"]["min"], found["captions"]["max"]) == (6, 40)
    assert 8 < found["captions"]["mean"] < 20
    assert found["full"] == {"min": 77, "mean": 77, "max": 77}
    for kind in found:
        assert len(set(texts[kind])) == 32, "equal prompts would be encoded once by whoever notices"


def test_the_pictures_of_a_folder_are_used(tmp_path):
    from PIL import Image

    for value in (0, 255):
        Image.new("L", (8, 8), value).save(tmp_path / f"{value}.png")
    found = [picture.getpixel((0, 0)) for picture in workspace.pictures(tmp_path, 3)]
    assert {*found} == {(0, 0, 0), (255, 255, 255)} and found[2] == found[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipqError, match="no pictures"):
        list(workspace.pictures(tmp_path / "empty", 1))


@pytest.fixture(scope="module")
def make_tables():
    spec = importlib.util.spec_from_file_location("make_tables_script", MEASURING / "make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_table_comes_from_the_last_line_of_a_result_file(make_tables, result, tmp_path):
    newest = json.loads(json.dumps(result))
    newest["model"]["name"], newest["weights"] = "ViT-X", "random"
    newest["contestants"][1]["memory"] = {"idle": 100e6, "loaded": 200e6, "peak": 300e6}
    newest["contestants"].append({**newest["contestants"][0], "name": "absent", "status": "skipped", "reason": "why"})
    newest["failures"] = [{"contestant": "broken", "tower": "text", "error": "RuntimeError: no such kernel"}] * 2
    (tmp_path / "peers-x.jsonl").write_text(f"{json.dumps(result)}\n{json.dumps(newest)}\n", encoding="utf-8")
    text = make_tables.peer_tables(tmp_path)
    assert text.startswith("**ViT-X against peers.** Random weights. Milliseconds")
    lines = [line for line in text.splitlines() if line.startswith("| torch fp32 ")]
    assert len(lines) == 3 and all(line.endswith("| 1.00000 | 300 (100) |") for line in lines)
    assert text.count("1.00 x") >= 6
    assert text.endswith("Skipped: absent (why).\n\nFailed: broken, text (RuntimeError: no such kernel).")


def test_tables_change_nothing_but_what_is_between_their_markers(make_tables, tmp_path):
    assert make_tables.peer_tables(tmp_path) == ""
    text = "before <!-- a -->\nold\n<!-- /a --> between <!-- b --><!-- /b --> after"
    new = make_tables.written(text, {"a": lambda: "1", "b": lambda: "2"})
    assert new == "before <!-- a -->\n1\n<!-- /a --> between <!-- b -->\n2\n<!-- /b --> after"
    assert make_tables.written(new, {"a": lambda: "1", "b": lambda: "2"}) == new
    with pytest.raises(ValueError, match="<!-- c -->"):
        make_tables.written(text, {"c": lambda: "1"})
