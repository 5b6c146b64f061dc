"""A study that is killed, and one that two processes share, end with the same file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.test_kills import PLUGIN, ledger

RANGE = PLUGIN.replace("number: int = 0", "number: Annotated[int, Integer(0, 999)] = 0").replace(
    "import Card,", "import Card, Integer,"
)
TRIALS = 4


def begin(folder: Path, results: str) -> subprocess.Popen[str]:
    asked = ["tune", "digits", "--quick", "--no-baselines", "--plugin", "quick.py", "--methods", "quick", "--bits", "8",
             "--trials", TRIALS, "--jobs", 1, "--results", results]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", *map(str, asked)],
        cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "HASHZOO_LEDGER": str(folder / f"{results}.ledger"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def kill_after(process: subprocess.Popen[str], folder: Path, results: str, cells: int) -> None:
    """Kill a study with SIGKILL as soon as it has some cells."""
    while process.poll() is None and len(list((folder / results / "cells").glob("*.json"))) < cells:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "quick.py").write_text("from typing import Annotated\n" + RANGE)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_study_that_is_killed_or_shared_ends_with_the_same_bytes(folder):
    kill_after(begin(folder, "killed"), folder, "killed", 2)
    assert not (folder / "killed" / "tuned.toml").exists()
    finish(begin(folder, "killed"))
    shared = [begin(folder, "shared") for _ in range(2)]
    for one in shared:
        finish(one)
    assert (folder / "killed" / "tuned.toml").read_bytes() == (folder / "shared" / "tuned.toml").read_bytes()
    assert len(ledger(folder, "shared")) == TRIALS  # no cell twice
    assert TRIALS <= len(ledger(folder, "killed")) <= TRIALS + 1
    assert Counter(ledger(folder, "shared"))["8 0"] == TRIALS
