"""What a cell costs beyond its measurement: its process, its lease, its files, and the loop that waits for it.

    python benchmarks/speed/launcher.py            # 100 cells, one at a time
    python benchmarks/speed/launcher.py --cells 20 --launcher ray

`lsh` on the digits, a cell a seed. A cell says itself how long its measurement took (``provenance.seconds``, from
opening the plugins to the scores); the rest of the sweep's time is the launcher's. The first cell, for which a server
loads torch, is reported alone. Leaderboard and screen are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hashzoo.bench.benchmark_file import read
from hashzoo.bench.plan import plan
from hashzoo.execution import scheduler
from hashzoo.execution.base import Limits
from hashzoo.registry import zoo
from hashzoo.results import store


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--launcher", default="local")
    asked = parser.parse_args()
    house, limits = zoo.load_plugins(), Limits(parallel=1)
    seeds = list(range(asked.cells + 1))
    file = read("digits").model_copy(update={"methods": ["lsh"], "bits": [8], "seeds": seeds})
    jobs = plan(file, house, baselines=False)
    ends: list[float] = []

    def event(job: Any, kind: str, value: Any) -> None:
        if kind == "done":
            ends.append(time.perf_counter())

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as place:
        store.prepare(Path(place))
        launcher = house.launcher(asked.launcher).factory(limits)
        started = time.perf_counter()
        found = scheduler.run_cells(jobs, Path(place), launcher=launcher, limits=limits, event=event)
    assert {cell.status for cell in found} == {"ok"}
    measured = [cell.provenance["seconds"] for cell in found]
    walls = [after - before for before, after in zip([started, *ends], ends, strict=False)]
    beyond = sorted(wall - own for wall, own in zip(walls[1:], measured[1:], strict=True))
    print(f"{asked.launcher}: first cell {walls[0]:.2f} s; then {len(beyond)} cells, of which a measurement takes "
          f"{sum(measured[1:]) / len(beyond):.3f} s and the rest {sum(beyond) / len(beyond):.3f} s "
          f"(median {beyond[len(beyond) // 2]:.3f}, highest {beyond[-1]:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
