"""Which row is of which input: whole names first, then what paths have in common, and never two at once."""

from __future__ import annotations

import pytest

from clipq.errors import DataError
from clipq.indexes import match

DATA = ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", "dogs/3.png")


def pairs(index, data=DATA, **options):
    found = match(index, data, **options)
    return {(index[row], data[place]) for row, place in zip(found.rows, found.places, strict=True)}, found.by


def test_whole_names_in_the_order_of_the_rows():
    found = match(("dogs/3.png", "x", "cats/1.jpg", "dogs/3.png"), DATA)
    assert (found.rows, found.places, found.by) == ((0, 2), (3, 0), "name")
    assert found.some([1]).places == (0,)


def test_paths_of_another_machine():
    found, by = pairs(("/data/all/cats/1.jpg", "/data/all/dogs/1.jpg", "/data/all/dogs/9.jpg"))
    assert by == "path"
    assert found == {("/data/all/cats/1.jpg", "cats/1.jpg"), ("/data/all/dogs/1.jpg", "dogs/1.jpg")}


def test_file_names_that_only_one_has():
    index = ("s3://a/2.jpg", "http://b/c/3.png", "http://b/1.jpg")
    found, by = pairs(index)
    assert by == "file name"
    assert found == {("s3://a/2.jpg", "cats/2.jpg"), ("http://b/c/3.png", "dogs/3.png")}, "1.jpg is in two folders"
    assert pairs(("C:\\photos\\2.jpg", "D:\\2.jpg", "E:\\3.png"))[0] == {("E:\\3.png", "dogs/3.png")}


def test_names_without_endings():
    found, by = pairs(("2", "3", "1"))
    assert by == "file name without ending"
    assert found == {("2", "cats/2.jpg"), ("3", "dogs/3.png")}


def test_texts_are_equal_or_other():
    assert pairs(("a cat", "a dog"), ("a dog", "one/a cat"), texts=True)[0] == {("a dog", "a dog")}
    with pytest.raises(DataError):
        match(("cat",), ("a/cat",), texts=True)


def test_nothing_in_common_says_what_there_is():
    with pytest.raises(DataError, match="the index has '7', '8', the data 'cats/1.jpg', 'cats/2.jpg'"):
        match(("7", "8", "9"), DATA)


@pytest.mark.parametrize(
    ("index", "data", "expected"),
    [
        (("cover.jpg", "/m/p/1.jpg", "/m/p/2.jpg", "/m/p/3.jpg"), ("cover.jpg", "1.jpg", "2.jpg", "3.jpg"), 4),
        (("/m/p/a/1.jpg", "/m/p/a/2.jpg"), ("1.jpg", "a/1.jpg", "a/2.jpg"), {0: 1, 1: 2}),
        (("/x/2019/1.jpg", "/x/2020/2.jpg"), ("2021/1.jpg", "2020/2.jpg"), {1: 1}),  # of another year
        (("C:\\p\\a\\1.jpg", "C:\\p\\b\\1.jpg", "C:\\p\\b\\2.jpg"), ("a/1.jpg", "b/1.jpg", "b/2.jpg"), 3),
        (("e\u0301.jpg", "a.jpg"), ("\u00e9.jpg", "a.jpg"), 2),
        (("all/cats/1.jpg", "all/dogs/1.jpg"), ("here/cats/1.jpg", "here/dogs/1.jpg"), 2),
        (("1.jpg", "2.jpg", "a/9.jpg", "3.jpg"), ("1.jpg", "2.jpg", "b/9.jpg", "3.jpg"), {0: 0, 1: 1, 3: 3}),
        (("/m/a/1.jpg", "/m/b/1.jpg"), ("1.png", "2.png", "a/1.png"), {0: 2}),
    ],
)
def test_the_longest_end_of_a_path_decides(index, data, expected):
    found = match(index, data)
    expected = {i: i for i in range(expected)} if isinstance(expected, int) else expected
    assert dict(zip(found.rows, found.places, strict=True)) == expected
    assert found.found == len(expected)


def test_rows_of_one_name_are_kept_together():
    found = match(("1.jpg", "2.jpg", "1.jpg", "x.jpg", "1.jpg"), ("2.jpg", "1.jpg"))
    assert (found.rows, found.places, found.twins, found.found) == ((0, 1), (1, 0), {0: (2, 4)}, 4)
    assert (found.some([1]).twins, found.some([0]).twins, found.some([0]).found) == ({}, {0: (2, 4)}, 4)
    with pytest.raises(DataError, match="1002 rows of the index have the name 'image'"):
        match(["image"] * 1002 + ["other"], ("image", "other"))


def test_long_lists_are_matched_fast():
    """Every file has the same name, as folders of one picture each have it."""
    names = [f"{i % 97}/{i}/image.jpg" for i in range(20_000)]
    assert len(match([f"/mnt/{name}" for name in names], names)) == 20_000
