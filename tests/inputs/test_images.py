"""A list of images: the same few of them every time, spread over the classes."""

from __future__ import annotations

from collections import Counter

import pytest
from picture_helpers import COLOURS, colour_folder

from clipq.errors import DataError
from clipq.inputs.folders import class_folders


@pytest.mark.parametrize(("limit", "counts"), [(1, 1), (2, 2), (4, 4), (6, 4), (8, 4), (11, 4)])
def test_limit_takes_the_same_images_evenly(tmp_path, limit, counts):
    images = class_folders(colour_folder(tmp_path), tuple(COLOURS))
    keys = [entry.key for entry in images.limited(limit).entries]
    per_class = Counter(entry.label for entry in images.limited(limit).entries)
    assert len(keys) == limit and keys == sorted(keys) and len(per_class) == counts
    assert max(per_class.values()) - min(per_class.values()) <= 1
    assert keys == [entry.key for entry in images.limited(limit).entries]
    assert images.limited(limit).limit == limit and images.limited(12).limit is None
    assert images.limited(limit).digest() != images.digest()


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "10"])
def test_a_limit_that_is_no_number_of_images(tmp_path, limit):
    with pytest.raises(DataError, match="limit="):
        class_folders(colour_folder(tmp_path), tuple(COLOURS)).limited(limit)
