"""What the commands on results print: columns, filters, formats; and options that are the same for all commands."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from hashzoo.cli.main import main
from hashzoo.results import store
from hashzoo.results.board import write_board
from tests.results.test_leaderboard import a_cell
from tests.results.test_paired import a_board

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "results" / "zoo"
ORIGIN = {"command": "hashzoo bench mine", "checkout": {"revision": "f00d", "dirty": True}}


def run(*arguments, code=0, width="160"):
    result = CliRunner(env={"COLUMNS": width}).invoke(main, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


def printed(*arguments, **options):
    return run(*arguments, **options).stdout


@pytest.fixture
def board(tmp_path):
    """Three methods with scores of single queries, of which two cannot be told apart; with their origin."""
    folder = a_board(tmp_path / "board", dhn=0.6, itq=0.4)
    facts = {"stored_bits": 32, "bytes_per_item": 4.0, "queries": 120, "split": "5p11t", "source": "Digits (PNG)"}
    for cell in store.read_all(folder)[0]:
        arrays = store.arrays(store.path(folder, cell.identity, cell.benchmark))
        values = {**vars(cell), "facts": facts, "provenance": ORIGIN}
        store.write(folder, type(cell)(**values), arrays)
        noise = np.random.default_rng(cell.identity.seed).normal(0, 0.05, 120)
        if cell.identity.method == "dhn":
            close = a_cell("csq", seed=cell.identity.seed, facts=facts, provenance=ORIGIN)
            scores = {"map@all": arrays["map@all"] + noise - 0.003}
            store.write(
                folder, type(close)(**{**vars(close), "metrics": {"map@all": float(scores["map@all"].mean())}}), scores
            )
    write_board(folder, store.read_all(folder)[0])
    return folder


@pytest.mark.parametrize("width", ["20", "40", "60", "80", "100"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["show", ZOO, "--columns", "map@all", "--bits", "16"],
        ["show", ZOO, "--rank"],
        ["compare", ZOO, "--between", "swin-dual-stream,two-level-cam"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[2:3])),
)
def test_the_method_is_whole_at_every_width(arguments, width):
    assert "swin-dual-stream" in printed(*arguments, width=width)


def test_a_pipe_gets_all_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    text = CliRunner().invoke(main, ["show", str(ZOO), "--bits", "16"]).stdout
    assert "left out" not in text
    assert "bytes" in text.splitlines()[1]


def test_what_is_left_out_is_said_in_the_last_line():
    words = " ".join(printed("show", ZOO, "--dataset", "digits.lt50", "--bits", "16", width="80").split())
    assert words.endswith("a wider terminal, | less -S, --columns or --json shows them")
    assert "columns left out: " in words


def test_rows_are_selected_by_the_same_options_everywhere(board, tmp_path):
    rows = json.loads(printed("show", ZOO, "--methods", "dhn*", "--bits", "16,32", "--dataset", "digits.*", "--json"))
    assert {row["method"] for row in rows} == {"dhn", "dhn-b", "dhn-e", "dhn-q"}
    assert {row["bits"] for row in rows} == {16, 32}
    assert {row["dataset"] for row in rows} == {"digits.lt50", "digits.standard"}
    compared = json.loads(printed("compare", board, board, "--methods", "d*", "--json"))
    assert {row["method"] for row in compared} == {"dhn"}
    page = tmp_path / "page.html"
    run("report", board, "-o", page, "--methods", "itq", "--gallery", "0", "--explain", "none")
    assert "itq" in page.read_text()
    assert "dhn" not in page.read_text()
    run("plot", "pr", board, "-o", tmp_path / "x.png", "--bits", "7", code=2)


def test_show_names_the_source_of_the_images_and_the_report_too(board, tmp_path):
    assert printed("show", board).splitlines()[0] == "digits: digits.small, Digits (PNG)"
    page = tmp_path / "page.html"
    run("report", board, "-o", page, "--gallery", "0", "--explain", "none")
    text = page.read_text()
    board_part = text[text.index('id="board"') : text.index('<section id="bits"')]
    assert "Digits (PNG)" in board_part
    assert "f00d, with changes" in text
    assert "dhn on digits.small at 32" in text
    assert "<code>hashzoo bench mine</code>" in text


def test_json_has_all_digits_and_the_origin_of_each_row(board):
    rows = json.loads(printed("show", board, "--json"))
    cells = store.read_all(board)[0]
    for row in rows:
        scores = [c.metrics["map@all"] for c in cells if c.identity.method == row["method"]]
        assert row["map@all"] == pytest.approx(np.mean(scores), rel=1e-15)
        assert (row["revisions"], row["commands"]) == (["f00d, with changes"], ["hashzoo bench mine"])
    (cell,) = json.loads(printed("show", next((board / "cells").glob("*.json")), "--json"))
    assert cell["provenance"]["command"] == "hashzoo bench mine"


def test_csv_is_the_leaderboard(board):
    assert printed("show", board, "--format", "csv").splitlines()[0].startswith("schema,benchmark,")
    frame = (board / "leaderboard.csv").read_text().splitlines()
    shown = printed("show", board, "--format", "csv").splitlines()
    assert shown[0] == frame[0]
    assert [line.split(",")[: shown[0].split(",").index("stale")] for line in shown] == [
        line.split(",")[: shown[0].split(",").index("stale")] for line in frame
    ]


def test_formats_for_papers_mark_what_cannot_be_told_from_the_best(board):
    latex, markdown = (printed("show", board, "--format", form) for form in ("latex", "markdown"))
    close, far = (next(line for line in latex.splitlines() if name in line) for name in ("csq", "itq"))
    assert "approx" in close
    assert "approx" not in far
    assert "| csq" in markdown
    assert "<sup>\u2248</sup>" in markdown


def test_every_command_that_prints_a_table_has_json_and_prints_nothing_else(board, tmp_path):
    code = np.random.default_rng(0).integers(0, 2, (6, 8)).astype(bool)
    labels = np.array([0, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "c.npz", query_codes=code, database_codes=code, query_labels=labels, database_labels=labels)
    commands = (
        ["show", board],
        ["show", ROOT / "results" / "cifar10", "--rank"],
        ["compare", board, board],
        ["compare", board, "--between", "dhn,itq"],
        ["list", "metrics"],
        ["evaluate", tmp_path / "c.npz"],
        ["check", "lsh", "--bits", "8"],
    )
    for command in commands:
        records = json.loads(printed(*command, "--json"))
        assert isinstance(records, list)
        assert all(isinstance(record, dict) for record in records)
        assert records


def test_json_and_another_format_contradict_each_other(board):
    assert (
        "--json cannot be combined with --format csv" in run("show", board, "--json", "--format", "csv", code=2).stderr
    )


# --- one word for one thing ---


def commands(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def options(command):
    return {option for one in COMMANDS[command].params for option in one.opts}


def test_every_command_that_computes_takes_a_device():
    computing = ["bench", "encode", "index build", "search", "export", "evaluate", "serve", "explain", "report"]
    assert [name for name in computing if "--device" not in options(name)] == []
    for name in computing:
        (device,) = [one for one in COMMANDS[name].params if "--device" in one.opts]
        assert list(device.type.choices) == ["auto", "cpu", "cuda", "cuda:N", "mps", "xpu"]


def test_every_command_on_results_takes_the_same_filters():
    for name in ("show", "compare", "report", "plot"):
        assert {"--methods", "--bits", "--dataset"} <= options(name)


@pytest.mark.parametrize(
    "name", [name for name, one in COMMANDS.items() for p in one.params if p.name == "on_bad_image"]
)
def test_images_that_do_not_decode_are_an_error_or_skipped_and_the_old_word_is_hidden(name):
    (option,) = [one for one in COMMANDS[name].params if one.name == "on_bad_image"]
    assert option.type.convert("stop", option, None) == "error"
    text = printed(*name.split(), "--help")
    assert "[error|skip]" in text
    assert "|stop" not in text


def test_a_cell_is_called_a_cell_in_all_help_texts():
    for name in COMMANDS:
        text = printed(*name.split(), "--help")
        assert not [word for word in text.replace("|", " ").split() if word.strip("[].,") == "RUN"], name
    for name in ("encode", "index build", "export"):
        assert "CELL" in printed(name.split()[0], *name.split()[1:], "--help").splitlines()[0]


def test_what_runs_on_the_cpu_only_refuses_another_device(tmp_path):
    error = run("evaluate", tmp_path / "c.npz", "--device", "cuda", code=2).stderr
    assert error.splitlines() == ["hashzoo: hashzoo evaluate compares codes on the CPU only; use --device cpu"]


def test_folders_are_merged_by_the_command(board, tmp_path):
    parts = [tmp_path / name for name in "ab"]
    for number, cell in enumerate(store.read_all(board)[0]):
        file = store.path(board, cell.identity, cell.benchmark)
        store.write(parts[number % 2], cell, store.arrays(file))
    target = tmp_path / "c"
    assert printed("merge", *parts, "-o", target) == f"9 cells in 3 rows; written to {target}\n"
    assert printed("show", target, "--json") == printed("show", board, "--json")
    assert "is not empty" in run("merge", *parts, "-o", target, code=2).stderr
