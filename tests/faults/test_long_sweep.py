"""A long sweep holds what a short one holds."""

from __future__ import annotations

import gc
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hashzoo.bench.benchmark_file import read
from hashzoo.bench.plan import plan
from hashzoo.execution import local, scheduler
from hashzoo.execution.base import Limits
from hashzoo.registry import zoo
from hashzoo.results import store
from tests.faults import trivial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

CELLS = 2000
WARM = 200  # cells after which memory is to stay where it is
MIB = 1 << 20


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spent() -> float:
    """Seconds of a core: of this process, of the servers that it forks from, and of the cells that have ended."""
    ticks = 0
    for pid in descendants(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def descendants(of: int) -> set[int]:
    """The processes below one; those that have ended and were not waited for are among them."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {of}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def test_two_thousand_cells_leave_memory_handles_processes_and_files_as_they_were(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "work", trivial.attempt)
    file = read("digits").model_copy(update={"methods": ["lsh"], "bits": [8], "seeds": [0]})
    (one,) = plan(file, zoo.load_plugins(), baselines=False)
    jobs = [replace(one, identity=replace(one.identity, seed=seed)) for seed in range(CELLS)]
    store.prepare(tmp_path)
    seen: list[tuple[int, int, int]] = []
    costs: list[tuple[float, float]] = []

    def event(job, kind, value):
        if kind == "done":
            assert value.status == "ok"
            if len(seen) in (WARM, CELLS - 1):
                seen.append((memory(), handles(), len(descendants(os.getpid()))))
                costs.append((time.monotonic(), spent()))
            else:
                seen.append((0, 0, 0))

    assert len(scheduler.run_cells(jobs, tmp_path, limits=Limits(parallel=2), event=event)) == CELLS
    (early, open_early, running_early), (late, open_late, running_late) = seen[WARM], seen[-1]
    with capsys.disabled():
        wall, busy = (1000 * (b - a) / (CELLS - 1 - WARM) for a, b in zip(*costs, strict=True))
        print(f"\n{CELLS} cells, two at a time: {wall:.0f} ms and {busy:.0f} ms of a core each; the driver "
              f"grew by {(late - early) / MIB:.1f} MiB after {WARM}; handles {open_early}, {open_late}; processes "
              f"{running_early}, {running_late}")  # fmt: skip
    assert late - early < 20 * MIB
    assert open_late <= open_early + 2  # a cell more or less that runs just then
    assert running_late <= running_early + 2
    time.sleep(1)
    assert len(descendants(os.getpid())) <= 2  # the server, and who looks after its semaphores
    left = {file.suffix for file in (tmp_path / "cells").iterdir()}
    assert left <= {".json", ".lock"}
    assert len(list((tmp_path / "cells").glob("*.json"))) == CELLS
