"""fp8 by fp8 through `torch._scaled_mm`: on CUDA devices whose tensor cores multiply e4m3 numbers."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..arithmetic import functional
from .ops import refuse_gradient
from .weights import LinearWeights

_LEAST = (8, 9)  # compute capability: Ada Lovelace
_MULTIPLE = 16  # of which inner and outer sizes have to be


class ScaledMMLinear:
    """Rows and weights in fp8, one scale a row of each; sums in float32, which come back rounded to bfloat16.

    bfloat16 is the one type that `torch._scaled_mm` gives for scales by row in every version; its rounding is a
    sixteenth of fp8's. The bias is added in float32.
    """

    name = "scaled_mm"

    def __init__(self, weights: LinearWeights):
        self.activations = weights.activations
        self.qweight = weights.qweight
        self.scale = weights.row_scale()[None, :]
        self.bias = None if weights.bias is None else weights.bias.float()

    @staticmethod
    def obstacle(device: torch.device) -> str | None:
        if device.type != "cuda":
            return "torch._scaled_mm is fast only on CUDA"
        found = torch.cuda.get_device_capability(device)
        if found < _LEAST:
            return "this GPU has compute capability {}.{}, and fp8 needs {}.{}".format(*found, *_LEAST)
        return _refusal(device)

    @staticmethod
    def fits(weights: LinearWeights) -> bool:
        activations = weights.activations
        by_rows = activations is not None and activations.granularity == "token" and weights.row_scaled
        sizes = all(size % _MULTIPLE == 0 for size in weights.shape)
        return by_rows and sizes and activations.kind == weights.spec.kind == "float"

    def __call__(self, x: Tensor) -> Tensor:
        refuse_gradient(x)
        rows = x.reshape(-1, x.shape[-1])
        scale, zero_point = functional.choose_qparams(rows, self.activations)
        y = _product(functional.quantize(rows, scale, zero_point, self.activations), self.qweight, scale, self.scale)
        if self.bias is not None:
            y = y.float() + self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], self.qweight.shape[0])


def _product(q: Tensor, qweight: Tensor, scale: Tensor, weight_scale: Tensor) -> Tensor:
    if q.shape[0] == 0:
        return q.new_empty(0, qweight.shape[0], dtype=torch.bfloat16)
    return torch._scaled_mm(q, qweight.t(), scale_a=scale, scale_b=weight_scale, out_dtype=torch.bfloat16)


@cache
def _refusal(device: torch.device) -> str | None:
    """Why this version of torch does not multiply with scales by row on `device`: found out by trying."""
    q = torch.ones(_MULTIPLE, _MULTIPLE, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones(_MULTIPLE, 1, device=device)
    try:
        found = _product(q, q, scale, scale.t().contiguous())
    except RuntimeError as error:
        return f"torch {torch.__version__} has no fp8 product with a scale a row here ({str(error).splitlines()[0]})"
    return None if bool((found == _MULTIPLE).all()) else "its fp8 product of ones is wrong"
