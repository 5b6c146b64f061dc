"""One attempt at a cell, in the process it runs in: measure, write, and say how it went if it went wrong."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.bench.job import Job, blank
from hashzoo.bench.measure import measure
from hashzoo.errors import DiskError, EndedError, EnvironmentFailure, describe_exit, status_of
from hashzoo.execution.processes import alone, heard, spawn
from hashzoo.registry import saved_method
from hashzoo.results import provenance, store
from hashzoo.results.cell import Cell
from hashzoo.training import checkpoints
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.training.distributed import PeerLostError, ProcessGroup
from hashzoo.types import Report


def work(job: Job, folder: Path, memory: int | None, pipe: Connection, surroundings: dict[str, str]) -> None:
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

        saved_method.path_of(log).unlink(missing_ok=True)  # of a former measurement
        former = Checkpoints(
            checkpoints.checkpoint_path(log), {"key": job.identity.key, "device": job.device, "devices": job.devices}
        )
        try:
            cell, arrays = _measure_safely(job, report, saved_method.path_of(log) if job.keep else None, former, memory)
            store.write(folder, cell, arrays)
            pipe.send(("written", None))
            if cell.status in ("ok", "nan"):  # after anything else, another try can go on from it
                former.remove()
        except EnvironmentFailure as error:
            pipe.send(("trouble", str(error)))
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def _measure_safely(job: Job, report: Report, keep: Path | None, former: Checkpoints, memory: int | None) -> Measured:
    """The cell of a job, and an empty one that says why if its measurement fails. A disk that refuses is no failure."""
    begun = time.monotonic()
    try:
        limit_memory(memory)
        return measure_on_devices(job, report, keep, former)
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
    return store.path(folder, job.identity, job.benchmark).with_suffix(".log")


SETTLE = 3.0  # seconds in which the others may still say why, once one process has failed


GRACE = 10.0  # seconds in which processes that are done may end by themselves


Measured = tuple[Cell, dict[str, np.ndarray[Any, Any]]]


@dataclass
class Member:
    """One of the processes, and what it said: a result, or the status and the reason of its end."""

    process: Any
    pipe: Connection
    result: Measured | None = None
    failure: tuple[str, str] | None = None
    lost: bool = False  # it failed because another did
    refused: str | None = None  # what a disk refused it

    @property
    def silent(self) -> bool:
        """Whether it ended without a word."""
        return not self.process.is_alive() and self.result is None and self.failure is None


def measure_on_devices(job: Job, report: Report, keep: Path | None, checkpoints: Checkpoints) -> Measured:
    """The cell of a job, measured by as many processes as it asks for. Raises what the measurement raises.

    With several that is DiskError where a disk refused one of them, else EndedError, and none of them is left.
    """
    if job.devices == 1:
        return measure(job, report, keep, checkpoints=checkpoints)
    members: list[Member] = []
    with tempfile.TemporaryDirectory(prefix="hashzoo-") as folder:
        try:
            for rank in range(job.devices):
                members.append(Member(*spawn(_member, job, rank, Path(folder) / "meeting", keep, checkpoints)))
            result = _watched(members, report)
            for member in members:
                member.process.join(GRACE)
            return result
        finally:
            for member in members:
                member.process.kill()
                member.process.join()
                member.pipe.close()


def _watched(members: list[Member], report: Report) -> Measured:
    """The result of the first process. When any fails DiskError, or EndedError with the best reason there is."""
    until = float("inf")
    while True:
        ends = [member.process.sentinel for member in members if member.process.is_alive()]
        wait([*ends, *(member.pipe for member in members if not member.pipe.closed)], 0.5)
        ended = [not member.process.is_alive() for member in members]  # before listening: last words are not missed
        for member in members:
            _listen(member, report)
        if members[0].result is not None:
            return members[0].result
        failed = [m for m, over in zip(members, ended, strict=True) if m.failure or (over and m.silent)]
        if failed:
            until = min(until, time.monotonic() + SETTLE)
        if failed and (time.monotonic() > until or len(failed) == len(members)):
            refused = next((member.refused for member in members if member.refused), None)
            raise DiskError(refused) if refused else EndedError(*_why(members))


def _listen(member: Member, report: Report) -> None:
    for kind, value in heard(member.pipe):
        if kind == "progress":
            report(*value)
        elif kind == "done":
            member.result = value
        else:
            member.failure, member.lost, member.refused = value


def _why(members: list[Member]) -> tuple[str, str]:
    """The status and the reason of a cell: a process that ended without a word, or the first that failed by itself."""
    for number, member in enumerate(members, 1):
        if member.silent:
            return "crashed", f"process {number} of {len(members)} {describe_exit(member.process.exitcode)}"
    own = [m.failure for m in members if m.failure and not m.lost] + [m.failure for m in members if m.failure]
    return own[0]


def _member(
    job: Job,
    rank: int,
    meeting: Path,
    keep: Path | None,
    checkpoints: Checkpoints,
    pipe: Connection,
    surroundings: dict[str, str],
) -> None:
    """What each process does: meet the others, measure, and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us answers Ctrl-C
    threading.Thread(target=_follow, args=(meeting.parent,), daemon=True).start()
    os.environ.update(surroundings)
    os.environ["LOCAL_RANK"] = str(rank)  # the name that torchrun uses, for plugins

    def report(progress: float, values: dict[str, float]) -> None:
        if rank == 0:
            pipe.send(("progress", (progress, values)))

    try:
        process_group = ProcessGroup(rank, job.devices)
        process_group.join(meeting, "nccl" if job.device == "cuda" else "gloo")
        pipe.send(
            (
                "done",
                measure(job, report, keep if rank == 0 else None, checkpoints=checkpoints, process_group=process_group),
            )
        )
    except BaseException as error:
        traceback.print_exc()
        refused = str(error) if isinstance(error, DiskError) else None
        pipe.send(("failed", (status_of(error), isinstance(error, PeerLostError), refused)))


def _follow(folder: Path) -> None:
    """End with the process that started this one, however it ends, and clean up behind it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
