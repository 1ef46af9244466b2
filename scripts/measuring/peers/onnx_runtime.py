"""ONNX Runtime: fp32, and the dynamic int8 of its own quantization tool."""

from __future__ import annotations

from functools import partial

from .contestant import Contestant, Encode, Settings, no_vnni
from .workspace import Workspace, tower_module

_PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def export_fp32(workspace: Workspace, tower: str) -> None:
    """torch's exporter to ONNX, the batch left open."""
    import torch

    path = workspace.file(f"{tower}.onnx")
    if path.exists():
        return
    kind = {"image": "images", "text": "captions"}[tower]
    example = torch.from_numpy(workspace.inputs(kind)[:2])
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.onnx.export(
        tower_module(workspace, tower),
        (example,),
        path,
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=["input"],
        output_names=["output"],
        external_data=False,
        verbose=False,
    )


def export_int8(workspace: Workspace, tower: str) -> None:
    """`quantize_dynamic` as ONNX Runtime's documentation has it for transformers: signed weights per channel.

    Seven-bit weights (`reduce_range`) where the processor adds products in 16 bits, which would saturate. The patch
    embedding stays float: a ConvInteger is slower, and not implemented for signed weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    export_fp32(workspace, tower)
    path = workspace.file(f"{tower}-int8.onnx")
    if not path.exists():
        quantize_dynamic(
            workspace.file(f"{tower}.onnx"),
            path,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=no_vnni(),
            weight_type=QuantType.QInt8,
        )


def settings(workspace: Workspace, tower: str, batch: int, suffix: str) -> Settings:
    return {"all optimizations": partial(_session, workspace, f"{tower}{suffix}")}


def _session(workspace: Workspace, name: str) -> Encode:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = workspace.threads, 1
    # Its threads spin while it runs, which is its best setting and its default, and stop when the call returns:
    # otherwise they would take the processor from whoever's turn comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(workspace.file(name), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {"input": inputs})[0]


CONTESTANTS = (
    Contestant(
        "ONNX Runtime fp32",
        "fp32",
        _PACKAGES,
        ("onnxruntime", "numpy"),
        partial(settings, suffix=".onnx"),
        export=export_fp32,
        about="torch.onnx.export, all graph optimizations; threads spin during calls only",
    ),
    Contestant(
        "ONNX Runtime dynamic int8",
        "int8",
        _PACKAGES,
        ("onnxruntime", "numpy"),
        partial(settings, suffix="-int8.onnx"),
        export=export_int8,
        about="quantize_dynamic of MatMul and Gather, per channel, QInt8; 7-bit weights without VNNI",
    ),
)
