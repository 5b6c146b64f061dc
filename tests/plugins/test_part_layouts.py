"""Folders named after parts, sidecar folders and image files that are not decoded: read rightly, or named."""

from __future__ import annotations

import json

import pytest
from hashzoo_plugins.datasets.folder import folder
from hashzoo_plugins.datasets.part_names import part_of

from hashzoo.cli.main import main
from hashzoo.data.split_file import split_digest
from hashzoo.errors import EnvironmentFailure, UsageError
from tests.plugins.test_folder import filled


def images(*folders: str, count: int = 3) -> list[str]:
    return [f"{name}/{number}.png" for name in folders for number in range(count)]


def layout(*parts: str) -> list[str]:
    return images(*(f"{part}/{kind}" for part in parts for kind in ("cat", "dog")))


def sizes(data) -> dict[str, int]:
    return {name: len(part) for name, part in data.parts().items()}


def found(data) -> dict[str, int]:
    return {one.name: one.count for one in data.findings}


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (("train", "val"), {"train": 6, "database": 6, "query": 6}),
        (("Train", "Test"), {"train": 6, "database": 6, "query": 6}),
        (("training_set", "test_set"), {"train": 6, "database": 6, "query": 6}),
        (("TRAINING", "VALIDATION", "TESTING"), {"train": 6, "database": 6, "query": 6, "validation": 6}),
        (("train", "valid", "test"), {"train": 6, "database": 6, "query": 6, "validation": 6}),
        (("train2017", "val2017"), {"train": 6, "database": 6, "query": 6}),
        (("trainset", "valset", "testset"), {"train": 6, "database": 6, "query": 6, "validation": 6}),
        (("train_images", "dev-images"), {"train": 6, "database": 6, "query": 6}),
        (("train", "query", "gallery"), {"train": 6, "database": 6, "query": 6}),
        (("bounding_box_train", "gallery", "query"), {"train": 6, "database": 6, "query": 6}),
        (("train", "val", "db", "queries"), {"train": 6, "database": 6, "query": 6, "validation": 6}),
    ],
)
def test_folders_named_after_parts_are_parts_and_it_is_said(parts, wanted, tmp_path):
    data = folder(root=filled(tmp_path / "p", layout(*parts)))
    assert sizes(data) == wanted
    assert data.class_names == ("cat", "dog")
    (said,) = [one.detail for one in data.findings if one.name == "read-as-parts"]
    assert all(f"{part} is " in said for part in parts)
    with pytest.raises(UsageError, match="has a folder for each part, decides the splits"):
        folder(root=tmp_path / "p", query=2)


def test_parts_in_class_folders_are_parts_too(tmp_path):
    data = folder(root=filled(tmp_path / "p", images("cat/train", "cat/test", "dog/train", "dog/test")))
    assert sizes(data) == {"train": 6, "database": 6, "query": 6}
    assert data.class_names == ("cat", "dog")
    assert found(data) == {"read-as-parts": 2}


def test_images_of_a_part_have_the_labels_and_files_of_their_folders(tmp_path):
    data = folder(root=filled(tmp_path / "p", [*layout("val", "train"), *images("val/emu")]))
    assert data.names is not None
    for part, place in ((data.train, "train"), (data.query, "val")):
        for row, number in enumerate(part.ids.tolist()):
            where, kind, _ = data.names[number].split("/")
            assert (where, kind) == (place, data.class_names[int(part.labels[row].argmax())])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([*images("train", "val")], "is in no class folder of its part"),
        ([*layout("train"), *images("test")], "test/0.png is in no class folder"),
        ([*layout("train", "val"), *images("other/x")], "look like parts with the same classes .* and other"),
        (layout("val", "test"), "no training images"),
        (layout("train", "val", "valid"), "both stand for validation"),
        (layout("train", "test", "query"), "both stand for query"),
        ([*images("cat/train", "cat/test"), *images("dog")], "dog/0.png is in none"),
        (images("cat/val", "cat/test", "dog/val", "dog/test"), "no training images"),
        (images("pics/cat", "pics/dog"), "folders in .*pics are the classes or parts, set root to it"),
        (images("train/cat", "train/dog"), "only one class"),
    ],
)
def test_folders_that_look_like_parts_and_are_none_are_refused(names, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        folder(root=filled(tmp_path / "p", names))


@pytest.mark.parametrize(
    "classes", [("train", "bus", "car"), ("index", "cat"), ("dev", "ops"), ("train station", "test tube")]
)
def test_a_class_named_like_a_part_beside_others_is_a_class(classes, tmp_path):
    data = folder(root=filled(tmp_path / "p", images(*classes, count=6)))
    assert set(data.class_names) == set(classes)
    assert data.findings == ()


def test_usual_spellings_of_parts():
    assert {part_of(name) for name in ("train", "Training Set", "TRN", "train_data", "my-train-set", "train_01")} == {
        "train"
    }
    assert {part_of(name) for name in ("val", "Valid", "validation_images", "dev", "valset")} == {"validation"}
    assert {part_of(name) for name in ("test", "Testing", "queries", "holdout", "eval", "imgs_test")} == {"query"}
    assert {part_of(name) for name in ("cat", "strain", "contest", "train test", "trainer", "7", "", "dogs")} == {""}


SIDECARS = [
    "@eaDir",
    "__MACOSX",
    ".ipynb_checkpoints",
    ".thumbnails",
    "#recycle",
    "$RECYCLE.BIN",
    ".AppleDouble",
    "@Recycle",
]


@pytest.mark.parametrize("name", SIDECARS)
def test_sidecar_folders_are_passed_over_counted_and_change_nothing(name, tmp_path):
    names = images("cat", "dog", count=6)
    alone = folder(root=filled(tmp_path / "a" / "p", names))
    root = filled(tmp_path / "b" / "p", names)
    filled(root, [f"{name}/x/1.png", f"cat/{name}/2.png", f"dog/{name}/0.png/thumb.jpg", f"cat/{name}/notes.txt"])
    data = folder(root=root)
    assert split_digest(data) == split_digest(alone)
    (finding,) = data.findings
    assert (finding.name, finding.count, finding.examples) == ("passed-over", 3, (f"{name} (3 image files)",))


def test_files_that_an_archive_of_a_mac_hides_are_counted(tmp_path):
    data = folder(root=filled(tmp_path / "p", [*images("cat", "dog", count=6), "cat/._0.png", "dog/._1.png"]))
    assert [one.examples for one in data.findings] == [("hidden files (2 image files)",)]


KINDS = [".CR2", ".nef", ".dng", ".svg", ".jxl", ".jp2", ".psd", ".tga", ".ppm", ".ico", ".raf", ".eps"]


@pytest.mark.parametrize("suffix", KINDS)
def test_image_files_that_are_not_decoded_are_counted_and_named_with_the_cure(suffix, tmp_path):
    root = filled(
        tmp_path / "p", [*images("cat", "dog", count=6), f"cat/a{suffix}", f"emu/b{suffix}", f"emu/c{suffix}"]
    )
    findings = {one.name: one for one in folder(root=root).findings}
    assert findings.keys() == {"left-out-files", "class-without-images"}
    assert (findings["left-out-files"].count, findings["left-out-files"].total) == (3, 15)
    assert f"3 {suffix.lower()}: " in findings["left-out-files"].detail
    assert any(cure in findings["left-out-files"].examples[0] for cure in ("export", "convert", "render"))
    assert findings["class-without-images"].examples == ("emu",)


def test_images_without_a_suffix_and_outside_of_classes_are_named(tmp_path):
    names = [*images("cat", "dog", count=6), "loose.png", "cat/IMG_1", "dog/IMG_2.jpg_large", "cat/photo.png~"]
    root = filled(tmp_path / "p", names)
    (root / "cat" / "README").write_text("no image")
    (finding,) = folder(root=root).findings
    assert finding.count == 4
    assert "directly in the folder" in finding.detail
    assert "end its name with the suffix" in finding.detail


def test_a_class_that_loses_all_files_is_named_in_a_part_layout_too(tmp_path):
    names = [*layout("train", "val"), "train/emu/a.arw", "val/emu/b.arw", "train/yak/@eaDir/c.jpg"]
    findings = {one.name: one for one in folder(root=filled(tmp_path / "p", names)).findings}
    assert findings["class-without-images"].examples == ("emu", "yak")


def test_only_files_that_are_not_decoded_say_so(tmp_path):
    with pytest.raises(EnvironmentFailure, match=r"3 image files are not decoded, such as cat/0\.nef: camera RAW"):
        folder(root=filled(tmp_path / "p", [f"cat/{n}.nef" for n in range(3)]))


def test_data_check_reports_all_of_it_and_show_too(tmp_path, capsys):
    root = filled(
        tmp_path / "p", [*layout("train", "val"), "train/cat/a.nef", "train/cat/@eaDir/x.jpg", "train/Cat/1.png"]
    )
    with pytest.raises(SystemExit) as done:
        main(["data", "check", "folder", "--root", str(root), "--set", "folder.size=8", "--json"])
    lines = {one["finding"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert done.value.code == 1
    assert {name for name, one in lines.items() if one["status"] == "found"} >= {
        "left-out-files",
        "similar-class-names",
    }
    assert {name for name, one in lines.items() if one["status"] == "stated"} == {"passed-over", "read-as-parts"}
    main(["data", "show", "folder", "--root", str(root)])
    assert "found: left-out-files" in capsys.readouterr().out
