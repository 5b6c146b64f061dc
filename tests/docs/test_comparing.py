"""The pages on comparing results: their commands run, and their numbers are those of the boards they speak of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.cli.command import hashzoo

ROOT = Path(__file__).parents[2]
NAMES = ("howto/compare-fairly", "howto/share-results", "howto/rank-methods", "concepts/significance")
FAIRLY, SHARE, RANK, SIGNIFICANCE = ((ROOT / "docs" / f"{name}.md").read_text() for name in NAMES)


def plain(text: str) -> str:
    """Words without marks of tables, so that what is printed and what is written can be compared."""
    return " ".join(re.sub(r"[|`│]", " ", text).split())


def test_every_command_of_the_pages_runs(tmp_path):
    (tmp_path / "results").symlink_to(ROOT / "results")
    said = {}
    commands = [
        line for page in (FAIRLY, SHARE, SIGNIFICANCE) for line in re.findall(r"^    hashzoo (.*)$", page, re.M)
    ]
    assert len(commands) >= 7
    for command in commands:
        words = [word.strip("'") for word in command.split()]
        if words[0] == "merge" or (words[0] == "bench" and words[-1] != "before"):  # tested with the launchers
            continue
        fewer = ["--no-baselines"] if words[0] == "bench" else []
        result = hashzoo(*words, *fewer, cwd=tmp_path, timeout=900)
        assert result.returncode == 0, (command, result.stdout, result.stderr)
        said[command] = result.stdout
        if command.startswith("bench"):
            shutil.copytree(tmp_path / "before", tmp_path / "after")
    assert "itq -> lsh" in said["compare before --between dhn,itq,lsh"]
    assert "p training" in said["compare before --between dhn,itq,lsh"]
    assert "the same score for each query" in said["compare before after"]
    assert "in a CSV" in said["compare before/leaderboard.csv after/leaderboard.csv"]


def test_the_ranks_of_the_page_are_those_of_the_boards():
    command = re.search(r"^    hashzoo (show .*--rank.*)$", RANK, re.M)
    assert command
    told = [plain(line) for line in re.findall(r"^\| `[\w-]+` \| \d\.\d\d \|.*$", RANK, re.M)]
    printed = plain(hashzoo(*command[1].split(), cwd=ROOT).stdout.replace("ab", "a b"))
    assert len(told) == 5
    assert " ".join(told) in printed


def test_the_example_of_a_lucky_seed_is_that_of_the_board():
    result = hashzoo("compare", "results/source-methods", "--between", "dhn,dhn-q", cwd=ROOT)
    [line, _] = [line for line in result.stdout.splitlines() if "dhn-q" in line]
    assert "-0.0663   <0.001*       0.155  -0.1504 +0.0177" in line
