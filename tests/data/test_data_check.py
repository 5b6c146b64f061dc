"""`hashzoo data`: every problem alone, correct data without any, and the problems of published lists."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hashzoo.cli.main import main
from hashzoo.data import audit, near_duplicates, split_file
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.registry import zoo
from hashzoo.registry.open_dataset import open_dataset
from hashzoo.testing import synthetic_splits
from hashzoo.types import SourceFinding, Split, Splits
from tests.cli.command import hashzoo
from tests.shared_data import SHARED, needs

HOUSE = zoo.load_plugins()
ROOT = Path(__file__).parents[2]
READER = Path(__file__).with_name("list_reader.py")
ARCHIVE = SHARED / "data" / "hash_splits.tar.xz"
needs_archive = needs("data", "hash_splits.tar.xz")


def joined(first: Split, second: Split, **changes) -> Split:
    """The images of one part after those of another."""
    second = replace(second, **changes)
    sides = ((first.images, second.images), (first.labels, second.labels), (first.ids, second.ids))
    return Split(*(torch.cat(both) for both in sides))


def some(split: Split, count: int) -> Split:
    return split.take(torch.arange(count))


def without_class(split: Split, c: int) -> Split:
    return split.take(torch.nonzero(split.labels[:, c] == 0)[:, 0])


def brighter(split: Split) -> torch.Tensor:
    return split.images.clamp(max=250) + 3


def relabelled(split: Split, row: int, value: float) -> Split:
    labels = split.labels.clone()
    labels[row] = labels[row] * value
    return replace(split, labels=labels)


DATA = synthetic_splits()
NEW = torch.arange(9000, 9003)
FIRST = some(DATA.query, 3)
BY_CLASS = DATA.database.labels.argmax(1).sort(stable=True).indices

#: Data with one problem each, and the expected findings: name -> count.
FAULTS: dict[str, tuple[Splits, dict[str, int]]] = {
    "queries in the database": (
        replace(DATA, database=joined(DATA.database, FIRST)),
        {"query-in-database": 3},
    ),
    "queries in train": (replace(DATA, train=joined(DATA.train, FIRST)), {"query-in-train": 3}),
    "queries in validation": (replace(DATA, validation=FIRST), {"query-in-train": 3}),
    "copies in the database": (
        replace(DATA, database=joined(DATA.database, FIRST, ids=NEW)),
        {"query-copy-in-database": 3},
    ),
    "copies in train": (replace(DATA, train=joined(DATA.train, FIRST, ids=NEW)), {"query-copy-in-train": 3}),
    "brighter copies in the database": (
        replace(DATA, database=joined(DATA.database, FIRST, ids=NEW, images=brighter(FIRST))),
        {"query-near-database": 3},
    ),
    "brighter copies in train": (
        replace(DATA, train=joined(DATA.train, FIRST, ids=NEW, images=brighter(FIRST))),
        {"query-near-train": 3},
    ),
    "database images twice": (
        replace(DATA, database=joined(DATA.database, some(DATA.database, 2))),
        {"duplicates": 2},
    ),
    "copies of database images in the database": (
        replace(DATA, database=joined(DATA.database, some(DATA.database, 3), ids=NEW)),
        {"copies-in-a-part": 3},
    ),
    "copies of training images in train": (
        replace(DATA, train=joined(DATA.train, some(DATA.train, 3), ids=NEW)),
        {"copies-in-a-part": 3},
    ),
    "brighter copies of database images in the database": (
        replace(
            DATA,
            database=joined(DATA.database, some(DATA.database, 3), ids=NEW, images=brighter(some(DATA.database, 3))),
        ),
        {"near-in-a-part": 3},
    ),
    "a query without a label": (
        replace(DATA, query=relabelled(DATA.query, 4, 0)),
        {"unlabelled-queries": 1, "queries-without-relevant": 1},
    ),
    "a class that is not stored": (
        replace(DATA, database=without_class(DATA.database, 5)),
        {"queries-without-relevant": 13},
    ),
    "a database in the order of classes": (
        replace(DATA, database=DATA.database.take(BY_CLASS)),
        {"class-ordered-database": 194},
    ),
    "train in the database": (
        replace(DATA, database=joined(DATA.database, some(DATA.train, 7))),
        {"train-in-database": 7},
    ),
    "a class that is not learned": (replace(DATA, train=without_class(DATA.train, 5)), {"class-missing-in-train": 1}),
    "half a label": (replace(DATA, train=relabelled(DATA.train, 0, 0.5)), {"labels-not-binary": 1}),
    "two names of one class": (
        replace(DATA, class_names=("Dog", "dog ", *DATA.class_names[2:])),
        {"similar-class-names": 1},
    ),
    **{
        f"{name} by the dataset": (replace(DATA, findings=[SourceFinding(name, 2, 9, ("one",), "why")]), {name: 2})
        for name in (
            *("label-with-separator", "class-numbers", "class-without-images", "left-out-files"),
            *("passed-over", "read-as-parts", "not-read", "unlabelled-train"),
        )
    },
}


def found(data: Splits, near: int | None = 4) -> dict[str, int]:
    return {one.name: one.count for one in audit.audit_splits(data, near=near)}


@pytest.mark.parametrize("multilabel", [False, True])
def test_correct_data_has_no_finding(multilabel):
    assert found(synthetic_splits(multilabel)) == {}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_each_problem_is_found_and_counted_and_no_other(fault):
    data, expected = FAULTS[fault]
    assert found(data) == expected


def test_copies_inside_parts_are_stated_with_their_parts_and_other_labels():
    twins = joined(DATA.train, relabelled(some(DATA.train, 3), 1, 0), ids=NEW)
    data = replace(DATA, train=twins, database=joined(DATA.database, some(DATA.database, 3), ids=NEW))
    (one,) = [one for one in audit.audit_splits(data) if one.name == "copies-in-a-part"]
    assert one.status({}, []) == "stated"
    assert one.detail == "3 in train, 3 in database; 1 with other labels than the first"
    first, original = int(NEW[0]), int(DATA.train.ids[0])
    assert one.examples[0] == f"{first} = {original}"
    assert one.total == sum(len(part) for part in data.parts().values())


def test_every_kind_of_finding_is_tested_and_documented():
    of_files = {"contaminated", "damaged", "missing", "no-images", "value-range"}
    of_vectors = {"held-out-queries", "unusable-vectors", "lengths", "constant-columns", "duplicate-rows"}
    found = {name for _, expected in FAULTS.values() for name in expected}
    assert found | of_files | of_vectors == set(audit.KINDS)
    text = (ROOT / "docs" / "reference" / "data-check.md").read_text()
    assert [name for name in audit.KINDS if f"`{name}`" not in text] == []


def test_the_ceiling_is_the_share_of_queries_with_relevant_items():
    data, _ = FAULTS["a class that is not stored"]
    (one,) = audit.audit_splits(data)
    assert f"{1 - 13 / 80:.4f}" in one.detail


def test_a_class_beyond_the_columns_of_train_is_unseen_and_no_finding():
    narrow = without_class(DATA.train, 5)
    assert found(replace(DATA, train=replace(narrow, labels=narrow.labels[:, :5]))) == {}


@pytest.mark.parametrize("name", [n for n in sorted(HOUSE.datasets) if n.startswith(("digits", "scenes"))])
def test_built_in_protocols_have_no_finding(name):
    opened = open_dataset(HOUSE, name)
    lines = audit.report(audit.audit_splits(opened.data), opened.data.notes, [])
    assert [line for line in lines if line["status"] == "found"] == []


def test_a_declared_finding_is_listed_and_does_not_fail():
    data, _ = FAULTS["train in the database"]
    (one,) = audit.audit_splits(data)
    assert one.status({}, []) == "found"
    assert one.status({}, ["train-in-database"]) == "allowed"
    assert one.status({"train": "inside the database"}, []) == "declared"
    (line,) = audit.report([one], {"train": "inside the database"}, [])
    assert "declared: train: inside the database" in line["cure"]


# ------------------------------------------------------------------------------------------------- images as files


def written(folder: Path, ending: str = ".txt") -> Path:
    """Twelve image files with lists of them: 4 to train on, 6 stored, 2 queries."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines = []
    for n in range(12):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((40, 30), Image.Resampling.BICUBIC).save(folder / "images" / f"{n}.png")
        lines.append(f"images/{n}.png {n % 2} {1 - n % 2}\n")
    for name, rows in (("train", slice(0, 4)), ("database", slice(4, 10)), ("test", slice(10, 12))):
        (folder / f"{name}{ending}").write_text("".join(lines[rows]))
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "data")


@dataclass(frozen=True)
class CommandOutput:
    code: int
    out: str
    err: str


@pytest.fixture
def run_data(capsys, monkeypatch):
    """``hashzoo data ARGUMENTS --plugin READER``, in this process."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> CommandOutput:
        code = 0
        try:
            main(["data", *map(str, arguments), "--plugin", str(READER)])
        except SystemExit as done:
            code = int(done.code or 0)
        return CommandOutput(code, *capsys.readouterr())

    return run


@pytest.fixture
def check_folder(run_data):
    """Run `hashzoo data check` on list files: its JSON report, and the findings by name."""

    def run(folder: Path, *options: object, name: str = "stranger.listed"):
        found = run_data("check", name, "--root", folder, "--json", *options)
        assert found.code in (0, 1), found.err
        report = json.loads(found.out)
        assert report["ok"] == (found.code == 0)
        return report, {line["finding"]: line for line in report["findings"]}

    return run


def test_sound_files_give_exit_code_0(folder, check_folder):
    report, lines = check_folder(folder, "--near")
    assert lines == {}
    assert report["dataset"] == "stranger.listed"


def test_a_damaged_and_a_missing_image_are_named(folder, check_folder):
    (folder / "images" / "3.png").write_bytes(b"no image")
    (folder / "images" / "11.png").unlink()
    _, lines = check_folder(folder)
    assert set(lines) == {"damaged", "missing"}
    assert "images/3.png" in lines["damaged"]["examples"][0]
    assert "images/11.png" in lines["missing"]["examples"][0]
    assert (lines["damaged"]["count"], lines["damaged"]["of"]) == (1, 12)


def test_lists_without_any_image_are_told_so_once_and_pass(folder, check_folder):
    for file in (folder / "images").iterdir():
        file.unlink()
    report, lines = check_folder(folder)
    assert report["ok"]
    assert set(lines) == {"no-images"}
    assert lines["no-images"]["status"] == "stated"


def test_a_copy_in_another_file_format_and_one_scaled_down_are_found(folder, check_folder):
    with Image.open(folder / "images" / "10.png") as image:
        image.save(folder / "images" / "5.bmp")
        image.resize((80, 60), Image.Resampling.BICUBIC).save(folder / "images" / "6.png")
    text = (folder / "database.txt").read_text()
    (folder / "database.txt").write_text(text.replace("5.png", "5.bmp"))
    _, lines = check_folder(folder)
    assert set(lines) == {"query-copy-in-database"}
    (example,) = lines["query-copy-in-database"]["examples"]
    assert "images/10.png" in example
    assert "images/5.bmp" in example
    (folder / "database.txt").write_text(text)
    assert not check_folder(folder)[1]
    assert set(check_folder(folder, "--near")[1]) == {"query-near-database"}


def test_an_image_in_several_parts_is_decoded_once(monkeypatch):
    data = replace(DATA, database=DATA.train)
    seen = []
    monkeypatch.setattr(near_duplicates._Fingerprinter, "of_image", lambda self, image: seen.append(1) or (0, 0, 0, ""))
    report = []
    near_duplicates.compute_fingerprints(data.parts(), False, 2, lambda *at: report.append(at))
    assert len(seen) == 320
    assert report[-1] == (320, 320)


# ------------------------------------------------------------------------------------------------------- the command


def test_a_finding_fails_the_command_unless_it_is_allowed_or_declared(folder, check_folder):
    (folder / "database.txt").write_text("".join((folder / f"{n}.txt").read_text() for n in ("database", "train")))
    report, lines = check_folder(folder)
    assert (report["ok"], lines["train-in-database"]["status"]) == (False, "found")
    report, lines = check_folder(folder, "--allow", "train-in-database")
    assert (report["ok"], lines["train-in-database"]["status"]) == (True, "allowed")
    report, lines = check_folder(folder, "--set", "stranger.listed.notes=inside the database")
    assert (report["ok"], lines["train-in-database"]["status"]) == (True, "declared")


def test_a_backbone_trained_on_the_data_is_reported(folder, check_folder):
    _, lines = check_folder(folder, "--backbone", "stranger-seen")
    assert set(lines) == {"contaminated"}
    assert lines["contaminated"]["examples"] == ["Everything"]
    assert set(check_folder(folder, "--backbone", "stranger-seen", "--set", "stranger-seen.unused=3")[1]) == {
        "contaminated"
    }
    assert not check_folder(folder, "--backbone", "pixels")[1]


def test_findings_are_shown_as_a_table_with_a_sentence_each(folder, run_data):
    (folder / "test.txt").write_text((folder / "database.txt").read_text())
    output = run_data("check", "stranger.listed", "--root", folder)
    assert output.code == 1
    assert "query-in-database  found   6 of 6" in output.out
    assert "query-in-database: a query retrieves itself first" in output.out
    assert "remove the queries from the database." in output.out
    assert output.out.endswith("1 finding to fix\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["digits.standrad"], 2, "no dataset 'digits.standrad'; did you mean 'digits.standard'?"),
        (["./nowhere"], 2, "no such file or folder: ./nowhere"),
        (["digits.small", "--allow", "query-in-databse"], 2, "did you mean 'query-in-database'?"),
        (["digits.small", "--root", "."], 2, "dataset digits.small has no option 'root'"),
        (["digits.small", "--set", "scenes.small.seed=1"], 2, "--set scenes.small does not apply to digits.small"),
        (["digits.small", "--backbone", "nothing"], 2, "no backbone 'nothing'"),
        (["stranger.listed"], 2, "requires the option root; give --root FOLDER or --set stranger.listed.root=VALUE"),
        (["stranger.listed", "--root", "empty"], 2, "there is no train.txt in empty"),
        (["empty"], 2, "no dataset can read the folder empty;"),
        (["empty", "--root", "x"], 2, "empty is a folder; leave out --root"),
        (["notes.md", "--root", "x"], 2, "notes.md is a file; leave out --root"),
        (["notes.md"], 2, "no dataset can read the file notes.md;"),
        (["notes.md", "--set", "folder.size=64"], 2, "notes.md is not a table; use .csv, .tsv, .parquet"),
        (["empty", "--set", "lists.databse=others"], 2, "no option 'databse'; did you mean 'database'?"),
        (["empty", "--set", "lists.database=all"], 2, "lists.database = 'all': "),
        (
            ["empty", "--set", "digits.small.seed=1"],
            2,
            "--set digits.small does not apply to empty; datasets that read any folder: ",
        ),
        (["empty", "--set", "lists.seed=1"], 3, "there is no train.txt in empty"),
        (
            ["empty", "--set", "lists.seed=1", "--set", "folder.seed=1"],
            3,
            "can read the folder empty; folder: no images",
        ),
    ],
)
def test_errors_are_one_line_with_the_fix(arguments, code, message, tmp_path, run_data, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("no table")
    monkeypatch.chdir(tmp_path)
    output = run_data("check", *arguments)
    assert (output.code, output.out) == (code, "")
    assert message in output.err
    assert len(output.err.splitlines()) == 1


def test_a_folder_is_read_by_the_one_data_set_that_can_and_its_name_is_said(tmp_path):
    folder = written(tmp_path / "data", ".mine")
    output = hashzoo("data", "check", folder, "--plugin", READER, cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("stranger.other: 4 train, 6 database, 2 query; split ")


def in_class_folders(folder: Path) -> Path:
    """Twelve images in the folders a and b, and no list files that a dataset reads."""
    written(folder, ".none")
    for n in range(12):
        (folder / "ab"[n % 2]).mkdir(exist_ok=True)
        (folder / "images" / f"{n}.png").rename(folder / "ab"[n % 2] / f"{n}.png")
    return folder


def test_a_folder_that_several_data_sets_read_is_refused_until_one_is_chosen(tmp_path, capsys):
    folder = in_class_folders(tmp_path / "my data")
    for part, rows in (("train", range(4)), ("database", range(4, 10)), ("test", range(10, 12))):
        (folder / f"{part}.txt").write_text("".join(f"{'ab'[n % 2]}/{n}.png {n % 2}\n" for n in rows))

    def check(*arguments: object) -> int:
        try:
            main(["data", "check", *map(str, arguments)])
        except SystemExit as done:
            return int(done.code or 0)
        return 0

    assert check(folder) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"hashzoo: folder and lists can each read the folder {folder}; choose one with ")
    assert f"hashzoo data check lists --root '{folder}'" in output
    assert check("lists", "--root", folder) == 0
    assert check(folder, "--set", "lists.seed=0") == 0
    assert [line[:5] for line in capsys.readouterr().out.splitlines() if "split" in line] == ["lists"] * 2
    assert check(folder, "--set", "folder.seed=0") == 0
    assert capsys.readouterr().out.startswith("folder: ")


def test_a_table_is_checked_by_its_name_and_declares_that_train_is_searched(tmp_path, run_data):
    folder = in_class_folders(tmp_path / "data")
    lines = [f"{'ab'[n % 2]}/{n}.png,{'ab'[n % 2]},{'train' if n < 8 else 'query'}" for n in range(12)]
    (folder / "mine.csv").write_text("\n".join(["path,label,part", *lines]))
    output = run_data("check", folder / "mine.csv", "--json")
    assert output.code == 0, output.err
    report = json.loads(output.out)
    assert report["dataset"] == "folder"
    assert [(line["finding"], line["status"]) for line in report["findings"]] == [("train-in-database", "declared")]
    assert json.loads(run_data("show", folder / "mine.csv", "--json").out)["digest"] == report["digest"]


def test_where_nothing_but_files_stood_in_the_way_the_exit_code_is_that_of_trouble(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EnvironmentFailure, match=r"no dataset can read the folder .*; folder: no images .*; lists: there is"
    ):
        open_dataset(HOUSE, str(tmp_path / "empty"))


def test_the_fix_for_train_in_database_names_the_option_that_allows_it():
    assert audit.KINDS["train-in-database"].cure.endswith("--allow train-in-database")


def test_show_describes_a_protocol_and_saves_its_parts(folder, run_data):
    arguments = ("show", "stranger.listed", "--root", folder)
    output = run_data(*arguments, "--save", folder / "kept.npz")
    assert output.code == 0, output.err
    report = json.loads(run_data(*arguments, "--json").out)
    saved = split_file.read(folder / "kept.npz")
    assert saved.digest == report["digest"]
    assert saved.ids["query"].tolist() == [10, 11]
    for text in (
        saved.digest,
        "source             lists",
        "Everything",
        "2, 0 without a label",
        "mAP of chance      0.6",
    ):
        assert text in output.out
    assert report["parts"]["database"]["class_counts"] == [3, 3]


def test_show_gives_the_map_of_chance_and_the_ceiling():
    from hashzoo.registry.open_dataset import _queries

    report = _queries(FAULTS["a class that is not stored"][0])
    assert report["without_relevant"] == 13
    assert report["map_ceiling_if_counted"] == pytest.approx(1 - 13 / 80)
    assert report["chance_map"] == pytest.approx(0.22, abs=0.02)


def test_help_on_data_imports_neither_torch_nor_pandas():
    code = "import sys\nfrom hashzoo.cli.main import main\nmain(['data', 'check', '--help'])\n"
    code += "print(sorted({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


# ------------------------------------------------------------------------------------------------ digests and files


def test_the_split_digest_covers_ids_labels_order_and_parts_but_not_pixels():
    digest = split_file.split_digest(DATA)
    assert digest == "d9057ab37d53"  # on every platform
    assert split_file.split_digest(replace(DATA, query=replace(DATA.query, images=DATA.query.images + 1))) == digest
    others = [
        replace(DATA, query=DATA.query.take(torch.arange(79, -1, -1))),
        replace(DATA, query=relabelled(DATA.query, 0, 0)),
        replace(DATA, train=DATA.database, database=DATA.train),
        replace(DATA, validation=DATA.train),
    ]
    assert len({digest, *map(split_file.split_digest, others)}) == 5


def test_composed_queries_change_the_digest_and_cannot_be_saved(tmp_path):
    union, plain = (open_dataset(HOUSE, name).data for name in ("scenes.union", "scenes.standard"))
    assert split_file.split_digest(union) != split_file.split_digest(plain)
    with pytest.raises(UsageError, match="composed of two images cannot be saved"):
        split_file.save(union, tmp_path / "x.npz")


def test_saved_splits_are_read_back_and_a_changed_file_is_refused(tmp_path):
    data = replace(DATA, validation=replace(FIRST, ids=FIRST.ids + 2**40))
    path = tmp_path / "parts.npz"
    split_file.save(data, path)
    saved = split_file.read(path)
    assert saved.digest == split_file.split_digest(data)
    for name, part in data.parts().items():
        assert np.array_equal(saved.ids[name], part.ids.numpy())
        assert np.array_equal(saved.labels[name], part.labels.numpy())
    with np.load(path) as stored:
        arrays = dict(stored)
    assert arrays["train_ids"].dtype == np.int32
    arrays["train_ids"][0] += 1
    np.savez(path, **arrays)
    with pytest.raises(EnvironmentFailure, match="its digest is not"):
        split_file.read(path)


def test_names_of_ids_are_saved_and_part_of_the_digest(tmp_path):
    names = [f"cats/{n}.jpg" for n in range(9000)] + ["caf\udce9/é.jpg"]
    data = replace(DATA, names=names, query=replace(FIRST, ids=torch.tensor([9000, 0, 5])))
    digests = {
        split_file.split_digest(one) for one in (replace(data, names=None), data, replace(data, names=names[::-1]))
    }
    assert len(digests) == 3
    path = tmp_path / "parts.npz"
    split_file.save(data, path)
    saved = split_file.read(path)
    assert saved.digest == split_file.split_digest(data)
    assert saved.names["query"] == [names[9000], names[0], names[5]]
    assert saved.names["train"] == [names[n] for n in data.train.ids.tolist()]
    split_file.save(replace(data, names=None), tmp_path / "plain.npz")
    assert split_file.read(tmp_path / "plain.npz").names == {}
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["query_names"][0] += 1
    np.savez(path, **arrays)
    with pytest.raises(EnvironmentFailure, match="its digest is not"):
        split_file.read(path)


def test_an_id_without_a_name_and_a_name_with_a_zero_byte_are_refused():
    with pytest.raises(UsageError, match="the ids of train go beyond the 1 names"):
        split_file.split_digest(replace(DATA, names=["a"]))
    with pytest.raises(UsageError, match="contains a zero byte"):
        split_file.split_digest(replace(DATA, names=["a\0"] * 1000))


@pytest.mark.parametrize("content", [b"", b"PK nonsense", None])
def test_other_files_are_not_read_as_splits(content, tmp_path):
    path = tmp_path / "x.npz"
    if content is None:
        buffer = io.BytesIO()
        np.savez(buffer, digest=np.array({"a": 1}, dtype=object), allow_pickle=True)
        content = buffer.getvalue()
    path.write_bytes(content)
    with pytest.raises(EnvironmentFailure, match="is not a split file"):
        split_file.read(path)
    with pytest.raises(UsageError, match="there is no file"):
        split_file.read(tmp_path / "nothing.npz")


def test_labels_that_are_not_binary_cannot_be_saved(tmp_path):
    with pytest.raises(UsageError, match="other than 0 and 1 cannot be saved"):
        split_file.save(FAULTS["half a label"][0], tmp_path / "x.npz")


# --------------------------------------------------------------------------------------------------- by brute force


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30), st.integers(1, 40))
def test_counts_equal_brute_force(seed, classes, queries, size):
    draw = np.random.default_rng(seed)

    def part(count: int) -> Split:
        images = torch.from_numpy(draw.integers(0, 2, (count, 1, 1, 2), dtype=np.uint8))
        labels = torch.from_numpy((draw.random((count, classes)) < 0.2).astype(np.float32))
        return Split(images, labels, torch.from_numpy(draw.integers(0, 60, count)))

    data = Splits(part(size), part(size), part(queries), True, tuple(map(str, range(classes))))
    query, database, train = (
        [
            (int(i), p.tolist(), set(torch.nonzero(y)[:, 0].tolist()))
            for i, p, y in zip(s.ids, s.images, s.labels, strict=True)
        ]
        for s in (data.query, data.database, data.train)
    )
    copied = lambda other: sum(any(p == b and i != j for j, b, _ in other) for i, p, _ in query)  # noqa: E731
    again = lambda s: sum(next(j for j, b, _ in s if b == p) != i for i, p, _ in s)  # noqa: E731
    met = set().union(*(y for _, _, y in query + database))
    expected = {
        "query-in-database": sum(i in {j for j, _, _ in database} for i, _, _ in query),
        "query-in-train": sum(i in {j for j, _, _ in train} for i, _, _ in query),
        "train-in-database": sum(i in {j for j, _, _ in database} for i, _, _ in train),
        "query-copy-in-database": copied(database),
        "query-copy-in-train": copied(train),
        "duplicates": sum(len(s) - len({i for i, _, _ in s}) for s in (query, database, train)),
        "copies-in-a-part": sum(map(again, (query, database, train))),
        "unlabelled-queries": sum(not y for _, _, y in query),
        "queries-without-relevant": sum(not any(y & z for _, _, z in database) for _, _, y in query),
        "class-missing-in-train": len(met - set().union(*(y for _, _, y in train))),
    }
    counts = found(data, None)
    counts.pop("class-ordered-database", None)  # random, so rare
    assert counts == {name: count for name, count in expected.items() if count}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_near_duplicates_equal_brute_force(seed, distance):
    draw = np.random.default_rng(seed)

    def some_prints(count: int) -> near_duplicates.Fingerprints:
        flips = np.uint64(1) << draw.integers(0, 64, (count, 4)).astype(np.uint64)
        looks = np.bitwise_xor.reduce(flips, axis=1)
        states = draw.choice([0, 0, 0, 1, 2], count).astype(np.uint8)
        return near_duplicates.Fingerprints(draw.integers(0, 5, count).astype(np.uint64), looks, states)

    query, among = some_prints(20), some_prints(90)
    ids, others = draw.integers(0, 40, 20), draw.integers(0, 40, 90)
    expected = {}
    for i in range(20):
        for j in range(90):
            near = (int(query.perceptual[i]) ^ int(among.perceptual[j])).bit_count() <= distance
            other = ids[i] != others[j] and query.exact[i] != among.exact[j]
            if near and other and query.state[i] == among.state[j] == 0:
                expected.setdefault(i, j)
    assert near_duplicates.find_near_duplicates(query, ids, among, others, distance) == expected


# ------------------------------------------------------------------------------------------------- public data


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Public list files, put together as train.txt, test.txt and database.txt of one folder each."""
    top = tmp_path_factory.mktemp("lists")
    coco, nus = "HashNet/pytorch/data/coco", "HashNet/pytorch/data/nuswide_81"
    wanted = {
        f"{coco}/train.txt": "coco/train.txt",
        f"{coco}/test.txt": "coco/test.txt",
        **{f"HashNet/caffe/data/coco/test/database{n}.txt": "coco/database.txt" for n in range(8)},
        f"{nus}/train.txt": "nus/train.txt",
        f"{nus}/test.txt": "nus/test.txt",
        **{f"swuxyj/data/mirflickr/{n}.txt": f"mirflickr/{n}.txt" for n in ("train", "test", "database")},
    }
    image = "HashNet/caffe/data/imagenet"
    wanted[f"{image}/train.txt"] = "imagenet/train.txt"
    for n in range(8):
        wanted[f"{image}/test/test{n}.txt"] = "imagenet/test.txt"
        wanted[f"{image}/test/database{n}.txt"] = "imagenet/database.txt"
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if target := wanted.get(member.name.removeprefix("./")):
                (top / target).parent.mkdir(exist_ok=True)
                with (top / target).open("ab") as file:
                    file.write(archive.extractfile(member).read())
    (top / "nus" / "database.txt").write_bytes((top / "nus" / "train.txt").read_bytes())  # its own was never published
    return top


#: The known findings of published lists: folder -> finding -> count.
KNOWN = {
    "coco": {"query-in-database": 5000},
    "imagenet": {"class-ordered-database": 127703, "train-in-database": 13000},
    "nus": {"unlabelled-queries": 1131, "queries-without-relevant": 1131, "train-in-database": 10000},
    "mirflickr": {"unlabelled-queries": 19, "queries-without-relevant": 19},
}
#: What ``lists`` states beyond them.
STATED_BY_LISTS = {"nus": {"unlabelled-train": 2185}, "mirflickr": {"unlabelled-train": 72}}


@needs_archive
@pytest.mark.parametrize("name", sorted(KNOWN))
@pytest.mark.parametrize("reader", ["stranger.listed", *(["lists"] if "lists" in HOUSE.datasets else [])])
def test_the_known_problems_of_public_lists_are_found(name, reader, public, check_folder):
    report, lines = check_folder(public / name, name=reader)
    assert not report["ok"]
    known = KNOWN[name] | (STATED_BY_LISTS.get(name, {}) if reader == "lists" else {})
    assert {n: line["count"] for n, line in lines.items() if n != "no-images"} == known
    assert lines["no-images"]["status"] == "stated"


@pytest.mark.slow
@needs_archive
@pytest.mark.parametrize("protocol", ["disjoint", "inside", "official", "standard"])
def test_our_own_protocols_on_image_files_fail_no_check(protocol):
    from hashzoo_plugins.datasets import cifar10, imagenette

    build = imagenette.standard if protocol == "standard" else getattr(cifar10, protocol)
    data = build(root=ARCHIVE.parent)
    lines = audit.report(audit.audit_splits(data), data.notes, [])
    assert [line["finding"] for line in lines if line["status"] == "found"] == []
