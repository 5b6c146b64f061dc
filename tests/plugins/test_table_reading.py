"""Tables of any content: read as a slow, careful reader reads them, or refused with the file and the line."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
import warnings
from pathlib import Path

import pytest
from hashzoo_plugins.datasets.folder import folder
from hashzoo_plugins.datasets.image_table import read_table
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from tests.plugins.test_folder import filled

NAMES = [f"{n:02}.png" for n in range(12)]


@pytest.fixture
def root(tmp_path):
    return filled(tmp_path / "images", NAMES)


@pytest.fixture(scope="module")
def empty_files(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    for name in NAMES:
        (place / name).touch()
    return place


def write(root: Path, rows, name: str = "t.csv", **options) -> Path:
    text = io.StringIO()
    csv.writer(text, **options).writerows(rows)
    (root / name).write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
    return root / name


def with_labels(labels, header=("path", "label")):
    return [header, *zip(NAMES, labels, strict=False)]


def findings(file: Path) -> dict[str, tuple[int, str]]:
    return {one.name: (one.count, one.detail) for one in read_table(file, file.parent).findings}


PLAIN = ["dog", "cat", "saw"] * 4

#: Rows that are refused, the line that is named, and some words of the message.
REFUSED = {
    "more fields in the first row": (
        [("path", "label"), (NAMES[0], "dog", "outdoor"), (NAMES[1], "cat")],
        2,
        "3 fields",
    ),
    "more fields in all rows": ([("path", "label"), *((n, "dog", "out") for n in NAMES)], 2, "3 fields"),
    "more fields later": ([*with_labels(PLAIN[:5]), (NAMES[5], "dog", "", "x")], 7, "4 fields"),
    "fewer fields": ([("path", "label", "part"), (NAMES[0], "dog", "train"), (NAMES[1], "cat")], 3, "2 fields"),
    "a path alone": ([*with_labels(PLAIN[:3]), (NAMES[3],)], 5, "1 fields"),
    "a column twice": ([("path", "label", "label"), (NAMES[0], "a", "b")], 1, "both named 'label'"),
    "a class twice": ([("path", "cat", "dog", "cat "), (NAMES[0], 1, 0, 1)], 1, "columns 2 and 4"),
    "a column without a name": (
        [("path", "label", ""), (NAMES[0], "a", ""), (NAMES[1], "b", "x")],
        3,
        "column 3 has no",
    ),
    "label and labels": ([("path", "label", "labels"), (NAMES[0], "a", "b")], 1, "label and labels"),
    "a second label": ([("path", "label", "label_2"), (NAMES[0], "a", "b")], 1, "label and label_2"),
    "label in two cases": ([("path", "label", "Label"), (NAMES[0], "a", "b")], 1, "label and Label"),
    **{
        f"missing as {word!r}": (with_labels(["dog", "cat", word]), 4, "missing labels")
        for word in ("nan", "NaN", "None", "NULL", "N/A", "<NA>", "#N/A", "dog;nan", "#REF!")
    },
    "a blank label": (with_labels(["dog", "cat", "  "]), 4, "images without a label"),
    "only separators": (with_labels(["dog", ";|", "cat"]), 3, "images without a label"),
    **{
        f"list {text}": (with_labels(["dog", text, "cat"], ("path", "labels")), 3, "lists written as text")
        for text in ("['dog', 'cat']", '["dog"]', "[]", "[1, 2]", "('dog',)", "{'dog': 1}", "{dog,cat}", "[dog;cat]")
    },
    "case": (
        with_labels(["dog", "cat", "Dog"]),
        4,
        r"'dog' \(line 2\) and 'Dog' \(line 4\)|'Dog' \(line 4\) and 'dog'",
    ),
    "inner blanks": (with_labels(["hot dog", "cat", "hot  dog"]), 2, "differ only by"),
    "a blank that does not break": (with_labels(["hot dog", "cat", "hot\u00a0dog"]), 2, "differ only by"),
    "normalisation": (with_labels(["café", "cat", unicodedata.normalize("NFD", "café")]), 2, "differ only by"),
    "full width": (with_labels(["dog", "cat", "ｄｏｇ"]), 2, "differ only by"),  # noqa: RUF001
    "an invisible character": (with_labels(["dog", "cat", "dog\u200b"]), 2, "differ only by"),
    "1 and 1.0": (with_labels(["1", "2", "1.0"]), 2, "differ only by"),
    "1 and 01": (with_labels(["1", "2", "01"]), 2, "differ only by"),
    "true and TRUE": (with_labels(["true", "false", "TRUE"]), 2, "differ only by"),
    "classes in two cases": ([("path", "Dog", "dog"), (NAMES[0], 1, 0)], 1, "differ only by"),
    "folds": ([("path", "label", "fold"), *zip(NAMES, PLAIN, "012" * 4, strict=True)], 1, "column fold looks like"),
    "a split with other values": ([("path", "label", "Split"), (NAMES[0], "dog", "a")], 1, "column Split looks like"),
    "is_train": ([("path", "label", "is_train"), (NAMES[0], "dog", "1")], 1, "column is_train looks like"),
    "train and test as classes": ([("path", "cat", "train", "test"), (NAMES[0], 1, 1, 0)], 1, "column train looks"),
    "two divisions": (
        [("path", "label", "split", "phase"), (NAMES[0], "a", "train", "val"), (NAMES[1], "b", "val", "train")],
        1,
        "split and phase both hold parts",
    ),
    "an unknown part": ([("path", "label", "part"), (NAMES[0], "a", "train"), (NAMES[1], "b", "")], 3, "unknown parts"),
    "a class column with a hole": ([("path", "a", "b"), (NAMES[0], 1, 0), (NAMES[1], "", 1)], 3, "holds ''"),
    "a path twice": ([*with_labels(PLAIN[:3]), (NAMES[0], "dog")], 5, "line 2 has it too"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_can_be_read_in_two_ways_is_refused_with_its_line(name, root):
    rows, line, words = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=words) as caught:
            folder(root=write(root, rows))
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(rf"t\.csv line {line}\b|\(line {line}\)", message), message


@pytest.mark.parametrize(
    ("column", "values", "sizes"),
    [
        ("split", ("train", "val", "test"), (6, 6, 3, 3)),
        ("Subset", ("Training", "Validation", "Testing"), (6, 6, 3, 3)),
        ("data_split", ("train", "val", "val"), (6, 6, 6, None)),
        ("set", ("TRAIN", "TEST", "TEST"), (6, 6, 6, None)),
        ("phase", ("train", "gallery", "query"), (6, 3, 3, None)),
        ("part", ("train", "test", "valid"), (6, 6, 3, 3)),
        ("Part", ("train", "database", "query"), (6, 3, 3, None)),
        ("anything", ("train", "dev", "test"), (6, 6, 3, 3)),
    ],
)
def test_a_column_of_parts_under_another_name_or_spelling_is_read_and_said(column, values, sizes, root):
    parts = [values[0]] * 6 + [values[1]] * 3 + [values[2]] * 3
    data = folder(root=write(root, [("path", "label", column), *zip(NAMES, PLAIN, parts, strict=True)]))
    train, database, query, validation = sizes
    assert [len(data.train), len(data.database), len(data.query)] == [train, database, query]
    assert (data.validation and len(data.validation)) == validation
    said = [one.detail for one in data.findings if one.name == "read-as-parts"]
    assert said == [] if column == "Part" else values[1].lower() in said[0]


def test_labels_with_other_separators_are_a_finding_and_names_with_commas_are_not(root):
    both = with_labels(["dog,outdoor", "dog", "cat, indoor", "cat", "dog + cat", "a/b", "tench, Tinca tinca"])
    table = read_table(write(root, both), root)
    (finding,) = table.findings
    assert (finding.name, finding.count) == ("label-with-separator", 3)
    assert "'cat, indoor' (line 4)" in finding.examples
    for text in ("dog outdoor", "dog/outdoor", "dog\noutdoor", "dog\toutdoor", "dog、outdoor", "dog&outdoor"):
        found = findings(write(root, with_labels(["dog", text, "outdoor", "cat"])))
        assert found["label-with-separator"][0] == 1, text
    assert findings(write(root, with_labels(["hot dog", "ice-cream", "crane (bird)", "dog/wolf"]))) == {}


def test_columns_that_are_not_read_are_named_and_row_numbers_of_pandas_are_not_in_the_way(root):
    rows = [("", "path", "label", "width"), *((n, name, label, 9) for n, (name, label) in enumerate(zip(NAMES, PLAIN)))]  # noqa: B905
    table = read_table(write(root, rows), root)
    assert [one.examples for one in table.findings] == [("width", "column 1 without a name")]
    assert table.class_names == ("cat", "dog", "saw")


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("True", "False"), ("1.0", "0.0"), ("1", "0"), ("true", "false")])
def test_class_columns_that_a_spreadsheet_saved_are_read_the_same(words, root):
    yes, no = words
    rows = [("path", "cat", "dog"), *((n, *((yes, no) if i % 3 else (no, yes))) for i, n in enumerate(NAMES))]
    table = read_table(write(root, rows), root)
    assert table.labels.tolist() == [[1.0, 0.0] if i % 3 else [0.0, 1.0] for i in range(12)]


def test_empty_lines_trailing_separators_and_a_byte_order_mark_change_nothing(root):
    wanted = read_table(write(root, with_labels(PLAIN)), root)
    body = "".join(f"{n},{label},\r\n\r\n" for n, label in zip(NAMES, PLAIN, strict=True))
    (root / "t.csv").write_bytes(("\ufeffPath , LABEL,\r\n,,\r\n" + body).encode())
    found = read_table(root / "t.csv", root)
    assert found.paths == wanted.paths
    assert found.labels.tolist() == wanted.labels.tolist()


@pytest.mark.parametrize(
    "content", ["path,label\na,b".encode("utf-16"), b"PK\x03\x04\0\0", b'path,label\n"a"b,c\n', b"\n\n"]
)
def test_a_file_that_is_no_table_is_one_line(content, root):
    (root / "t.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.csv is not a readable table"):
        folder(root=root / "t.csv")


CELL = st.text(st.sampled_from("ab ;|,\"'[]nN1.0\u00e9\t"), max_size=5)


def careful(rows) -> list[list[str]] | None:
    """The labels of each row, row by row and character by character; None if a cell must not be read."""
    own = []
    for _, cell in rows:
        labels, word = [], ""
        for letter in cell + ";":
            if letter in ";|":
                labels += [word.strip()] if word.strip() else []
                word = ""
            else:
                word += letter
        if not labels or any(label.lower() in ("nan", "na", "n/a", "none", "null", "nil") for label in labels):
            return None
        for text in (cell, *labels):
            text = text if text == cell else text.strip()
            inside = text[1:-1]
            if len(text) > 1 and text[0] + text[-1] == "[]":
                return None
            assert inside is not None
        own.append(labels)
    known: dict[str, str] = {}
    for labels in own:
        for label in labels:
            plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
            with contextlib.suppress(ValueError):
                plain = f"= {float(plain)!r}" if float(plain) == float(plain) else plain
            if known.setdefault(plain, label) != label:
                return None
    return own


@settings(deadline=None, max_examples=150)
@given(st.lists(CELL, min_size=1, max_size=6), st.booleans())
def test_any_labels_are_read_as_a_careful_reader_does_or_refused(empty_files, cells, quoted):
    rows = list(zip(NAMES, cells, strict=False))
    file = write(empty_files, [("path", "label"), *rows], quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    wanted = careful(rows)
    if wanted is None:
        with pytest.raises(UsageError, match=r"t\.csv"):
            read_table(file, empty_files)
        return
    table = read_table(file, empty_files)
    found = [[table.class_names[c] for c, on in enumerate(row) if on] for row in table.labels.tolist()]
    assert [set(labels) for labels in found] == [{label.replace("\t", "\\t") for label in labels} for labels in wanted]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "", "x y"]), min_size=1, max_size=5), min_size=1, max_size=5))
def test_rows_of_any_length_are_read_whole_or_refused(empty_files, rows):
    table = [("path", "label", "note"), *((name, *fields) for name, fields in zip(NAMES, rows, strict=False))]
    wrong = [n for n, fields in enumerate(table[1:], 2) if len(fields) < 3 or any(fields[3:])]
    unlabelled = [n for n, fields in enumerate(table[1:], 2) if not fields[1]]
    file = write(empty_files, table)
    if wrong or unlabelled:
        with pytest.raises(UsageError, match=f"line {(wrong or unlabelled)[0]}"):
            read_table(file, empty_files)
    else:
        assert len(read_table(file, empty_files).paths) == len(rows)


PARQUET = {
    "None": ["dog", None, "cat"],
    "NaN": ["dog", float("nan"), "cat"],
    "a list with None": [["dog"], ["dog", None], ["cat"]],
    "an empty list": [["dog"], [], ["cat"]],
    "bytes": [b"dog", b"cat", b"saw"],
    "records": [{"name": "dog"}, {"name": "cat"}, {"name": "saw"}],
    "case": ["dog", "Dog", "cat"],
}


@pytest.mark.parametrize("form", PARQUET)
def test_a_parquet_without_a_label_in_a_row_is_refused_with_the_row(form, root):
    pytest.importorskip("pyarrow")
    import pandas as pd

    pd.DataFrame({"path": NAMES[:3], "label": PARQUET[form]}).to_parquet(root / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet.*row [12]"):
        folder(root=root / "t.parquet")


def test_data_check_says_it_all_without_a_word_of_pandas(root, capsys):
    rows = [
        ("path", "label", "split", "width"),
        *((n, "dog,out" if i % 2 else "dog", ("train", "val")[i > 8], 1) for i, n in enumerate(NAMES)),
    ]
    with pytest.raises(SystemExit) as done:
        main(["data", "check", "folder", "--root", str(write(root, rows)), "--set", "folder.size=8"])
    out, err = capsys.readouterr()
    assert done.value.code == 1
    for said in ("label-with-separator", "read-as-parts", "column split: train is train, val is query", "not-read"):
        assert said in out
    assert "Warning" not in out + err


def test_a_missing_image_is_named_with_its_line(root):
    with pytest.raises(EnvironmentFailure, match=r"t\.csv line 3: missing images: .*none\.png"):
        folder(root=write(root, [("path", "label"), (NAMES[0], "a"), ("none.png", "b")]))
