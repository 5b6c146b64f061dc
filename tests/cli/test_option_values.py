"""Values of options as shells and editors leave them: empty, with a tilde, with a byte order mark; closed pipes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hashzoo.cli.main import main
from hashzoo.cli.options import settings
from tests.cli.command import ALONE
from tests.shared_data import SHARED, needs

BOARD = Path(__file__).parents[2] / "results" / "source-methods" / "leaderboard.csv"
BENCH = ("bench", "digits", "--quick", "--no-baselines", "--methods", "lsh", "--dry-run")


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert len(error.strip().splitlines()) == 1
    return error


def test_a_setting_can_be_typed_as_a_board_prints_it():
    given = ("net.allow_missing=('classifier.1.*',)", 'net.keys=["a", "b"]', "net.name=(a)", "net.flip=False")
    assert settings(given) == {
        "net": {"allow_missing": ["classifier.1.*"], "keys": ["a", "b"], "name": "(a)", "flip": "False"}
    }


@pytest.mark.parametrize("value", ["", " ", ",", "''"])
@pytest.mark.parametrize("option", ["methods", "dataset", "bits", "seeds", "metrics", "track"])
def test_an_empty_list_is_refused_and_does_not_mean_the_default(option, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"--{option} is empty" in refused(capsys, "bench", "digits", "--dry-run", f"--{option}", value)


@pytest.mark.parametrize("option", ["results", "root", "backbone", "shard", "mem-limit", "launcher"])
def test_an_empty_value_is_refused_and_does_not_mean_the_default(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"--{option} is empty" in refused(capsys, "bench", "digits", "--dry-run", f"--{option}", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "board.csv", "--columns", ""),
        ("show", "board.csv", "--rank", "--methods", ""),
        ("compare", "board.csv", "--between", ""),
        ("evaluate", "codes.npz", "--metrics", ""),
        ("report", "results", "--methods", ""),
        ("report", "results", "--explain", ""),
        ("plot", "pr", "results", "-o", "plot.png", "--methods", ""),
    ],
)
def test_other_commands_refuse_an_empty_list_too(arguments, capsys, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    shutil.copy(BOARD, tmp_path / "board.csv")
    codes, labels = np.eye(4, dtype=bool), np.eye(4)
    arrays = {"query_codes": codes, "database_codes": codes, "query_labels": labels, "database_labels": labels}
    np.savez(tmp_path / "codes.npz", **arrays)
    assert "is empty" in refused(capsys, *arguments)


def test_a_number_given_twice_is_one_cell(capsys, tmp_path, monkeypatch):
    from hashzoo.api import Request, prepare

    monkeypatch.chdir(tmp_path)
    plan = prepare(Request("digits", methods=["lsh"], bits=[8, 8], seeds=[1, 1], quick=True, baselines=False))
    assert [(job.identity.bits, job.identity.seed) for job in plan.jobs] == [(8, 1)]


def test_a_memory_limit_without_its_unit_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, *BENCH, "--mem-limit", "4")
    assert "4 bytes is too small" in error
    assert "4G" in error


def test_a_tilde_is_the_home_folder_in_options(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    main(["new-plugin", "mine", "--file", "--into=~"])
    assert (home / "mine.py").is_file()
    main([*BENCH, "--plugin=~/mine.py"])
    assert not (tmp_path / "~").exists()


def test_a_tilde_is_the_home_folder_in_a_benchmark_file(tmp_path, monkeypatch):
    from PIL import Image

    from hashzoo.api import Request, prepare

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cat", "dog"):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(tmp_path / "pics" / name / f"{number}.png")
    head = "dataset = 'folder'\nmethods = ['lsh']\nbits = [8]\nbackbone = 'pixels'\n"
    (tmp_path / "mine.toml").write_text(f"{head}[set.folder]\nroot = '~/pics'\nsize = 8")
    (job,) = prepare(Request("~/mine.toml")).jobs
    assert job.inputs.dataset_options["root"] == tmp_path / "pics"


def test_the_home_folder_of_an_unknown_user_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no user 'nobody-of-this-name'" in refused(capsys, *BENCH, "--results=~nobody-of-this-name/x")


def test_a_byte_order_mark_before_a_benchmark_file_is_passed_over(tmp_path):
    from hashzoo.bench.benchmark_file import read

    (tmp_path / "mine.toml").write_text("dataset = 'digits.small'\nbits = [8]", encoding="utf-8-sig")
    assert read(str(tmp_path / "mine.toml")).bits == [8]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is an error of another kind there")
@pytest.mark.parametrize("arguments", [("list", "methods"), ("--help",), ("show", "board.csv"), ("bench", *BENCH[1:])])
def test_a_closed_pipe_ends_a_command_in_silence(arguments, tmp_path):
    shutil.copy(BOARD, tmp_path / "board.csv")
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*ALONE, *arguments], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


@needs("cases", "toml-bom", "bom.toml")
def test_the_shared_benchmark_file_with_a_byte_order_mark_is_read():
    from hashzoo.bench.benchmark_file import read

    assert read(str(SHARED / "cases" / "toml-bom" / "bom.toml")).name == "mine"
