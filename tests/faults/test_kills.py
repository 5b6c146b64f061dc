"""A sweep that is killed, again and again, loses the cells in progress and nothing else."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hashzoo.execution.leases import Leases
from hashzoo.results.leaderboard import TIMINGS

#: A method that keeps a ledger of its fits.
PLUGIN = """
import os
import torch
from hashzoo import Card, Method, bits, hookimpl

class Quick(Method):
    card = Card("shallow", "none")

    def __init__(self, setting, backbone, *, number: int = 0):
        super().__init__()
        self.backbone, self.number = backbone, number
        self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train, run):
        with open(os.environ["HASHZOO_LEDGER"], "a") as ledger:
            ledger.write(f"{self.w.shape[1]} {run.generator.initial_seed()}\\n")
        self.w = torch.randn(self.w.shape, generator=run.generator)

    def encode(self, batch):
        return {"code": bits(self.backbone(batch.images).pooled @ self.w)}

@hookimpl
def hashzoo_methods():
    return {"quick": Quick}
"""
SEEDS = 6


def begin(folder: Path, results: str, *more: object) -> subprocess.Popen[str]:
    asked = ["bench", "digits", "--quick", "--no-baselines", "--plugin", "quick.py", "--methods", "quick",
             "--results", results, *map(str, more)]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", *asked],
        cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "HASHZOO_LEDGER": str(folder / f"{results}.ledger"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def grid(bits: str = "8,16", seeds: int = SEEDS) -> list[str]:
    return ["--bits", bits, "--seeds", ",".join(map(str, range(seeds)))]


def repeated(results: Path) -> list[dict[str, str]]:
    """The rows of a folder's leaderboard, but for what need not repeat."""
    with (results / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return [{name: v for name, v in row.items() if name not in TIMINGS} for row in csv.DictReader(file)]


def ledger(folder: Path, results: str) -> list[str]:
    file = folder / f"{results}.ledger"
    return file.read_text().splitlines() if file.exists() else []


def killed_over_and_over(folder: Path, name: str, lots: random.Random, kills: int) -> tuple[int, int]:
    """How often a sweep was killed on its way, and how many of its cells were begun more than once."""
    done = 0
    while True:
        process = begin(folder, name, *grid(), "--jobs", 1)
        if done < kills:
            # before anything is there, while the first cell is at work, or after some more have been finished
            cells, more = folder / name / "cells", lots.choice([-1, 0, 1, 2])
            wanted = len(list(cells.glob("*.json"))) + more
            while process.poll() is None and more >= 0:
                if list(cells.glob("*.lease")) and len(list(cells.glob("*.json"))) >= wanted:
                    break
                time.sleep(0.01)
            time.sleep(lots.uniform(0, 1.2))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                done += 1
        said, _ = process.communicate()
        if process.returncode == 0:
            fits = ledger(folder, name)
            return done, len(fits) - len(set(fits))
        assert process.returncode == -signal.SIGKILL, said


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "quick.py").write_text(PLUGIN)
    process = begin(folder, "whole", *grid(), "--jobs", 1)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert len(ledger(folder, "whole")) == 2 * SEEDS
    return folder


def assert_nothing_is_lost(folder: Path, name: str, lots: random.Random, kills: int) -> tuple[int, int]:
    done, extra = killed_over_and_over(folder, name, lots, kills)
    assert repeated(folder / name) == repeated(folder / "whole")
    assert extra <= done
    assert len(set(ledger(folder, name))) == 2 * SEEDS
    with Leases(folder / name / "cells", expiry=-1) as later:  # truncated files are deleted after a minute
        later.clean_up()
    left = [f.name for f in (folder / name / "cells").iterdir() if f.suffix not in (".json", ".npz")]
    assert left in ([], [".leases.lock"])
    return done, extra


def test_a_sweep_killed_at_random_moments_ends_with_the_same_board(unbroken, whole, tally):
    """kill -9 of a sweep at random moments, then the same command again"""
    extra = 0
    for number in range(40 if whole else 1):
        done, more = assert_nothing_is_lost(unbroken, f"{whole}{number}", random.Random(number), 5 if whole else 2)
        extra += more
        for _ in range(done):
            tally.case()
    print(f"{tally.cases} kills, {extra} cells begun more than once")
