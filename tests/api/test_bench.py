"""A benchmark from Python: the same cells and board as the command, with methods given as objects."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch

import hashzoo
from hashzoo import Batch, Card, Codes, Method, Run, Setting, Split, UsageError, bits
from tests.cli.command import hashzoo as command

SMALL = {"dataset": "digits.small", "baselines": False, "jobs": 1, "progress": False}


class RandomPairs(Method):
    """Bit k says whether one random feature exceeds another."""

    card = Card("shallow", "none")

    def __init__(self, setting: Setting, backbone, *, center: bool = True) -> None:
        super().__init__()
        self.backbone, self.center = backbone, center
        self.register_buffer("pairs", torch.zeros(2, setting.bits, dtype=torch.long))

    def fit(self, train: Split, run: Run) -> None:
        self.pairs = torch.randint(self.backbone.dim, self.pairs.shape, generator=run.generator)

    def encode(self, batch: Batch) -> Codes:
        x = self.backbone(batch.images).pooled
        return {"code": bits(x[:, self.pairs[0]] - x[:, self.pairs[1]])}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return hashzoo.benchmark(
        "digits", methods=["itq", RandomPairs], bits=[8, 16], seeds=[0, 1], results=folder / "r", **SMALL
    )


def test_a_class_needs_no_registration_and_stands_on_the_board_under_its_name(board):
    assert set(board.leaderboard.method) == {"itq", "random-pairs"}
    assert [cell.status for cell in board.cells] == ["ok"] * 8
    assert board.failed == []


def test_the_leaderboard_has_the_columns_and_rows_of_the_csv(board):
    file = pd.read_csv(board.folder / "leaderboard.csv")
    assert list(board.leaderboard.columns) == list(file.columns)
    pd.testing.assert_series_equal(board.leaderboard["map@all"], file["map@all"], check_index=False)


def test_finished_cells_are_not_measured_again(board, monkeypatch):
    monkeypatch.setattr("hashzoo.execution.scheduler.run_cells", lambda *given, **more: pytest.fail("measured again"))
    again = hashzoo.benchmark(
        "digits", methods=["itq", RandomPairs], bits=[8, 16], seeds=[0, 1], results=board.folder, **SMALL
    )
    assert len(again.cells) == 8
    pd.testing.assert_frame_equal(again.leaderboard, board.leaderboard)


def test_methods_are_compared_pair_by_pair(board):
    found = board.compare("itq", RandomPairs)
    assert list(found.bits) == [8, 16]
    assert (found["first score"] > found["second score"]).all()
    assert (found["low"] <= found["difference"]).all()
    assert (found["difference"] <= found["high"]).all()
    assert found["p models"].between(0, 1).all()
    with pytest.raises(UsageError, match="no method 'its'; did you mean 'itq'"):
        board.compare("its", "random-pairs")


def test_a_figure_is_one_of_matplotlib(board):
    pytest.importorskip("matplotlib", reason="needs the extra plots")
    figure = board.plot("bits")
    assert [axes.get_xlabel() for axes in figure.axes]


def test_the_board_shows_itself_in_a_notebook(board):
    assert "<table" in board._repr_html_()


def test_the_command_measures_the_same_scores(board, tmp_path):
    asked = ("bench", "digits", "--dataset", "digits.small", "--methods", "itq", "--bits", "8,16", "--seeds", "0,1")
    result = command(*asked, "--no-baselines", "--results", "r", cwd=tmp_path, timeout=900)
    assert result.returncode == 0, result.stderr
    file = pd.read_csv(tmp_path / "r" / "leaderboard.csv")
    ours = board.leaderboard[board.leaderboard.method == "itq"]
    assert list(ours["map@all"]) == list(file["map@all"])


def test_a_function_is_called_for_each_finished_cell(tmp_path):
    calls = []
    hashzoo.benchmark(
        "digits", methods={"mine": RandomPairs}, bits=[8], seeds=[0, 1], results=tmp_path,
        **SMALL | {"progress": lambda done, total, cell: calls.append((done, total, cell.identity.method))},
    )  # fmt: skip
    assert calls == [(1, 2, "mine"), (2, 2, "mine")]


def test_one_cell_is_measured_in_this_process_and_nothing_is_written(board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = hashzoo.run_cell("digits.small", RandomPairs, backbone="pixels", bits=8, seed=1)
    same = board.leaderboard.query("method == 'random-pairs' and bits == 8")
    assert cell.status == "ok"
    assert cell.metrics["map@all"] in {one.metrics["map@all"] for one in board.cells}
    assert len(same) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_setting_reaches_a_cell_measured_here():
    settings = {"random-pairs": {"center": False}, "train": {"epochs": 3}}
    cell = hashzoo.run_cell("digits.small", RandomPairs, backbone="pixels", bits=8, settings=settings)
    assert cell.identity.hyperparameters == {"center": False}
    assert cell.identity.budget["epochs"] == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": "itq"}, r"methods is a list of methods, not 'itq'; write \['itq'\]"),
        ({"methods": [lambda setting, backbone: None]}, "a method without a name"),
        ({"methods": {"itq": RandomPairs}}, "method 'itq' exists already, in hashzoo"),
        ({"methods": {"My Method": RandomPairs}}, "'My Method' is not a method name"),
        ({"methods": ["itq"], "bits": [0]}, "bits must be 1 or more"),
        ({"methods": ["itq"], "dataset": "digits.smal"}, "did you mean 'digits.small'"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_measured(changes, says, tmp_path):
    with pytest.raises(UsageError, match=says) as refused:
        hashzoo.benchmark("digits", results=tmp_path / "r", **SMALL | changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epoch": 1}, "no option 'epoch'; did you mean 'epochs'?"),
        ({"quik": True}, "did you mean 'quick'?"),
        ({"plugin": ["x.py"]}, "did you mean 'plugins'?"),
        ({"mem-limit": 1 << 30}, "did you mean 'mem_limit'?"),
        ({"datasets": ["digits.small"]}, "did you mean 'dataset'?"),
        ({"bogus": 1}, "no option 'bogus'"),
    ],
)
def test_an_unknown_option_is_refused(wrong, says, tmp_path):
    with pytest.raises(UsageError, match=re.escape(says)):
        hashzoo.benchmark("digits", methods=["lsh"], results=tmp_path / "r", **wrong)
    assert not (tmp_path / "r").exists()


def test_one_cell_of_a_loss_in_a_file_is_measured(tmp_path):
    file = tmp_path / "squares.py"
    file.write_text(
        "import hashzoo\n\n\nclass Squares(hashzoo.Loss):\n    def forward(self, output, batch):\n"
        "        return {'x': (output.code.square() - 1).square().mean()}\n\n\n"
        "@hashzoo.hookimpl\ndef hashzoo_losses():\n    return {'squares': lambda setting: Squares()}\n"
    )
    settings = {"train": {"epochs": 1}}
    cell = hashzoo.run_cell("digits.small", "tanh+squares", bits=8, settings=settings, plugins=[str(file)])
    assert (cell.status, cell.identity.method) == ("ok", "tanh+squares")


def test_a_method_that_fails_gets_its_reason_and_the_others_are_measured(tmp_path):
    class Broken(RandomPairs):
        def fit(self, train, run):
            raise RuntimeError("deliberate")

    board = hashzoo.benchmark("digits", methods=["lsh", Broken], bits=[8], seeds=[0], results=tmp_path, **SMALL)
    assert sorted((cell.identity.method, cell.status) for cell in board.cells) == [("broken", "failed"), ("lsh", "ok")]
    assert "deliberate" in board.failed[0].reason


def test_the_python_of_the_documentation_runs(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plots")
    page = (Path(__file__).parents[2] / "docs" / "howto" / "notebook.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    (tmp_path / "page.py").write_text("\n".join(blocks))
    result = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "random-pairs" in (tmp_path / "runs" / "mine" / "leaderboard.csv").read_text()
    assert "'iterations': 20" in result.stdout


SCRIPT = """
    import hashzoo, json, os, signal, sys, threading, time
    from hashzoo import Card, Method

    class Slow(Method):
        "Takes long."
        card = Card("shallow", "none")
        def __init__(self, setting, backbone):
            super().__init__()
        def fit(self, train, run):
            time.sleep(600)
        def encode(self, batch):
            return {}

    def finished(done, total, cell):
        print(cell.identity.method, flush=True)
        threading.Timer(5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()  # the other cell is running

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    try:
        hashzoo.benchmark("digits", methods=["lsh", Slow], bits=[8], seeds=[0], dataset="digits.small", jobs=2,
                          baselines=False, progress=finished, results="r")
    except KeyboardInterrupt:
        print(json.dumps({"children": len(os.popen(f"ps -o pid= --ppid {os.getpid()}").read().split())}))
"""


def test_an_interrupt_leaves_finished_cells_and_no_cell_running(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert "lsh" in result.stdout, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["children"] <= 4  # forkserver, tracker, ps and its shell
    cells = sorted((tmp_path / "r" / "cells").iterdir())
    visible = [file for file in cells if not file.name.startswith(".")]
    assert {file.name.split(".")[1] for file in visible} == {"lsh"}  # no log, lease or temporary file of the other
    assert len([file for file in cells if file.suffix == ".json"]) == 1
    living = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "slow 8 bits" not in living


@pytest.mark.parametrize("kind", ["force_terminal", "force_jupyter"])
def test_a_terminal_and_a_notebook_show_a_live_table_and_a_file_plain_lines(kind, capsys):
    from rich.console import Console

    from hashzoo.api.progress import is_live

    assert is_live(Console(**{kind: True}))
    assert not is_live(Console(force_terminal=False, force_jupyter=False))


def test_a_memory_limit_is_refused_where_no_process_can_have_one(monkeypatch):
    from hashzoo.api import Request

    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="a memory limit of cells works only on Linux; leave out --mem-limit"):
        Request("digits", mem_limit=1 << 30)
