"""OpenVINO: fp32, bf16, NNCF's static int8, and weight compression with dynamically quantized activations."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from .contestant import Contestant, Encode, Settings, no_native_bf16
from .workspace import Workspace, tower_module

if TYPE_CHECKING:
    import numpy as np

_QUEUED_FROM = 32  # the batch from which a queue of smaller requests is tried beside one request


def export_fp32(workspace: Workspace, tower: str) -> None:
    """OpenVINO's own conversion of the torch module, weights in fp32."""
    import openvino
    import torch

    path = workspace.file(f"{tower}.xml")
    if not path.exists():
        example = torch.from_numpy(workspace.inputs({"image": "images", "text": "captions"}[tower])[:2])
        with torch.no_grad():
            model = openvino.convert_model(tower_module(workspace, tower), example_input=example)
        openvino.save_model(model, path, compress_to_fp16=False)


def export_static(workspace: Workspace, tower: str) -> None:
    """NNCF's post-training quantization for transformers; SmoothQuant's alpha is optimum-intel's for CLIP."""
    import nncf
    import openvino

    def quantized(model: openvino.Model) -> openvino.Model:
        samples = [row[None] for row in workspace.calibration(tower)]
        smooth = nncf.AdvancedSmoothQuantParameters(matmul=0.6)
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
        )

    _derive(workspace, tower, "static", quantized)


def export_compressed(workspace: Workspace, tower: str) -> None:
    """NNCF's weight compression, with a zero point and without."""
    import nncf

    for name, mode in (("asym", nncf.CompressWeightsMode.INT8_ASYM), ("sym", nncf.CompressWeightsMode.INT8_SYM)):
        _derive(workspace, tower, name, partial(nncf.compress_weights, mode=mode))


def _derive(workspace: Workspace, tower: str, name: str, change: Any) -> None:
    import logging

    import nncf
    import openvino

    export_fp32(workspace, tower)
    path = workspace.file(f"{tower}-{name}.xml")
    if not path.exists():
        nncf.set_log_level(logging.ERROR)
        model = openvino.Core().read_model(workspace.file(f"{tower}.xml"))
        openvino.save_model(change(model), path, compress_to_fp16=False)


def float_settings(workspace: Workspace, tower: str, batch: int, precision: str) -> Settings:
    return _settings(workspace, f"{tower}.xml", batch, {"INFERENCE_PRECISION_HINT": precision})


def static_settings(workspace: Workspace, tower: str, batch: int) -> Settings:
    """What stays float runs in OpenVINO's own choice: bf16 where the processor has it."""
    return _settings(workspace, f"{tower}-static.xml", batch, {})


def compressed_settings(workspace: Workspace, tower: str, batch: int) -> Settings:
    """Groups of 32 are OpenVINO's default; larger groups may be faster."""
    found: Settings = {}
    for name in ("asym", "sym"):
        for group in (32, 128):
            options = {"PERFORMANCE_HINT": "LATENCY", "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
            found[f"{name}, groups of {group}"] = partial(_whole, workspace, f"{tower}-{name}.xml", batch, options)
    return found


def _settings(workspace: Workspace, name: str, batch: int, options: dict[str, Any]) -> Settings:
    """One request for the whole batch (LATENCY), and for large batches also a queue of smaller ones (THROUGHPUT)."""
    found: Settings = {"latency": partial(_whole, workspace, name, batch, {"PERFORMANCE_HINT": "LATENCY", **options})}
    if batch >= _QUEUED_FROM:
        hint = {"PERFORMANCE_HINT": "THROUGHPUT", **options}
        found["throughput"] = partial(_queue, workspace, name, batch, hint)
    return found


def _compiled(workspace: Workspace, name: str, batch: int, options: dict[str, Any]) -> Any:
    """The model for exactly this batch: with fixed shapes OpenVINO plans its memory and kernels ahead."""
    import openvino

    core = openvino.Core()
    model = core.read_model(workspace.file(name))
    kind = "images" if name.startswith("image") else "captions"
    model.reshape([batch, *workspace.inputs(kind).shape[1:]])
    return core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": workspace.threads, **options})


def _whole(workspace: Workspace, name: str, batch: int, options: dict[str, Any]) -> Encode:
    request = _compiled(workspace, name, batch, options).create_infer_request()

    def encode(inputs: np.ndarray) -> np.ndarray:
        return request.infer([inputs], share_inputs=True, share_outputs=True)[0]

    return encode


def _queue(workspace: Workspace, name: str, batch: int, options: dict[str, Any]) -> Encode:
    """The batch in equal pieces, one for each request that OpenVINO finds best to have under way."""
    import numpy as np
    import openvino

    requests = _compiled(workspace, name, 1, options).get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    piece = math.ceil(batch / requests)
    compiled = _compiled(workspace, name, piece, options)
    queue = openvino.AsyncInferQueue(compiled, requests)
    width = compiled.output(0).shape[1]

    def encode(inputs: np.ndarray) -> np.ndarray:
        outputs = np.empty((len(inputs), width), np.float32)

        def keep(request: Any, begin: int) -> None:
            outputs[begin : begin + piece] = request.get_output_tensor().data[: len(inputs) - begin]

        queue.set_callback(keep)
        for begin in range(0, len(inputs), piece):
            part = inputs[begin : begin + piece]
            if len(part) < piece:  # the last one, where the requests do not divide the batch
                part = np.concatenate([part, np.repeat(part[-1:], piece - len(part), axis=0)])
            queue.start_async([part], begin, share_inputs=True)
        queue.wait_all()
        return outputs

    return encode


_MODULES = ("openvino", "numpy")
_HINTS = "fixed shapes; LATENCY, at batch 32 also THROUGHPUT with a queue of requests"

CONTESTANTS = (
    Contestant(
        "OpenVINO fp32",
        "fp32",
        ("openvino",),
        _MODULES,
        partial(float_settings, precision="f32"),
        export=export_fp32,
        about=f"INFERENCE_PRECISION_HINT f32; {_HINTS}",
    ),
    Contestant(
        "OpenVINO bf16",
        "bf16",
        ("openvino",),
        _MODULES,
        partial(float_settings, precision="bf16"),
        export=export_fp32,
        obstacle=no_native_bf16,
        about=f"INFERENCE_PRECISION_HINT bf16; {_HINTS}",
    ),
    Contestant(
        "OpenVINO static int8",
        "int8",
        ("openvino", "nncf"),
        _MODULES,
        static_settings,
        export=export_static,
        about=f"nncf.quantize, ModelType.TRANSFORMER, SmoothQuant alpha 0.6; {_HINTS}",
    ),
    Contestant(
        "OpenVINO compressed int8",
        "int8",
        ("openvino", "nncf"),
        _MODULES,
        compressed_settings,
        export=export_compressed,
        about="nncf.compress_weights INT8_ASYM and INT8_SYM, DYNAMIC_QUANTIZATION_GROUP_SIZE 32 and 128, fixed shapes, "
        "LATENCY; activations become int8 only where the processor has VNNI or AMX",
    ),
)
