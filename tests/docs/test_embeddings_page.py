"""Every command of the pages on embeddings, run as it stands there on a few vectors."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from hashzoo.cli.main import main
from tests.cli.command import hashzoo

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGE, SEARCH = HOWTO / "embeddings.md", HOWTO / "search-vectors.md"
COMMANDS = re.findall(r"^    hashzoo (.*)$", PAGE.read_text(), re.M)
EXPORTS = re.findall(r"`hashzoo (export .*?)`", SEARCH.read_text())
NEEDS = {"faiss": "faiss", "lancedb": "lancedb", "parquet": "pyarrow", "onnx": "onnxscript"}
FEWER = ["--bits", "8", "--jobs", "1", "--epochs", "1", "--no-baselines"]
QUICK = ["--bits", "8", "--jobs", "1", "--methods", "lsh"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("embeddings"), np.random.default_rng(0)
    classes = rng.integers(0, 3, 1500)
    vectors = rng.normal(size=(3, 16))[classes] + rng.normal(size=(1500, 16))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "emb.npy", unit.astype(np.float32))
    np.save(folder / "queries.npy", unit[:20].astype(np.float16))
    np.save(folder / "new.npy", unit[:5])
    np.save(folder / "classes.npy", classes)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_of_the_page_runs(command, place):
    words = shlex.split(command)
    done = hashzoo(*words, *(FEWER if words[0] == "bench" else QUICK if words[0] == "quantize" else []), cwd=place)
    assert done.returncode == 0, done.stderr
    assert "recall@10" in done.stdout or "queries among" in done.stdout or "no findings to fix" in done.stdout


def run(command, *more) -> int:
    """The exit code of a command, which runs in this process since there are many."""
    try:
        main([*shlex.split(command), *more])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture(scope="module")
def searched(place):
    """The folder after the commands of the page on search."""
    with contextlib.chdir(place):
        for command in re.findall(r"^    hashzoo (.*)$", SEARCH.read_text(), re.M):
            assert run(command, *(QUICK if command.startswith("quantize") else [])) == 0, command
    return place


def test_the_commands_of_the_page_on_search_run(searched, monkeypatch, capsys):
    assert all(
        (searched / name).exists() for name in ("chosen", "codes.npz", "my.index", "my.index.npy", "small.index")
    )
    monkeypatch.chdir(searched)
    assert run("search my.index queries.npy --run chosen") == 0
    assert "row 19 of queries.npy" in capsys.readouterr().out


def test_the_figure_of_the_page_is_drawn_from_the_board(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (command,) = re.findall(r"`hashzoo (plot .*?)`", PAGE.read_text())
    monkeypatch.chdir(HOWTO.parents[1])
    assert run(command, "-o", str(tmp_path / "embeddings.svg")) == 0
    assert (HOWTO.parent / "_static" / "embeddings.svg").stat().st_size > 10_000


@pytest.mark.parametrize("command", EXPORTS)
def test_every_export_of_the_page_on_search_runs(command, searched, monkeypatch):
    pytest.importorskip(NEEDS.get(shlex.split(command)[3], "numpy"))
    monkeypatch.chdir(searched)
    assert run(command) == 0


@pytest.mark.parametrize("page", [SEARCH, PAGE], ids=lambda page: page.stem)  # the latter replaces the winner
def test_the_python_of_the_pages_runs(page, searched, monkeypatch):
    monkeypatch.chdir(searched)
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        exec(compile(code, str(page), "exec"), {})  # noqa: S102 - our own page
