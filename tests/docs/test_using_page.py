"""Every command and the Python of the pages on search, composed queries and export, run as they stand there."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from hashzoo.cli.main import main
from hashzoo.registry import zoo
from tests.cli.command import hashzoo

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGE = "\n".join(
    (HOWTO / f"{name}.md").read_text() for name in ("search", "composed-queries", "export", "update-index")
)
NEEDS = {
    "onnx": "onnxscript", "faiss": "faiss", "faiss-ivf": "faiss", "parquet": "pyarrow", "lancedb": "lancedb",
    "milvus": "pyarrow",
}  # fmt: skip
COMMANDS = re.findall(r"^    (hashzoo .*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where the first benchmark of the page has been run, with images; and the cell that it made."""
    folder = tmp_path_factory.mktemp("page")
    images = zoo.load_plugins().dataset("digits.small").factory().database.images
    (folder / "photos").mkdir()
    names = ["query.jpg", "other.jpg", *(f"photos/{row}.jpg" for row in range(80))]
    for row, name in enumerate(names):
        Image.fromarray(images[row, 0].numpy()).resize((48, 32)).save(folder / name)
    (folder / "more").mkdir()
    Image.fromarray(images[90, 0].numpy()).resize((48, 32)).save(folder / "more" / "new.jpg")
    (folder / "ids.txt").write_text("4.jpg\n5.jpg\n")
    (folder / "about.csv").write_text("path,year,place\n7.jpg,2021,Bern\n8.jpg,2022,Bern\n9.jpg,2020,Uri\n")
    first = next(command for command in COMMANDS if command.startswith("hashzoo bench"))
    done = hashzoo(*shlex.split(first)[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    (cell,) = (folder / "hashzoo-results" / "digits" / "cells").glob("*.dhn.*.json")
    return folder, cell


def test_every_command_of_the_page_runs_in_its_order(place, monkeypatch, capsys):
    folder, cell = place
    monkeypatch.chdir(folder)
    ran = 0
    for command in COMMANDS:
        words = [str(cell) if word == "CELL" else word for word in shlex.split(command)[1:]]
        if any(find_spec(NEEDS[word]) is None for word in words if word in NEEDS):
            continue
        if words[0] == "bench" or "grains.index" in words:
            continue  # another method, which tests/retrieval searches with the same commands
        if words[:2] == ["search", "lists.index"] and not Path("lists.index").exists():
            continue  # since faiss is not there
        main(words, standalone_mode=False)
        ran += 1
    assert ran >= 20
    snippet = re.findall(r"```python\n(.*?)```", (HOWTO / "update-index.md").read_text(), re.S)[0]
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(snippet, names)  # noqa: S102 - the page's own
    added, *_, second, third = capsys.readouterr().out.splitlines()
    assert added == "3 0 0 []"  # those that the page has removed
    assert {line.split()[0] for line in (second, third)} == {"7.jpg", "8.jpg"}
    assert len(names["index"]) == 79
    assert "data:image/jpeg" in (folder / "found.html").read_text()


def test_the_python_of_the_page_runs(place, monkeypatch, capsys):
    folder, cell = place
    monkeypatch.chdir(folder)
    pytest.importorskip("captum")
    main(["index", "build", str(cell), "photos", "-o", "my.index"], standalone_mode=False)
    snippet = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(snippet.replace('"CELL"', repr(str(cell))), names)  # noqa: S102 - the page's own
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["codes"]["code"].shape == (2, 64)
    assert names["ranking"].rows.shape == (1, 5)
    assert names["heatmaps"].shape == (1, 8, 8)
