"""One attempt at a cell, in the process it runs in: measure, write, and say how it went if it went wrong."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from hashzoo import cells, checkpoints, provenance, trained
from hashzoo.bench import Job
from hashzoo.checkpoints import Checkpoints
from hashzoo.devices import Measured, measured
from hashzoo.endings import status_of
from hashzoo.errors import DiskError, TroubleError
from hashzoo.measure import Report, blank
from hashzoo.processes import alone


def attempt(job: Job, folder: Path, memory: int | None, pipe: Connection, surroundings: dict[str, str]) -> None:
    """What the process of a cell does. Its output goes to a log beside the cell; an empty log is removed.

    ``memory`` is the bytes it may allocate beyond what it starts with.
    """
    alone(surroundings)
    log = log_of(job, folder)
    log.unlink(missing_ok=True)
    with log.open("a", buffering=1, encoding="utf-8", errors="replace") as output:  # a: who cuts it makes no hole
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output

        def report(progress: float, values: dict[str, float]) -> None:
            try:
                pipe.send(("progress", (progress, values)))
            except OSError:  # who asked for this cell is gone: it is nobody's failure, and nothing is left
                log.unlink(missing_ok=True)
                os._exit(1)

        trained.path_of(log).unlink(missing_ok=True)  # of a former measurement
        former = Checkpoints(checkpoints.path_of(log), job)
        try:
            cell, arrays = _measured(job, report, trained.path_of(log) if job.keep else None, former, memory)
            cells.write(folder, cell, arrays)
            pipe.send(("written", None))
            if cell.status in ("ok", "nan"):  # after anything else, another try can go on from it
                former.remove()
        except TroubleError as error:
            pipe.send(("trouble", str(error)))
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def _measured(job: Job, report: Report, keep: Path | None, former: Checkpoints, memory: int | None) -> Measured:
    """The cell of a job, and an empty one that says why if its measurement fails. A disk that refuses is no failure."""
    begun = time.monotonic()
    try:
        limit_memory(memory)
        return measured(job, report, keep, former)
    except DiskError:
        raise
    except BaseException as error:
        limit_memory(None)
        traceback.print_exc()
        cost = provenance.spent(time.monotonic() - begun)
        return blank(job, *status_of(error, memory is not None), cost), {}


def limit_memory(allowed: int | None) -> None:
    """Let this process allocate so many bytes more than it has now, or again as many as it will. Linux only."""
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if allowed is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + allowed, hard))


def log_of(job: Job, folder: Path) -> Path:
    """Where a cell's process writes what it prints, tracebacks included."""
    return cells.path(folder, job.identity, job.benchmark).with_suffix(".log")
