"""clipq's own int8 linear and row quantization for CPUs, as calls of the native library."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import QuantizationError
from ..native.blocks import Matrix
from ..native.library import BAD_SIZE, PATHS, check, load, resolved
from ..native.steps import Linear


class PackedLinear:
    """y = x @ weight.T + bias with int8 weights and activations quantized row by row when called.

    `qweight`: int8 [out, in]; `weight_scale`: float [out] or [out, 1]; `bias`: float [out] or None. `symmetric` chooses
    between [-127, 127] and [-128, 127] with a zero point for the activations; both are defined in
    `clipq.arithmetic.functional`. `static`: scale and zero point for all rows; scale 0: each row has its own.
    `path` forces one of `supported_paths()`. Sums are exact int32; scales and bias are applied in float32,
    with the same bits on every path and for every number of threads. A row with a NaN or an infinity becomes all NaN.
    `step`: the same linear over numpy's arrays, with the same packed bytes.
    Raises `UnknownNameError` for a path that cannot run here, `QuantizationError` for tensors that do not fit together.
    """

    def __init__(
        self,
        qweight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None = None,
        symmetric: bool = False,
        path: str | None = None,
        static: tuple[float, int] = (0.0, 0),
    ):
        self.symmetric, self.static = symmetric, static
        self.out_features, self.in_features = _shape_of(qweight)
        self.scale = _per_channel("weight_scale", weight_scale, self.out_features)
        self.bias = None if bias is None else _per_channel("bias", bias, self.out_features)
        arrays = (qweight.detach().numpy(), self.scale.numpy(), None if bias is None else self.bias.numpy())
        self.step = Linear(Matrix(*arrays, *static, symmetric), path)
        self.path, self.index, self.packed = self.step.path, self.step.index, torch.from_numpy(self.step.packed)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] of any float dtype to [..., out] of the same; computed in float32."""
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise _unfit(x, self.in_features)
        return linear(x, self.packed, self.scale, self.bias, self.symmetric, self.index, *self.static)

    def __repr__(self) -> str:
        return f"PackedLinear({self.in_features}, {self.out_features}, path={self.path!r})"


def linear(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    symmetric: bool,
    path: int,
    input_scale: float = 0.0,
    input_zero_point: int = 0,
) -> Tensor:
    """What `PackedLinear` computes, from its parts; `path`: an index into `PATHS`."""
    out_features = scale.shape[0]
    in_features = x.shape[-1] if x.ndim else 0
    library = load()
    rows = _rows(x, in_features)
    if library.clipq_packed_size(path, out_features, in_features) != packed.shape[0]:
        raise _unfit(x, "as many features as the packed weight takes")
    y = torch.empty(*x.shape[:-1], out_features)
    status = library.clipq_linear(
        path,
        torch.get_num_threads(),
        rows.data_ptr(),
        rows.stride(0),
        rows.shape[0],
        packed.data_ptr(),
        scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        out_features,
        out_features,
        in_features,
        symmetric,
        input_scale,
        input_zero_point,
    )
    check(status)
    return y if x.dtype == torch.float32 else y.to(x.dtype)


def quantize_rows(
    x: Tensor, symmetric: bool = False, path: str | None = None, static: tuple[float, int] = (0.0, 0)
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize each row of `x` [..., n]: int8 of x's shape, float32 scale and int32 zero point, both [..., 1].

    The same numbers as `functional.choose_qparams` (`functional.static_qparams` with a `static` scale and zero point)
    and `functional.quantize` give; a row with a NaN or an infinity gets scale NaN, zero point 0 and q 0. Raises as
    `PackedLinear` does.
    """
    rows = _rows(x, x.shape[-1] if x.ndim else 0)
    m, k = rows.shape
    q, scale, zero_point = torch.empty(m, k, dtype=torch.int8), torch.empty(m), torch.empty(m, dtype=torch.int32)
    outputs = (q.data_ptr(), scale.data_ptr(), zero_point.data_ptr())
    threads, index = torch.get_num_threads(), PATHS.index(resolved(path))
    given = (rows.data_ptr(), rows.stride(0), m, k, symmetric, *static)
    status = load().clipq_quantize_rows(index, threads, *given, *outputs)
    check(status)
    row_shape = (*x.shape[:-1], 1)
    return q.reshape(x.shape), scale.reshape(row_shape), zero_point.reshape(row_shape)


def gather_rows(table: Tensor, scale: Tensor, ids: Tensor) -> Tensor:
    """Rows of an int8 `table` [rows, width] with a float32 `scale` [rows, 1], dequantized: float32 [..., width].

    `ids`: integers of any shape. Raises `IndexError` for an id that is not a row of the table.
    """
    table, scale, places = table.contiguous(), scale.contiguous(), ids.long().contiguous()
    y = torch.empty(*ids.shape, table.shape[1])
    outputs = (places.data_ptr(), places.numel(), y.data_ptr())
    library = load()
    status = library.clipq_gather_rows(
        library.clipq_path(), torch.get_num_threads(), table.data_ptr(), scale.data_ptr(), *table.shape, *outputs
    )
    if status == BAD_SIZE:
        raise IndexError(f"token ids must lie between 0 and {table.shape[0] - 1}, not {ids.min()} to {ids.max()}.")
    check(status)
    return y


def _shape_of(qweight: Tensor) -> tuple[int, int]:
    if qweight.dtype != torch.int8 or qweight.ndim != 2 or 0 in qweight.shape or qweight.device.type != "cpu":
        what = f"{str(qweight.dtype).removeprefix('torch.')} {list(qweight.shape)} on {qweight.device}"
        raise QuantizationError(f"the native linear takes an int8 weight [out, in] on the CPU, not {what}.")
    return qweight.shape[0], qweight.shape[1]


def _per_channel(name: str, values: Tensor, channels: int) -> Tensor:
    """float32 [channels], contiguous."""
    if values.numel() != channels:
        raise QuantizationError(f"{name} has {values.numel()} values; the weight has {channels} output channels.")
    return values.detach().reshape(-1).float().contiguous()


def _unfit(x: Tensor, wanted: object) -> QuantizationError:
    features = f"{wanted} features" if isinstance(wanted, int) else wanted
    return QuantizationError(f"an input of shape {list(x.shape)} does not end in {features}.")


def _rows(x: Tensor, features: int) -> Tensor:
    """`x` as float32 [rows, features] on the CPU whose values lie side by side within a row."""
    if features == 0:
        raise _unfit(x, "a positive number of features")
    if not x.is_floating_point() or not x.is_cpu:
        raise QuantizationError(f"the native linear takes floats on the CPU, not {x.dtype} on {x.device}.")
    rows = x.float() if x.ndim == 2 else x.float().reshape(-1, features)
    within_reach = rows.stride(1) == 1 and rows.stride(0) >= features
    return rows if within_reach else rows.contiguous()
