"""`clipq.export` to ONNX: every form of every host in ONNX Runtime, alone and as other programs read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from export_helpers import export, exported_once, model, one_block, parity

import clipq
from clipq.exports import copies, gate, graphs, packages
from clipq.files.header import EXPORT_REPORT

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.clients


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def nodes(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def int8(tmp_path_factory) -> Path:
    """The folder of `model()`. Not to be changed."""
    return exported_once(tmp_path_factory, "open_clip CLIP", "int8")


# -- the same embeddings -------------------------------------------------------------------------------------------

EXACT = {"fp32": 0.999999, "int8": 0.999, "int8-symmetric": 0.999, "int8-weight-only": 0.999999, "int4": 0.999999}
EXACT |= {"fp16": 0.9999, "int8-static": 0.999}
"""The least cosine; of int8 one number in some hundred lies between two integers, and falls to the other one."""
HOSTS = ["open_clip custom blocks", "transformers SigLIP", "timm vision_transformer"]


@pytest.mark.parametrize(
    ("name", "precision"),
    [*(("open_clip CLIP", precision) for precision in EXACT), *((name, "int8") for name in HOSTS)],
)
def test_every_form_gives_the_models_embeddings(tmp_path_factory, name, precision):
    own, folder = model(name, precision), exported_once(tmp_path_factory, name, precision)
    assert set(parity(folder)) == set(own.towers)
    for one in parity(folder).values():
        assert one["worst"] >= EXACT[precision]
    for tower in own.towers:  # with nothing of clipq between the file and the runtime, at another batch
        inputs = gate.samples(own, [tower])[tower][:5]
        (features,) = run(folder / f"{tower}.onnx", **{copies.INPUTS[tower]: inputs.numpy()})
        expected = gate.encode_of(own, tower)(inputs)
        assert torch.cosine_similarity(torch.from_numpy(features), expected).min() >= EXACT[precision]


def test_towers_of_two_precisions(tmp_path):
    found = export(one_block(precision={"image": "int8", "text": "fp16"}), tmp_path / "out")
    assert found.report["model"]["precision"] == {"image": "int8", "text": "fp16"}
    assert "MatMulIntegerToFloat" in {node.op_type for node in nodes(tmp_path / "out" / "image.onnx")}
    types = {one.data_type for one in onnx.load(tmp_path / "out" / "text.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    assert onnx.TensorProto.INT8 not in types


def test_both_towers_in_one_graph(tmp_path):
    own = one_block()
    export(own, tmp_path / "out", layout="together")
    pixels, ids = (gate.samples(own, [tower])[tower] for tower in ("image", "text"))
    features = run(tmp_path / "out" / "model.onnx", pixel_values=pixels[:3].numpy(), input_ids=ids[:7].numpy())
    assert [len(one) for one in features] == [3, 7]  # the two batches have nothing to do with each other
    assert torch.cosine_similarity(torch.from_numpy(features[0]), own.encode_image(pixels[:3])).min() > 0.9999


# -- what is in the files ------------------------------------------------------------------------------------------


def test_integers_are_those_of_the_model(int8):
    own = model()
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(int8 / "image.onnx").graph.initializer}
    own_layer = own.module.visual.transformer.resblocks[0].mlp.c_fc
    kept = stored["module.visual.transformer.resblocks.0.mlp.c_fc._kernel.weight"]
    assert np.array_equal(kept, own_layer.qweight.T.numpy())
    assert sum(array.nbytes for array in stored.values() if array.dtype == np.int8) > 0.6 * sum(
        array.nbytes for array in stored.values()
    )


def test_no_path_of_this_machine_and_no_source_is_in_a_file(int8):
    content = (int8 / "image.onnx").read_bytes()
    assert str(Path(clipq.__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def test_statistics_of_fp16_are_summed_in_fp32(tmp_path_factory):
    folder = exported_once(tmp_path_factory, "open_clip CLIP", "fp16")
    for tower in ("image", "text"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(folder / f"{tower}.onnx")).graph
        types = {one.name: one.type.tensor_type.elem_type for one in graph.value_info}
        found = [node for node in graph.node if node.op_type in ("LayerNormalization", "Softmax")]
        assert found
        assert {types[node.input[0]] for node in found} == {onnx.TensorProto.FLOAT}


def test_large_weights_lie_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "_INLINE_BYTES", 1000)
    found = export(one_block(), tmp_path / "out", towers=("image",))
    assert {"image.onnx", "image.onnx.data"} <= set(found.files)
    assert found.files["image.onnx.data"] > 50_000


def test_the_report_says_what_was_measured_and_the_model_is_left_as_it_was(tmp_path):
    own = one_block()
    before, kinds = own.fingerprint(), [type(part) for part in own.module.modules()]
    found = clipq.export(own, tmp_path / "out")
    assert own.fingerprint() == before
    assert [type(part) for part in own.module.modules()] == kinds
    assert own.kernel_path() == one_block().kernel_path()
    report = json.loads((tmp_path / "out" / EXPORT_REPORT).read_text("utf-8"))
    assert report == found.report
    assert report["runtime"] == {"onnxruntime": packages.version("onnxruntime")}
    assert report["parity"]["image"]["count"] == gate.SAMPLES
    assert set(report["parity"]["text"]["ms"]) == {"1", "8"}
    assert {name: one["bytes"] for name, one in report["files"].items()} == found.files
    assert set(found.files) == {
        "image.onnx",
        "text.onnx",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("opset", [19, 23])
def test_other_opsets(tmp_path, opset):
    export(one_block(), tmp_path / "out", towers=("image",), opset=opset)
    assert {one.version for one in onnx.load(tmp_path / "out" / "image.onnx").opset_import if not one.domain} == {opset}


# -- as other programs read it -------------------------------------------------------------------------------------


def test_immichs_layout(tmp_path):
    own, folder = one_block(), tmp_path / "out"
    export(own, folder, layout="immich")
    context = json.loads((folder / "config.json").read_text("utf-8"))["text_cfg"]["context_length"]
    settings = json.loads((folder / "visual" / "preprocess_cfg.json").read_text("utf-8"))
    assert (settings["size"], settings["interpolation"]) == (32, "bicubic")
    prompts = ["a photo of a cat", "An OWL! at night!", "a cat " * 20]
    ids = as_immich_tokenizes(folder / "textual", prompts, context)
    assert [row[: row.argmax() + 1].tolist() for row in ids] == [
        row[: row.argmax() + 1].tolist() for row in own.tokenizer(prompts).numpy()
    ]
    (texts,) = run(folder / "textual" / "model.onnx", text=ids.astype(np.int32))
    expected = own.encode_text(prompts, normalize=True)
    assert torch.cosine_similarity(torch.from_numpy(texts), expected).min() > 0.999
    assert np.linalg.norm(texts, axis=-1) == pytest.approx(1, abs=1e-5)
    (images,) = run(folder / "visual" / "model.onnx", image=np.zeros((1, 3, 32, 32), np.float32))
    assert np.linalg.norm(images, axis=-1) == pytest.approx(1, abs=1e-5)


def as_immich_tokenizes(folder: Path, texts: list[str], context: int) -> np.ndarray:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    token = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["pad_token"]
    tokenizer.enable_padding(length=context, pad_token=token, pad_id=tokenizer.token_to_id(token))
    tokenizer.enable_truncation(max_length=context)
    return np.array([tokenizer.encode(text).ids for text in texts])


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("int8", {"vision_model_quantized.onnx", "text_model_quantized.onnx"}),
        ({"image": "fp16", "text": "int4"}, {"vision_model_fp16.onnx", "text_model_q4.onnx"}),
        ("fp32", {"vision_model.onnx", "text_model.onnx"}),
    ],
)
def test_the_layout_of_transformers_js(tmp_path, precision, names):
    export(one_block(precision=precision), tmp_path / "out", layout="transformers.js")
    assert {path.name for path in (tmp_path / "out" / "onnx").iterdir()} == names
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "clip"


def test_preprocessing_and_tokenizer_are_hugging_faces(int8, drawings):
    from transformers import AutoImageProcessor, AutoTokenizer

    own = model()
    processor, tokenizer = (kind.from_pretrained(int8) for kind in (AutoImageProcessor, AutoTokenizer))
    pixels = processor(drawings, return_tensors="pt")["pixel_values"]
    assert (pixels - torch.stack([own.preprocess(photo) for photo in drawings])).abs().max() < 0.05  # of -1 to 1
    texts = ["a cat!", "Two dogs & a café", "a " * 40]
    padded = tokenizer(texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    assert torch.allclose(own.encode_text(padded), own.encode_text(own.tokenizer(texts)), atol=1e-5)
