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
