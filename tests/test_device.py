"""Devices that do not exist, or not here, are one clear error."""

from __future__ import annotations

import pytest
import torch

from clipq.device import usable_device
from clipq.errors import ClipqError, UnknownNameError


def test_what_is_here_is_taken():
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "says"),
    [("tpu", "unknown device 'tpu'.*Allowed: cpu, cuda"), ("", "unknown device ''"), ("cud", "Did you mean 'cuda'"),
     (5.5, "unknown device 5.5"), (None, "unknown device None")],
)  # fmt: skip
def test_what_is_no_device(device, says):
    with pytest.raises(UnknownNameError, match=says):
        usable_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "xpu", "hpu", "xla", "meta", 77])
def test_what_is_not_here(device):
    with pytest.raises(ClipqError, match=r"(cannot be used here: .* This machine has: cpu|holds no numbers)"):
        usable_device(device)
