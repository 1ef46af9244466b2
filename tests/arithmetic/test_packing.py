"""Packing against whole numbers of Python's own, for every number of bits and odd widths."""

from __future__ import annotations

import pytest
import torch

from clipq.arithmetic.packing import pack, packed_width, unpack

WIDTHS = (1, 2, 3, 5, 7, 8, 9, 16, 31, 64, 131)


def numbers(rows: int, width: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 1 << bits, (rows, width), generator=torch.Generator().manual_seed(width), dtype=torch.int8)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_packed_is_unpacked(bits, width):
    values = numbers(5, width, bits)
    packed = pack(values, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (5, packed_width(width, bits)) == (5, -(-width * bits // 8))
    assert torch.equal(unpack(packed, bits, width), values.to(torch.uint8))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_is_one_little_endian_number(bits, width):
    values = numbers(3, width, bits)
    for row, packed in zip(values.tolist(), pack(values, bits), strict=True):
        expected = sum(value << (bits * place) for place, value in enumerate(row))
        assert bytes(packed.tolist()) == expected.to_bytes(packed_width(width, bits), "little")


def test_the_documented_places():
    assert pack(torch.tensor([[1, 2, 3]]), 4).tolist() == [[0x21, 0x03]]
    assert pack(torch.tensor([[1, 2, 3, 0, 3]]), 2).tolist() == [[0b00111001, 3]]
    assert pack(torch.tensor([[7, 0, 0, 0, 0, 0, 0, 7]]), 3).tolist() == [[7, 0, 0b11100000]]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_bits_that_no_value_has_are_not_read(bits):
    values = numbers(2, 3, bits)
    packed = pack(values, bits)
    assert torch.equal(
        unpack(
            packed
            | (255 << (3 * bits - 8 * (packed.shape[1] - 1)) & 255)
            * torch.tensor([0] * (packed.shape[1] - 1) + [1], dtype=torch.uint8),
            bits,
            3,
        ),
        values.to(torch.uint8),
    )


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_rows(bits):
    assert unpack(pack(torch.empty(0, 9, dtype=torch.int8), bits), bits, 9).shape == (0, 9)
