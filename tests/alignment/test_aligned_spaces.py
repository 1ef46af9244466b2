"""An aligned model is a space of its own, and the same one in its file."""

from __future__ import annotations

import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, model

import clipq
from clipq.alignment import fold
from clipq.alignment.maps import Map
from clipq.errors import SpaceError


@pytest.mark.parametrize("name", [OPEN_CLIP, TWO_TOWERS])
@pytest.mark.filterwarnings("ignore::clipq.errors.ClipqWarning")
def test_memory_and_file_of_an_aligned_model_are_one_space(name, tmp_path):
    own = model(name)
    width = own.encode_image(torch.zeros(1, *own.host.pixel_shape(own.module))).shape[1]
    turned = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    before = {tower: own.space(tower) for tower in own.towers}
    aligned = fold(own, Map(turned))
    clipq.save(aligned, tmp_path / "aligned.safetensors")
    clipq.check_same_space(aligned, tmp_path / "aligned.safetensors")
    for tower in own.towers:
        assert own.space(tower) == before[tower] == clipq.space_of(own, tower) != aligned.space(tower)
        with pytest.raises(SpaceError, match="weights: "):
            clipq.check_same_space(own, aligned, tower)
