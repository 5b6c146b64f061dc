"""Several sweeps on one folder: every cell is measured, and none twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.test_kills import PLUGIN, begin, grid, ledger, repeated


def together(folder: Path, name: str, grids: list[list[str]]) -> None:
    """Sweeps over several grids at once, to their ends."""
    processes = [begin(folder, name, *one, "--jobs", 1) for one in grids]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said


def assert_each_once(folder: Path, name: str, count: int) -> None:
    fits = Counter(ledger(folder, name))
    assert len(fits) == count
    assert max(fits.values()) == 1, fits.most_common(3)
    assert len(list((folder / name / "cells").glob("*.json"))) == count
    assert not list((folder / name / "cells").glob("*.lease"))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "quick.py").write_text(PLUGIN)
    return tmp_path


def test_sweeps_that_overlap_share_their_cells_and_each_is_measured_once(folder):
    together(folder, "r", [grid("8,16", 2), grid("16,24", 2), grid("8,16,24", 1)])
    assert_each_once(folder, "r", 6)
    together(folder, "alone", [grid("8,16,24", 2)])
    assert repeated(folder / "alone") == repeated(folder / "r")


def stale(folder: Path, name: str, of: str) -> int:
    """Leave leases of a machine that is no more for all cells that the folder ``of`` holds."""
    cells = folder / name / "cells"
    cells.mkdir(parents=True)
    for file in sorted((folder / of / "cells").glob("*.json")):
        lease = (cells / file.name).with_suffix(".lease")
        lease.write_text('{"owner": "elsewhere 1 1 00"}')
        os.utime(lease, (time.time() - 100, time.time() - 100))
    return len(list(cells.glob("*.lease")))


def test_a_cell_that_a_dead_machine_was_at_is_taken_over_once(folder, whole, tally):
    """stale leases, taken over by one of several sweeps"""
    seeds = 10 if whole else 2
    together(folder, "r", [grid("8,16", seeds)])
    assert stale(folder, "s", "r") == 2 * seeds
    together(folder, "s", [grid("8,16", seeds)] * (4 if whole else 2))
    assert_each_once(folder, "s", 2 * seeds)
    for _ in range(2 * seeds):
        tally.case()


def test_shards_are_parts_of_the_whole(folder):
    together(folder, "r", [[*grid("8", 4), "--shard", f"{i}/3"] for i in (1, 2, 3)])
    assert_each_once(folder, "r", 4)


def test_four_sweeps_on_one_folder_measure_each_cell_once(folder, whole, tally):
    """cells of four sweeps at once on one folder, each measured once"""
    seeds = 50 if whole else 2
    for number in range(20 if whole else 1):
        # each asks for three quarters of them
        together(folder, f"r{number}", [grid(bits, seeds) for bits in ("8,12,16", "12,16,20", "16,20,8", "20,8,12")])
        assert_each_once(folder, f"r{number}", 4 * seeds)
        for _ in range(4 * seeds):
            tally.case()
