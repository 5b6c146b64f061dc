"""A stranger's images as a dataset: class folders, tables, parts, and what is refused."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from hashzoo_plugins.datasets.folder import folder
from PIL import Image

from hashzoo.data.split_file import split_digest
from hashzoo.errors import EnvironmentFailure, UsageError

NAMES = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(10)]


@pytest.fixture
def root(tmp_path):
    return filled(tmp_path / "images", NAMES)


def filled(root, names):
    """A folder with a small image at each of these names, each of its own color."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 5), (number, 0, 0)).save(path, "PNG")
    return root


def table(root, text, name="labels.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_twenty_images_in_two_folders_are_a_benchmark(root):
    data = folder(root=root)
    assert [len(part) for part in (data.train, data.database, data.query)] == [10, 8, 2]
    assert data.class_names == ("cat", "dog")
    assert not data.multilabel
    assert data.query.labels.sum(0).tolist() == [1, 1]
    everything = torch.cat([data.train.ids, data.database.ids, data.query.ids])
    assert sorted(everything.tolist()) == list(range(20))
    assert data.query.images[0].size == (256, 256)
    assert str(root) not in data.source


def test_ids_are_places_among_the_sorted_paths_and_parts_follow_the_seed(root):
    data, again, other = folder(root=root), folder(root=root), folder(root=root, seed=1)
    assert torch.equal(data.train.ids, again.train.ids)
    assert not torch.equal(data.train.ids, other.train.ids)
    names = sorted(NAMES)
    for image, number in zip(data.train.images, data.train.ids.tolist(), strict=True):
        assert image.getpixel((0, 0)) == (NAMES.index(names[number]), 0, 0)


def test_ids_stand_for_paths_below_the_folder_and_other_paths_are_another_digest(root, tmp_path, monkeypatch):
    data = folder(root=root)
    assert data.names == sorted(NAMES)
    text = "path,label\n" + "\n".join(f"./{name},{name[:3]}" for name in NAMES)
    listed = folder(root=table(root, text))
    assert listed.names == data.names
    monkeypatch.chdir(root)
    elsewhere = folder(root=".", labels="labels.csv"), folder(root="."), folder(root="../images/labels.csv")
    assert {split_digest(one) for one in (data, listed, *elsewhere)} == {split_digest(data)}
    other = folder(root=filled(tmp_path / "others", [name.replace("cat", "cow") for name in NAMES]))
    assert torch.equal(other.train.ids, data.train.ids)
    assert split_digest(other) != split_digest(data)


def test_sizes_are_shares_or_numbers(root):
    data = folder(root=root, query=4, train=0.25, validation=0.2)
    assert data.validation is not None
    assert [len(part) for part in (data.train, data.validation, data.database, data.query)] == [4, 1, 11, 4]
    for wrong in ({"query": 0}, {"query": 1.5}, {"query": 17}, {"train": 1}, {"train": 19}, {"size": 4}):
        with pytest.raises(UsageError):
            folder(root=root, **wrong)


def test_folders_below_a_class_folder_belong_to_it_and_other_files_do_not_count(tmp_path):
    root = filled(tmp_path, [*NAMES, "cat/deep/er/x.JPG", ".hidden/a.png", "dog/.b.png", "cat/notes.txt", "top.png"])
    data = folder(root=root)
    assert sum(map(len, (data.train, data.database, data.query))) == 21
    assert data.class_names == ("cat", "dog")


def test_names_in_any_script_with_spaces_newlines_and_bytes_that_are_no_text(tmp_path):
    odd = ["猫", "мои собаки", "a\nb", " ", "%s{}"]
    if sys.platform == "linux":
        odd.append(os.fsdecode(b"caf\xe9"))
    data = folder(root=filled(tmp_path, [f"{kind}/{kind}{n}.png" for kind in odd for n in range(4)]))
    assert len(data.class_names) == len(odd)
    assert "a\\nb" in data.class_names
    for name in data.class_names:
        name.encode()
        assert name.isprintable()
    files = data.train.images.base
    for row in range(len(files)):
        assert files[row].size == (256, 256)
        assert files.name(row).isprintable()
        assert files.stamp(row)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_a_folder_is_entered_once(root, tmp_path):
    (root / "cat" / "loop").symlink_to(root)
    (root / "dog" / "again").symlink_to(root / "dog")
    filled(tmp_path / "elsewhere", ["1.png", "2.png", "3.png"])
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "fox2.png").symlink_to(root / "cat" / "0.png")
    (root / "cat" / "broken.png").symlink_to(root / "nothing.png")
    data = folder(root=root)
    assert data.class_names == ("cat", "dog", "fox")
    files = data.train.images.base
    assert len(files) == 24
    (broken,) = [row for row in range(24) if files.name(row).endswith("broken.png")]
    assert files.stamp(broken)
    with pytest.raises(EnvironmentFailure, match=r"broken\.png: .*No such file"):
        files[broken]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes with names")
def test_a_pipe_named_like_a_image_is_not_waited_for(root):
    os.mkfifo(root / "cat" / "pipe.png")
    assert len(folder(root=root).train.images.base) == 20


def test_a_class_of_one_image_is_learned_from_only_and_one_of_two_is_found(tmp_path):
    root = filled(tmp_path, [*NAMES, "fox/1.png", "owl/1.png", "owl/2.png"])
    for seed in range(5):
        data = folder(root=root, seed=seed)
        assert data.class_names == ("cat", "dog", "fox", "owl")
        assert data.train.labels.sum(0)[2:].tolist() == [1, 1]
        assert data.database.labels.sum(0)[2:].tolist() == [0, 1]
        assert data.query.labels.sum(0)[2:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ([], EnvironmentFailure, "no images found"),
        (
            ["cat/1.xyz", "cat/2.xyz"],
            EnvironmentFailure,
            r"2 image files are not decoded, .*end its name with the suffix",
        ),
        (["cat/1.png", "cat/2.png"], UsageError, "only one class"),
        (["cat/1.png", "cat/2.png", "dog/1.png"], UsageError, "a class needs three images"),
    ],
)
def test_a_folder_that_is_no_benchmark_says_why(names, error, words, tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(error, match=words):
        folder(root=filled(tmp_path / "p", names))


def test_a_folder_that_is_not_there_or_not_named_says_so(tmp_path):
    with pytest.raises(EnvironmentFailure, match="there is no folder"):
        folder(root=tmp_path / "none")
    (tmp_path / "notes.md").write_text("no table")
    with pytest.raises(UsageError, match=r"notes\.md is not a table"):
        folder(root=tmp_path / "notes.md")
    with pytest.raises(UsageError, match="--root IMAGES"):
        folder(root=None)


def test_a_table_names_images_labels_and_parts(root):
    rows = [f"{name},{name[:3]},{'query' if n % 5 == 0 else 'Train' if n % 2 else ''}" for n, name in enumerate(NAMES)]
    text = "path,label,part\n" + "\n".join(row if not row.endswith(",") else row + "database" for row in rows)
    data = folder(root=table(root, text))
    assert [len(part) for part in (data.train, data.database, data.query)] == [8, 8, 4]
    assert set(data.query.ids.tolist()) == {0, 5, 10, 15}
    assert not data.notes
    named = folder(root=root, labels=table(root.parent, text))
    assert torch.equal(named.train.ids, data.train.ids)


def test_a_table_without_parts_is_drawn_as_class_folders_are(root):
    text = "label,path\n" + "\n".join(f"{name[:3]},{name}" for name in reversed(NAMES))
    listed, walked = folder(root=table(root, text)), folder(root=root)
    assert torch.equal(listed.train.ids, walked.train.ids)
    assert torch.equal(listed.query.labels, walked.query.labels)


def test_a_table_may_have_its_own_validation_and_no_database(root):
    parts = ["query"] * 5 + ["validation"] * 5 + ["train"] * 10
    text = "path,label,part\n" + "\n".join(
        f"{n},{i % 2},{p}" for i, (n, p) in enumerate(zip(NAMES, parts, strict=True))
    )
    data = folder(root=table(root, text))
    assert data.validation is not None
    assert len(data.validation) == 5
    assert set(data.database.ids.tolist()) == set(data.train.ids.tolist())
    assert data.notes == {"train": "inside the database"}
    with pytest.raises(UsageError, match=r"leave out folder\.query and folder\.train"):
        folder(root=root / "labels.csv", query=3)


@pytest.mark.parametrize(
    ("header", "line"),
    [("path,labels", "{},cat;{}"), ("path,labels", "{}, cat | {}"), ("path,cat,8,9", "{},1,{},{}")],
)
def test_several_labels_are_separated_or_stand_in_columns(header, line, root):
    def row(number, name):
        ends = (number % 2 and "8") or "9"
        values = [ends] if "labels" in header else [int(ends == "8"), int(ends == "9")]
        return line.format(name, *values)

    data = folder(root=table(root, "\n".join([header, *(row(n, name) for n, name in enumerate(NAMES))])))
    assert data.multilabel
    assert sorted(data.class_names) == ["8", "9", "cat"]
    assert [len(part) for part in (data.train, data.database, data.query)] == [10, 8, 2]
    assert (data.train.labels.sum(1) == 2).all()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("path,label\n../x.png,a", UsageError, "outside the folder of the images: '../x.png'"),
        ("path,label\n/etc/passwd,a", UsageError, "outside the folder"),
        ("path,label\n,a", UsageError, "outside the folder"),
        ("path,label\ncat/0.png,a\ncat/../cat/0.png,b", UsageError, "in several rows"),
        (
            "path,label\ncat/0.png,a\ncat/x.png,b\ncat/y.png,b",
            EnvironmentFailure,
            r"missing images: .*x\.png' and 1 more; ",
        ),
        ("path,label\ncat/0.png,\ncat/1.png,b", UsageError, "images without a label"),
        ("path,label,part\ncat/0.png,a,fold1", UsageError, "unknown parts: 'fold1'"),
        ("path,label,part\ncat/0.png,a,train\ncat/1.png,b,train", UsageError, "has no query images"),
        ("path,a,b\ncat/0.png,1,yes", UsageError, "values other than 0 and 1: 'b'"),
        ("path\ncat/0.png", UsageError, "has no labels"),
        (
            "file;label\ncat/0.png;a",
            UsageError,
            "has no column path; it has: file;label; separate the fields of a row with",
        ),
        ("path,label", UsageError, "lists no images"),
        ("", UsageError, "not a readable table"),
        ('path,label\n"cat', UsageError, "not a readable table"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_the_culprit(text, error, words, root):
    with pytest.raises(error, match=words) as caught:
        folder(root=table(root, text))
    assert "\n" not in str(caught.value)


def test_a_parquet_without_pyarrow_names_the_extra(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (root / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(EnvironmentFailure, match=r"pip install 'hashzoo\[parquet\]'"):
        folder(root=root / "labels.parquet")


def test_a_parquet_is_read_like_a_csv(root):
    pytest.importorskip("pyarrow")
    import pandas as pd

    frame = pd.DataFrame({"path": NAMES, "labels": [["a", str(n % 3)] for n in range(20)]})
    frame.to_parquet(root / "labels.parquet")
    data = folder(root=root / "labels.parquet")
    assert data.class_names == ("0", "1", "2", "a")
    assert data.multilabel


def test_a_file_too_large_to_be_a_image_is_not_read(root):
    with (root / "cat" / "0.png").open("r+b") as file:
        file.truncate(300 << 20)
    files = folder(root=root).train.images.base
    with pytest.raises(EnvironmentFailure, match=r"cat/0\.png: the file has 314572800 bytes"):
        files[0]


def test_a_wide_image_keeps_its_middle(tmp_path):
    root = filled(tmp_path, NAMES)
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    wide.save(root / "cat" / "0.png")
    files = folder(root=root, size=32).train.images.base
    assert files[0].crop((4, 0, 28, 32)).getextrema() == ((255, 255),) * 3
    assert files.form == "32 x 32"


def test_the_data_set_of_the_documentation_works(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "howto" / "write-dataset.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "photos.standard" in block]
    made: dict = {}
    exec(code, made)  # noqa: S102 - it is our own
    for number in range(520):
        (tmp_path / f"{'ab'[number % 2]}{number}.jpg").write_bytes(b"")
    data = made["hashzoo_datasets"]()["photos.standard"](root=tmp_path)
    assert [len(part) for part in data.parts().values()] == [400, 20, 100]
    assert data.query.labels.sum(0).tolist() == [50, 50]
