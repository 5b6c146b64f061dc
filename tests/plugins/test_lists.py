"""List files: what lines say, which images are the same, and what the published lists hold."""

from __future__ import annotations

import random
import re
import tarfile
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets import class_names, list_lines, lists, mirflickr, published
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hashzoo.data.split_file import split_digest
from hashzoo.errors import EnvironmentFailure
from hashzoo.registry import zoo
from hashzoo.registry.build import convert_options, without_paths
from tests.shared_data import SHARED

HOUSE = zoo.load_plugins()
ARCHIVE = SHARED / "data" / "hash_splits.tar.xz"
FOLDER = st.text("abAB09_-. ", min_size=1, max_size=6).map(lambda text: f"x{text}x")
PREFIXES = ["", "./data/coco/", "data/coco/", "/home/caozhangjie/run-czj/dataset/coco/", "C:\\data\\coco\\", "./"]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not ARCHIVE.is_file():
        pytest.skip("needs hash_splits.tar.xz of ../shared/data or $HASHZOO_SHARED/data")
    place = tmp_path_factory.mktemp("lists")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    return place


def write(place, **parts):
    place.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        (place / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return place


def small(place):
    return write(place, train=["a/1.jpg 0 1", "a/2.jpg 1 1"], test=["b/1.jpg 1 0"], database=["a/1.jpg 0 1"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(FOLDER, st.lists(st.booleans(), min_size=3, max_size=3)), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n", "\n\n", "  \n"]),
    st.sampled_from([" ", "  ", "\t"]),
    st.booleans(),
)
@example([("x y 1 z", [True, False, True])], "\r\n", " ", True)
def test_any_labels_and_paths_survive_being_written_as_a_list(tmp_path_factory, rows, end, blank, mark):
    file = tmp_path_factory.mktemp("one") / "train.txt"
    text = "".join(blank.join([f"{path}.jpg", *("01"[label] for label in labels)]) + end for path, labels in rows)
    file.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    found = list_lines.read_list(file)
    assert found.paths == [f"{path}.jpg" for path, _ in rows]
    assert found.labels.tolist() == [labels for _, labels in rows]
    assert [text.splitlines()[n - 1].split(blank)[0] for n in found.numbers] == [p.split(blank)[0] for p in found.paths]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no image"),
        ("\n \r\n", "lists no image"),
        ("a.jpg\n", "line 1 has no labels"),
        ("a.jpg 0 1\n\nb.jpg 0\n", "line 3: 1 labels after 'b.jpg', but 2 in line 1"),
        ("a.jpg 0 1\nb.jpg 0 1 1\n", "line 2: 3 labels after 'b.jpg', but 2 in line 1"),
        ("a.jpg 0 1\nb.jpg\n", "line 2: 0 labels after 'b.jpg', but 2 in line 1"),
        ("a.jpg 0 1\n0 1\n", "line 2: 1 labels after '0', but 2 in line 1"),
        ("a.jpg 0 1\nb.jpg 0 2\n", "line 2: label 2 is 2; labels are 0 or 1"),
        ("a.jpg 0 1\nb.jpg -1 1\n", "line 2: label 1 is -1; labels are 0 or 1"),
        ("a.jpg 0 1 1\nb.jpg 0 x 1\n", "line 2: 1 labels after 'x', but 3 in line 1"),
        ("a.jpg 0 1\nb.jpg 0 0.5\n", "line 2: 0 labels after '0.5', but 2 in line 1"),
        ("a.jpg 3\nb.jpg -3\n", "line 2: the class is -3; class numbers are 0"),
        ("a.jpg 3\nb.jpg 99999999\n", "line 2: the class is 99999999; class numbers are 0"),
        ("a.jpg 0 1\nb\0.jpg 0 1\n", "line 2: the path is not plain text"),
    ],
)
def test_a_damaged_list_is_one_line_that_names_file_and_line(tmp_path, text, said):
    file = tmp_path / "train.txt"
    file.write_bytes(text.encode())
    with pytest.raises(EnvironmentFailure, match=re.escape(said)) as caught:
        list_lines.read_list(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_utf8_and_a_list_that_is_a_folder_are_refused(tmp_path):
    file = tmp_path / "train.txt"
    file.write_bytes(b"a.jpg 0 1\n\xff.jpg 0 1\n")
    with pytest.raises(EnvironmentFailure, match=r"line 2: .* UTF-8"):
        list_lines.read_list(file)
    with pytest.raises(EnvironmentFailure, match="cannot read"):
        list_lines.read_list(tmp_path)


@given(st.sampled_from(PREFIXES), st.sampled_from(PREFIXES), FOLDER, FOLDER)
def test_an_image_has_the_same_name_behind_any_prefix_of_a_published_list(one, other, folder, file):
    tail = f"{folder}/{file}.jpg"
    assert list_lines.image_name(one + tail) == list_lines.image_name(other + tail) == tail


@given(FOLDER, FOLDER, FOLDER)
def test_images_of_one_name_in_two_folders_stay_two(one, other, file):
    names = {list_lines.image_name(f"./data/{folder}/{file}.jpg") for folder in {one, other}}
    assert len(names) == len({one, other})


@given(FOLDER, FOLDER, st.sampled_from(["/a/b/mine/", "mine/", "D:\\x\\mine\\"]))
def test_strip_leaves_out_a_folder_of_ones_own(folder, file, prefix):
    assert list_lines.image_name(f"{prefix}{folder}/{file}.jpg", strip="mine/") == f"{folder}/{file}.jpg"


def test_ids_are_the_same_in_every_part_whatever_machine_wrote_it(tmp_path):
    root = write(
        tmp_path,
        train=["/home/caozhangjie/run-czj/dataset/coco/train2014/1.jpg 0 1", "./data/coco/val2014/1.jpg 1 1"],
        test=["train2014/2.jpg 1 0"],
        database=["data/coco/train2014/1.jpg 0 1", "./data/coco/train2014/2.jpg 1 0", "train2014/3.jpg 0 0"],
    )
    data = lists.lists(root=root)
    assert [part.ids.tolist() for part in (data.train, data.query, data.database)] == [[0, 1], [2], [0, 2, 3]]
    assert data.multilabel
    assert data.setting(8).pool == 4
    others = lists.lists(root=root, database="others")
    assert others.database.ids.tolist() == [0, 1, 3]


def test_ids_stand_for_paths_as_listed_and_other_paths_are_another_digest(tmp_path):
    data, other = lists.lists(root=small(tmp_path / "one")), small(tmp_path / "other")
    assert data.names == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    assert split_digest(lists.lists(root=other, pictures=tmp_path)) == split_digest(data)
    for file in other.iterdir():
        file.write_text(file.read_text().replace("a/", "c/"))
    assert split_digest(lists.lists(root=other)) != split_digest(data)


def test_that_train_is_searched_is_declared_where_all_but_the_queries_are_and_train_has_none(tmp_path):
    root = small(tmp_path)
    assert not lists.lists(root=root).notes
    assert lists.lists(root=root, database="others").notes["train"] == "inside the database"
    write(root, train=["a/1.jpg 0 1", "b/1.jpg 1 0"])
    assert "train" not in lists.lists(root=root, database="others").notes


def test_lists_may_be_split_over_files_in_the_folder_test(tmp_path):
    write(tmp_path, train=["1.jpg 0", "2.jpg 2"])
    parts = {f"test{n}": [f"q{n}.jpg 1"] for n in range(2)} | {f"database{n}": [f"d{n}.jpg 2"] for n in range(11)}
    write(tmp_path / "test", **parts)
    data = lists.lists(root=tmp_path, pictures=tmp_path / "elsewhere")
    assert not data.multilabel
    assert data.setting(8).classes == 3
    assert data.query.labels.tolist() == [[0, 1, 0]] * 2
    images = data.database.images
    assert [images.base.name(row) for row in images.rows] == [str(tmp_path / f"elsewhere/d{n}.jpg") for n in range(11)]
    (tmp_path / "test" / "database4.txt").unlink()
    with pytest.raises(EnvironmentFailure, match=r"there is no .*database4\.txt among 10 list files"):
        lists.lists(root=tmp_path)


def test_images_are_decoded_when_asked_for_and_a_missing_one_is_named(tmp_path):
    root = small(tmp_path)
    (root / "a").mkdir()
    Image.new("RGB", (5, 4), "red").save(root / "a" / "1.jpg")
    data = lists.lists(root=root)
    assert data.train.images[0].size == (5, 4)
    with pytest.raises(EnvironmentFailure, match=r"a/2\.jpg"):
        data.train.images[1]


def test_a_share_of_train_is_held_out_by_seed(tmp_path):
    root = write(tmp_path, train=[f"{n}.jpg {n % 2}" for n in range(20)], test=["q.jpg 0"], database=["d.jpg 1"])
    build = HOUSE.dataset("lists").factory
    data, again, other = (build(root=root, validation=0.2, seed=seed) for seed in (0, 0, 1))
    assert (len(data.train), len(data.validation)) == (16, 4)
    assert data.validation.labels.sum(0).tolist() == [2, 2]
    assert data.validation.ids.tolist() == again.validation.ids.tolist() != other.validation.ids.tolist()


def test_lists_that_are_missing_or_disagree_are_named(tmp_path):
    root = small(tmp_path)
    (root / "database.txt").unlink()
    with pytest.raises(EnvironmentFailure, match=r'no database\.txt in .*database="others"'):
        lists.lists(root=root)
    assert lists.lists(root=root, database="others").database.ids.tolist() == [0, 1]
    write(root, database=["c.jpg 0 1 1"])
    with pytest.raises(EnvironmentFailure, match=r"database\.txt has 3 labels per line, .*train\.txt 2"):
        lists.lists(root=root)
    write(root, database=["c.jpg 0 1", "./a/2.jpg 0 1"])
    with pytest.raises(EnvironmentFailure, match=r"database\.txt line 2 has other labels than .*train\.txt line 2"):
        lists.lists(root=root)
    (root / "test.txt").unlink()
    with pytest.raises(EnvironmentFailure, match=r"no test\.txt or query\.txt in"):
        lists.lists(root=root)


@pytest.mark.parametrize(
    ("numbers", "names", "gaps"),
    [
        ((0, 1, 2), ("0", "1", "2"), 0),
        ((1, 2, 3), ("1", "2", "3"), 1),
        ((0, 2, 5), ("0", "2", "5"), 3),
        ((7, 7, 9), ("7", "9"), 8),
        ((60, 0, 1), ("0", "1", "60"), 58),
        ((65535, 1, 2), ("1", "2", "65535"), 65533),
    ],
)
def test_classes_are_the_numbers_that_occur_and_a_gap_is_a_finding(tmp_path, numbers, names, gaps):
    first, *others = numbers
    listed = [f"{n}.jpg {number}" for n, number in enumerate(numbers)]
    data = lists.lists(root=write(tmp_path, train=listed, test=[f"q.jpg {first}"], database=[f"d.jpg {others[0]}"]))
    assert data.class_names == names
    assert data.setting(8).classes == len(names)
    assert [data.class_names[c] for c in data.train.labels.argmax(1).tolist()] == [str(number) for number in numbers]
    assert [one.count for one in data.findings if one.name == "class-numbers"] == ([gaps] if gaps else [])


def test_a_column_without_an_image_is_a_class_that_is_named(tmp_path):
    root = write(tmp_path, train=["1.jpg 1 0 0"], test=["2.jpg 0 0 1"], database=["3.jpg 1 0 0"], val=["4.jpg 1 0 0"])
    found = {one.name: one.examples for one in lists.lists(root=root).findings}
    assert found == {"class-without-images": ("1",), "not-read": ("val.txt",)}


def test_training_images_without_a_label_are_left_out_by_an_option(tmp_path):
    train = [f"{n}.jpg {int(n % 3 == 0)} {int(n % 3 == 1)}" for n in range(12)]
    root = write(tmp_path, train=train, test=["q.jpg 1 0"], database=["d.jpg 0 0", "e.jpg 1 0"])
    kept, dropped = lists.lists(root=root), lists.lists(root=root, unlabelled="drop")
    assert (len(kept.train), len(dropped.train), len(dropped.database)) == (12, 8, 2)
    assert (dropped.train.labels.sum(1) == 1).all()
    assert torch.equal(dropped.train.ids, kept.train.ids[kept.train.labels.sum(1) > 0])
    assert [one.detail for one in kept.findings] == ["kept; lists.unlabelled=drop leaves them out"]
    write(root, train=["1.jpg 0 0"])
    with pytest.raises(EnvironmentFailure, match="no training image has a label"):
        lists.lists(root=root, unlabelled="drop")


def test_the_option_for_unlabelled_images_changes_no_key_at_its_default():
    def recorded(**given):
        return without_paths(lists.lists, convert_options("dataset", "lists", lists.lists, given), "lists", "f00d")

    plain = {"root": "f00d", "pictures": "lists", "database": "listed", "strip": "", "seed": 0, "validation": 0.0}
    assert recorded(root="x") == recorded(root="x", unlabelled="keep") == plain
    assert recorded(root="x", unlabelled="drop") == {**plain, "unlabelled": "drop"}


def test_more_classes_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "MAX_LABELS", 11)
    write(tmp_path, train=["1.jpg 0", "2.jpg 60"], test=["3.jpg 1"], database=["4.jpg 1"])
    with pytest.raises(EnvironmentFailure, match="4 images with 3 classes do not fit in memory"):
        lists.lists(root=tmp_path)


def test_two_hundred_thousand_lines_of_81_labels_are_read_in_seconds(tmp_path):
    generator = random.Random(0)
    labels = [" ".join(generator.choices("01", k=81)) for _ in range(1000)]
    write(tmp_path, train=(f"./data/nuswide_81/images/{n}_m.jpg {labels[n % 1000]}" for n in range(200_000)))
    started = time.process_time()
    found = lists.gather({"train": [tmp_path / "train.txt"]})
    assert time.process_time() - started < 15  # about two
    assert len(found.names) == 200_000
    assert found.labels[1234].tolist() == [float(label) for label in labels[234].split()]


@pytest.mark.parametrize(
    ("name", "lists_of", "sizes", "classes", "label_free"),
    [
        ("imagenet100.hashnet", "HashNet/caffe/data/imagenet", (13_000, 5000, 128_503), 100, (0, 0, 0)),
        ("coco.hashnet", "HashNet/caffe/data/coco", (10_000, 5000, 112_218), 80, (0, 0, 0)),
        ("mirflickr.standard", "swuxyj/data/mirflickr", (4000, 1000, 20_000), 38, (72, 19, 328)),
        ("voc2012.standard", "swuxyj/data/voc2012", (4000, 1000, 6540), 20, (0, 0, 0)),
    ],
)
def test_published_lists_have_the_sizes_they_are_known_for(real, name, lists_of, sizes, classes, label_free):
    build = HOUSE.dataset(name).factory
    data = build(root=real / lists_of)
    assert (len(data.train), len(data.query), len(data.database)) == sizes
    assert data.setting(8).classes == classes == len(data.class_names)
    parts = (data.train, data.query, data.database)
    assert tuple(int((part.labels.sum(1) == 0).sum()) for part in parts) == label_free
    assert all(len(part.ids.unique()) == len(part) for part in parts)
    others = build(root=real / lists_of, database="others", validation=0.1)
    assert not np.intersect1d(others.database.ids, others.query.ids).size
    assert len(others.validation) == sizes[0] // 10


def test_the_database_of_hashnet_on_coco_holds_its_queries_and_on_imagenet_its_training_images(real):
    build = HOUSE.dataset("coco.hashnet").factory
    coco = build(root=real / "HashNet/caffe/data/coco")
    assert len(np.intersect1d(coco.database.ids, coco.query.ids)) == 5000
    assert not np.intersect1d(coco.database.ids, coco.train.ids).size
    assert coco.class_names[int(coco.train.labels.sum(0).argmax())] == "person"
    others = build(root=real / "HashNet/caffe/data/coco", database="others")
    assert len(others.database) == 117_218  # as papers print it: all but the queries, training images included
    assert "train" not in {**coco.notes, **others.notes}  # what is wrong with published lists is found, not declared
    assert coco.names[int(coco.query.ids[0])].startswith("val2014/")
    imagenet = HOUSE.dataset("imagenet100.hashnet").factory(root=real / "HashNet/caffe/data/imagenet")
    assert np.isin(imagenet.train.ids, imagenet.database.ids).all()
    assert imagenet.pretraining == ("ImageNet",)
    assert all(re.fullmatch(r"n\d{8}", one) for one in imagenet.class_names)
    union = HOUSE.dataset("coco.union").factory(root=real / "HashNet/caffe/data/coco", queries=20)
    assert len(union.pairs) == 20


@pytest.mark.parametrize(
    ("name", "lists_of", "sizes"),
    [
        ("nus-wide-81.hashnet", "HashNet/pytorch/data/nuswide_81", (10_000, 5000)),
        ("nus-wide-21.swuxyj", "swuxyj/data/nuswide_21", (10_500, 2100)),
    ],
)
def test_a_database_list_that_nobody_published_has_to_be_put_there(real, tmp_path, name, lists_of, sizes):
    (tmp_path / "lists" / name.split(".")[1]).mkdir(parents=True)
    place = tmp_path / "lists" / name.split(".")[1]
    for file in ("train.txt", "test.txt"):
        (place / file).write_bytes((real / lists_of / file).read_bytes())
    with pytest.raises(
        EnvironmentFailure, match=r"no database\.txt in .*https://github\.com|no database\.txt in .*code\.py"
    ):
        HOUSE.dataset(name).factory(root=tmp_path)
    (place / "database.txt").write_bytes((place / "train.txt").read_bytes())
    data = HOUSE.dataset(name).factory(root=tmp_path)
    assert (len(data.train), len(data.query)) == sizes
    assert data.train.images.base.name(0).startswith(f"{tmp_path}/images/")


@pytest.mark.parametrize("name", sorted(published.BENCHMARKS))
def test_a_benchmark_without_its_files_says_which_to_put_where(tmp_path, name, monkeypatch):
    monkeypatch.setenv("HASHZOO_MIRROR", "http://127.0.0.1:9")  # where nothing answers
    monkeypatch.setenv("HASHZOO_DATA", str(tmp_path / "data"))
    build = HOUSE.dataset(name).factory
    downloads = published.BENCHMARKS[name].download
    says = r"cannot download .* --root FOLDER that holds" if downloads else rf"{name} needs files .* root"
    with pytest.raises(EnvironmentFailure, match=rf"{says} .* https://github\.com/"):
        build()
    with pytest.raises(EnvironmentFailure, match=r"no train\.txt in .* from https://github\.com/"):
        build(root=tmp_path)
    columns = published.BENCHMARKS[name].columns
    line = f"im1.jpg {' '.join('1' * columns)}"
    write(tmp_path, train=[line], test=[line], database=[line])
    with pytest.raises(EnvironmentFailure, match=r"have 1 images, those of .* get them from https://"):
        build(root=tmp_path)
    write(tmp_path, train=["a.jpg 1 0"], test=["b.jpg 1 0"], database=["c.jpg 1 0"])
    with pytest.raises(EnvironmentFailure, match=rf"have 2 labels per line, those of .* {columns}"):
        build(root=tmp_path)


def annotated(place):
    place.mkdir(parents=True)
    for column, concept in enumerate(mirflickr.ALL):
        (place / f"{concept}.txt").write_bytes(b"".join(b"%d\r\n" % (n + 1) for n in range(column, 25_000, 40)))
    (place / "README.txt").write_text("about")


def test_mirflickr_has_24_and_38_labels_from_its_annotations(real, tmp_path):
    assert (len(mirflickr.POTENTIAL), len(mirflickr.RELEVANT), len({*mirflickr.ALL})) == (24, 14, 38)
    annotated(tmp_path / "mirflickr25k_annotations_v080")
    (tmp_path / "lists").mkdir()
    for file in (real / "swuxyj/data/mirflickr").glob("*.txt"):
        (tmp_path / "lists" / file.name).write_bytes(file.read_bytes())
    listed, all_of_it, wide = (
        HOUSE.dataset(f"{name}.standard").factory(root=tmp_path)
        for name in ("mirflickr", "mirflickr-38", "mirflickr-24")
    )
    assert listed.query.ids.tolist() == all_of_it.query.ids.tolist() == wide.query.ids.tolist()
    assert [data.train.labels.shape[1] for data in (listed, all_of_it, wide)] == [38, 38, 24]
    images = all_of_it.query.images
    number = int(re.search(r"im(\d+)\.jpg", images.base.name(images.rows[0]))[1])
    expected = [float((number - 1) % 40 == column) for column in range(38)]
    assert all_of_it.query.labels[0].tolist() == expected
    assert wide.query.labels[0].tolist() == [expected[mirflickr.ALL.index(one)] for one in mirflickr.POTENTIAL]
    assert wide.class_names == mirflickr.POTENTIAL


def test_annotations_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(
        EnvironmentFailure, match=r"animals\.txt: .*; unpack mirflickr25k_annotations_v080\.zip of https://"
    ):
        mirflickr.read_annotations(tmp_path, mirflickr.ALL)
    place = tmp_path / mirflickr.FOLDER
    annotated(place)
    for bad in (b"0", b"25001", b"x", b"-1", b"1 2"):
        (place / "sky.txt").write_bytes(b"1\n\n" + bad + b"\n")
        with pytest.raises(EnvironmentFailure, match=r"sky\.txt line 3 is not an image number"):
            mirflickr.read_annotations(tmp_path, mirflickr.ALL)
    (place / "sky.txt").write_bytes(b"1")
    with pytest.raises(EnvironmentFailure, match=r"'a/im0\.jpg', which is not one of im1\.jpg"):
        mirflickr.image_annotations(["a/im0.jpg"], tmp_path, ["sky"])
    assert mirflickr.image_annotations(["im2.jpg", "a/im1.jpg"], tmp_path, ["sky"]).tolist() == [[0], [1]]


def test_class_names_are_as_many_as_columns_and_each_once():
    for names, columns in ((class_names.COCO, 80), (class_names.NUS_WIDE_81, 81), (class_names.VOC, 20)):
        assert len({*names}) == len(names) == columns
        assert list(names) == sorted(names)


def test_lists_alone_need_no_images_to_tell_data_apart(tmp_path):
    one, other = (lists.lists(root=small(tmp_path / name)) for name in ("one", "other"))
    assert one.train.labels.equal(other.train.labels)
    assert one.train.ids.equal(other.train.ids)


def test_every_list_data_set_of_a_shipped_benchmark_exists():
    shipped = Path(__file__).parents[2] / "benchmarks"
    named = set()
    for file in shipped.rglob("*.toml"):
        given_names = tomllib.loads(file.read_text()).get("dataset", [])
        named |= {given_names} if isinstance(given_names, str) else {*given_names}
    ours = {name for name in named if name.partition(".")[0] not in ("cifar10", "imagenette", "folder")}
    assert ours <= HOUSE.datasets.keys()
    assert {"coco.union", "nus-wide-21.csq", "imagenet100.hashnet"} <= ours


@pytest.mark.parametrize("name", ["coco.hashnet", "voc2012.standard", "mirflickr.standard"])
def test_lists_that_may_be_downloaded_name_images_as_the_archives_hold_them(name, real, monkeypatch):
    where = {"coco": "HashNet/caffe/data/coco", "voc2012": "swuxyj/data/voc2012", "mirflickr": "swuxyj/data/mirflickr"}
    monkeypatch.setattr(published.archives, "fetch_folder", lambda one: real / where[one.removesuffix("-lists")])
    data = HOUSE.dataset(name).factory()
    assert len(data.query) in (1000, 5000)
    first = data.train.images.base.name(0)
    assert any(part in first for part in ("train2014/COCO", "val2014/COCO", "VOCdevkit/VOC2012/JPEGImages/", "im"))
