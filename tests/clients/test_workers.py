"""Embedding in worker processes: `datasets.map`, and models beside a `DataLoader` with workers."""

from __future__ import annotations

import functools

import pytest
import torch

import clipq


@functools.cache
def model() -> clipq.Model:
    return clipq.load("clipq-tiny")


def embed(rows: dict) -> dict:
    torch.set_num_threads(1)
    pixels = torch.stack([model().preprocess(picture) for picture in rows["image"]])
    return {"embedding": model().encode_image(pixels, normalize=True).numpy()}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_datasets_map_in_two_processes(drawings):
    from datasets import Dataset

    expected = embed({"image": drawings[:4]})["embedding"]
    found = Dataset.from_dict({"image": drawings[:4]}).map(embed, batched=True, num_proc=2, remove_columns="image")
    assert torch.allclose(torch.tensor(found["embedding"][:]), torch.from_numpy(expected), atol=1e-5)


class Pictures(torch.utils.data.Dataset):
    """Preprocessed by the model's own transform, in the loader's workers."""

    def __init__(self, pictures: list):
        self.pictures, self.preprocess = pictures, model().preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.preprocess(self.pictures[row])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_data_loader_with_workers(drawings):
    loader = torch.utils.data.DataLoader(Pictures(drawings[:4]), batch_size=2, num_workers=2)
    expected = model().encode_image(torch.stack([model().preprocess(picture) for picture in drawings[:4]]))
    found = torch.cat([model().encode_image(batch) for batch in loader])
    assert torch.allclose(found, expected, atol=1e-4)
