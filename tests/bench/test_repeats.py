"""The same command gives the same scores, whatever order, company or interruption the cells had."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.registry import zoo
from hashzoo.results.leaderboard import TIMINGS
from tests.cli.command import hashzoo
from tests.training.test_process_state import PLUGIN

METHODS = ("itq", "dhn", "rude")
BENCH = ("bench", "digits", "--quick", "--no-baselines", "--dataset", "folder", "--plugin", "rude.py", "--bits", "8",
         "--seeds", "0,1", "--epochs", "2", "--set", "train.augment=crop-flip")  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder of images in three classes, a plugin that draws from every global generator, and the board of both."""
    here = tmp_path_factory.mktemp("repeats")
    (here / "rude.py").write_text(PLUGIN)
    generator = np.random.default_rng(0)
    for number in range(3 * 40):
        folder = here / "pictures" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 120, (16, 16, 3)) + 60 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    bench(here, "first", METHODS, 1)
    return here


def bench(here: Path, name: str, methods, jobs: int) -> None:
    done = hashzoo(
        *BENCH, "--root", "pictures", "--methods", ",".join(methods), "--results", name, "--jobs", jobs,
        cwd=here, HASHZOO_CACHE=str(here / f"cache of {name}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def board(folder: Path) -> list[str]:
    """Each cell as the bytes of all its columns but for its timings, in the order of the file."""
    with (folder / "cells.csv").open(newline="", encoding="utf-8") as file:
        return ["|".join(v for name, v in row.items() if name not in TIMINGS) for row in csv.DictReader(file)]


def test_scores_do_not_depend_on_order_or_company(here):
    bench(here, "second", METHODS[::-1], 2)
    assert board(here / "second") == board(here / "first")
    assert len(board(here / "first")) == 6


def test_scores_do_not_depend_on_an_interruption(here):
    shutil.copytree(here / "first", here / "third")
    kept = sorted((here / "third" / "cells").glob("*.json"))
    for file in kept[::2]:
        file.unlink()
    bench(here, "third", METHODS, 2)
    assert board(here / "third") == board(here / "first")


def test_scores_do_not_depend_on_how_many_processes_read_the_images(here):
    values = {"name": "x", "dataset": "folder", "backbone": "tiny", "bits": [8], "methods": ["dhn"]}
    values |= {"train": {"epochs": 1, "augment": "crop-flip"}, "set": {"folder": {"root": str(here / "pictures")}}}
    cells = []
    for workers in (0, 2):
        (job,) = plan(
            Benchmark.model_validate(values), zoo.load_plugins(), baselines=False, execution=Execution(workers=workers)
        )
        cells.append(measure(job)[0])
    assert cells[0].metrics == cells[1].metrics
    assert cells[0].provenance["trained"] == cells[1].provenance["trained"]
