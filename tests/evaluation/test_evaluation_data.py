"""Where images come from: folders, tars, tables; what is refused, and what each refusal says."""

from __future__ import annotations

import io
import tarfile
from collections import Counter

import pytest
from evaluation_helpers import COLOURS, colour_folder, colour_tar, colour_task, encoded, picture, write_tar

from clipq.errors import DataError, UnknownNameError
from clipq.evaluation import prompts
from clipq.evaluation.data import task_images
from clipq.evaluation.tasks import HubSource, Task, list_tasks, load_task
from clipq.inputs.folders import pictures
from clipq.inputs.images import decode

PNG = encoded(picture((200, 0, 0), 1))


def a_task(**changes) -> Task:
    fields = {"name": "t", "version": 1, "title": "t", "kind": "class-folder", "templates": ("a {c}",)}
    return Task(**{**fields, "classnames": tuple(COLOURS), **changes})


@pytest.mark.parametrize("name", ["imagenet1k", "imagenetv2", "cifar10", "cifar100", "drawings", "folder"])
def test_every_task_that_ships_is_complete(name):
    assert name in list_tasks()
    task = load_task(name)
    names, templates = prompts.classnames(task), prompts.templates(task)
    expected = {"imagenet1k": (1000, 80), "imagenetv2": (1000, 80), "cifar10": (10, 18), "cifar100": (100, 18)}
    expected["drawings"] = (1901, 7)
    assert (len(names), len(set(templates))) == expected.get(name, (0, 7))
    assert all("dog" in template("dog") for template in templates)
    assert name == "folder" or (task.path or task.hub.repo) and task.about["licence"] and task.about["attribution"]


def test_the_drawings_ship_with_one_picture_of_every_class():
    images = task_images(load_task("drawings"))
    assert sorted(entry.label for entry in images.entries) == list(range(len(images.classes)))
    assert decode(images.entries[-1]).mode == "RGB"


def test_wordnet_ids_are_in_the_order_of_open_clips_class_names():
    task = load_task("imagenet1k")
    ids, names = prompts.wnids(task), prompts.classnames(task)
    assert ids == tuple(sorted(set(ids))) and len(ids) == len(names)
    known = {"n01440764": "tench", "n02110063": "Alaskan Malamute", "n03782006": "monitor", "n15075141": "toilet paper"}
    for wnid, name in known.items():
        assert names[ids.index(wnid)] == name


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenet1k'"):
        load_task("imagenet-1k")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 3", "dataset"),
        ("[dataset]\nkind = 'zip'\n[prompts]\n", "webdataset"),
        ("name = 'x'\nversion = '1'\n[dataset]\nkind = 'hub'\n[prompts]\n", "version"),
        ("name = 'x'\nversion = 1\n[dataset]\nkind = 'hub'\n[prompts]\ntemplates = ['a photo']\n", "{c}"),
        ("name = 'x'\nversion = 1\nmetric = 'f1'\n[dataset]\nkind = 'hub'\n[prompts]\n", "top1"),
        ("name = 'x'\nversion = 1\n[dataset]\nkind = 'hub'\nhub = {split=1}\n[prompts]\ntemplates = ['{c}']", "split"),
        ("name = [", "task file"),
    ],
)
def test_a_wrong_task_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises((DataError, UnknownNameError)) as error:
        load_task(path)
    assert says in str(error.value) and str(path) in str(error.value)


def test_class_folders_tars_and_parquet_hold_the_same_images(tmp_path, monkeypatch):
    task = load_task(colour_task(tmp_path))
    folder = task_images(task, colour_folder(tmp_path / "folder"))
    tar = task_images(task, colour_tar(tmp_path / "tars" / "a.tar"))
    table = task_images(task, _parquet(tmp_path / "table" / "test.parquet", folder, monkeypatch))
    expected = sorted((entry.label, decode(entry).tobytes()) for entry in folder.entries)
    assert len(expected) == 12
    for other in (tar, table, task_images(task, tmp_path / "tars"), task_images(task, tmp_path / "table")):
        assert sorted((entry.label, decode(entry).tobytes()) for entry in other.entries) == expected
    assert {entry.key for entry in tar.entries} >= {"a.tar/0_0.png", "a.tar/3_2.png"}
    assert (folder.layout, tar.layout, table.layout) == ("class folders", "webdataset", "parquet")


def _parquet(path, images, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", path.parent / "cache")
    path.parent.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    encoded_images = [{"bytes": entry.read(), "path": None} for entry in images.entries]
    rows = {"image": encoded_images, "label": [entry.label for entry in images.entries]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def test_parquet_with_other_columns_or_labels_is_refused(tmp_path, monkeypatch):
    images = task_images(a_task(), colour_folder(tmp_path / "folder"))
    path = _parquet(tmp_path / "table" / "test.parquet", images, monkeypatch)
    with pytest.raises(DataError, match="unknown column 'img'.*image"):
        task_images(a_task(hub=HubSource("a/b", "main", "x/*.parquet", image="img")), path)
    with pytest.raises(DataError, match="label 2; allowed: 0 to 1"):
        task_images(a_task(classnames=("a", "b")), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot read the parquet files of .*test\.parquet"):
        task_images(a_task(), path)


@pytest.mark.parametrize(("name", "label"), [("dark_grey", 3), ("Dark-Grey", 3), ("dark grey", 3), ("2", 2)])
def test_folders_are_named_by_class_or_by_index(tmp_path, name, label):
    (tmp_path / name / "deeper").mkdir(parents=True)
    (tmp_path / name / "deeper" / "A.PNG").write_bytes(PNG)
    (tmp_path / name / "notes.txt").write_text("not a picture")
    (tmp_path / "labels.tsv").write_text("not a folder")
    assert [(e.key, e.label) for e in task_images(a_task(), tmp_path).entries] == [(f"{name}/deeper/A.PNG", label)]


def test_without_class_names_the_folders_are_the_classes(tmp_path):
    images = task_images(load_task("folder"), colour_folder(tmp_path))
    assert images.classes == ("blue", "dark grey", "green", "red")
    assert Counter(entry.label for entry in images.entries) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_a_subset_of_wnid_folders_keeps_all_thousand_classes(tmp_path):
    for wnid in ("n02110063", "n01440764"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "a.png").write_bytes(PNG)
    images = task_images(load_task("imagenet1k"), tmp_path)
    assert [(e.key, e.label) for e in images.entries] == [("n01440764/a.png", 0), ("n02110063/a.png", 249)]
    assert len(images.classes) == 1000 and images.classes[249] == "Alaskan Malamute"
    (tmp_path / "n0211006").mkdir()
    with pytest.raises(DataError, match="unknown class folder 'n0211006'. Did you mean 'n0211.*named by wnid"):
        task_images(load_task("imagenet1k"), tmp_path)


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ({}, "no class folders"),
        ({"red": {}}, "red holds no pictures"),
        ({"red": {"a.txt": b"x"}}, "red holds no pictures"),
        ({"purpel": {"a.png": PNG}}, "unknown class folder 'purpel'"),
        ({"4": {"a.png": PNG}}, "'4'.*from 0 to 3"),
        ({"-1": {"a.png": PNG}}, "unknown class folder '-1'"),
        ({"train-0.tar": None}, "training files"),
    ],
)
def test_a_wrong_folder_says_what_is_wrong(tmp_path, folders, says):
    for name, files in folders.items():
        if files is None:
            write_tar(tmp_path / name, [])
            continue
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        task_images(a_task(), tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "holds no images"),
        ([("a.json", b"{}")], "holds no images"),
        ([("a.png", PNG)], r"'a\.png' has no label; a member 'a\.cls'"),
        ([("a.cls", b"1")], r"'a\.cls' has no image"),
        ([("a.png", PNG), ("a.cls", b"red")], r"'a\.cls' of .* holds 'red'.*0 to 3"),
        ([("a.png", PNG), ("a.cls", b"")], "holds ''"),
        ([("a.png", PNG), ("a.cls", b"-1")], "holds '-1'"),
        ([("a.png", PNG), ("a.cls", "²".encode())], "a .cls holds the class index"),
        ([("a.png", PNG), ("a.cls", b"4")], r"says class 4, which is out of range: .*0 to 3"),
        ([("a.png", PNG), ("a.cls", b"9" * 5000)], "out of range"),
        ([("a.png", PNG), ("a.jpg", PNG), ("a.cls", b"1")], "two members for one sample"),
        ([("a.png", PNG), ("a.png", PNG), ("a.cls", b"1")], "two members for one sample"),
    ],
)
def test_a_wrong_tar_says_which_member(tmp_path, members, says):
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=says) as error:
        task_images(a_task(), path)
    assert "x.tar" in str(error.value)


def _linked(path):
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)


def _huge(path):
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 2**40
        tar.fileobj.write(member.tobuf())


def _cut(path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 5000
        tar.addfile(member, io.BytesIO(bytes(5000)))
    path.write_bytes(whole.getvalue()[:3000])


def _zipped(path):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_linked, "is a link"),
        (_huge, "claims 1099511627776 bytes"),
        (_cut, r"cut off|unexpected end"),
        (_zipped, "uncompressed tar"),
        (lambda path: path.write_bytes(b"no tar at all" * 100), "uncompressed tar"),
        (lambda path: path.write_bytes(b""), "uncompressed tar"),
    ],
)
def test_a_hostile_or_damaged_tar_is_refused(tmp_path, write, says):
    write(tmp_path / "x.tar")
    with pytest.raises(DataError, match=says) as error:
        task_images(a_task(), tmp_path / "x.tar")
    assert "x.tar" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]  # nothing was unpacked


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nowhere", "does not exist"),
        ("nowhere-*.tar", "does not exist"),
        (["nowhere.tar"], "is not a file"),
        (None, "ships no data"),
        ("x.zip", "all .tar, or all .parquet"),
    ],
)
def test_data_that_is_not_there_says_so(tmp_path, monkeypatch, data, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=says):
        task_images(a_task(), data)


def test_lists_and_patterns_of_tars(tmp_path):
    first, second = colour_tar(tmp_path / "s-0.tar"), colour_tar(tmp_path / "s-1.tar", per_class=1)
    whole = task_images(a_task(), [first, second])
    assert len(whole) == 16 and len({entry.key for entry in whole.entries}) == 16
    assert task_images(a_task(), str(tmp_path / "s-*.tar")).digest() == whole.digest()
    assert task_images(a_task(), first).digest() != whole.digest()


@pytest.mark.parametrize(("limit", "counts"), [(1, 1), (2, 2), (4, 4), (6, 4), (8, 4), (11, 4)])
def test_limit_takes_the_same_images_evenly(tmp_path, limit, counts):
    images = task_images(a_task(), colour_folder(tmp_path))
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
        task_images(a_task(), colour_folder(tmp_path)).limited(limit)


def test_pictures_of_any_folder(tmp_path):
    colour_folder(tmp_path / "a", per_class=1)
    (tmp_path / "b.jpg").write_bytes(encoded(picture((1, 2, 3), 4), "JPEG"))
    assert [entry.key for entry in pictures(tmp_path).entries][-1] == "b.jpg" and len(pictures(tmp_path)) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        pictures(tmp_path / "empty")
    with pytest.raises(DataError, match="not a folder"):
        pictures(tmp_path / "b.jpg")
