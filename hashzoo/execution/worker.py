"""The process of a cell: measure it, write it, report its status; on several devices, one process for each."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
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
from hashzoo.execution.processes import end_with_parent, isolate, messages, spawn
from hashzoo.registry import saved_method
from hashzoo.results import provenance, store
from hashzoo.results.cell import Cell
from hashzoo.training import checkpoints
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.training.distributed import PeerLostError, ProcessGroup
from hashzoo.types import Report


def work(job: Job, folder: Path, memory: int | None, pipe: Connection, environment: dict[str, str]) -> None:
    """The main function of the process of a cell.

    Its output goes to a log beside the cell; an empty log is removed.

    Args:
        job: The cell.
        folder: The results folder.
        memory: Bytes that the process can allocate in addition to those it starts with; None sets no limit.
        pipe: Where progress and the end are reported.
        environment: Environment variables to set.
    """
    isolate(environment)
    log = log_of(job, folder)
    log.unlink(missing_ok=True)
    with log.open("a", buffering=1, encoding="utf-8", errors="replace") as output:  # append: the launcher truncates it
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output

        def report(progress: float, values: dict[str, float]) -> None:
            try:
                pipe.send(("progress", (progress, values)))
            except OSError:  # the sweep is gone
                log.unlink(missing_ok=True)
                os._exit(1)

        saved_method.path_of(log).unlink(missing_ok=True)  # of an earlier measurement
        former = Checkpoints(checkpoint_of(job, folder), job.checkpoint_facts)
        keep = saved_method.path_of(log) if job.execution.save_weights else None
        try:
            cell, arrays = _measure_safely(job, report, keep, former, memory)
            store.write(folder, cell, arrays)
            pipe.send(("written", None))
            # after any other status, the next attempt resumes from it; a sweep removes one that several cells share
            if cell.status in ("ok", "nan") and not job.nested:
                former.remove()
        except EnvironmentFailure as error:
            pipe.send(("disk error", str(error)))
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def _measure_safely(job: Job, report: Report, keep: Path | None, former: Checkpoints, memory: int | None) -> Measured:
    """The cell of a job; if its measurement fails, a cell with the status and no scores. A DiskError is raised."""
    begun = time.monotonic()
    try:
        limit_memory(memory)
        return measure_on_devices(job, report, keep, former)
    except DiskError:
        raise
    except BaseException as error:
        limit_memory(None)
        traceback.print_exc()
        cost = provenance.resource_usage(time.monotonic() - begun)
        return blank(job, *status_of(error, memory is not None), cost), {}


def limit_memory(allowed: int | None) -> None:
    """Limit what this process can allocate in addition to its present size; None lifts the limit. Linux only."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (ImportError, OSError):  # systems other than Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if allowed is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + allowed, hard))


def log_of(job: Job, folder: Path) -> Path:
    """The log of a cell: the output of its process, tracebacks included."""
    return store.path(folder, job.identity, job.benchmark).with_suffix(".log")


def checkpoint_of(job: Job, folder: Path) -> Path:
    """The checkpoint of the training of a cell, which several nested lengths share."""
    return checkpoints.checkpoint_path(store.path(folder, job.training, job.benchmark))


SETTLE = 3.0  # seconds in which other processes can still report, once one has failed


GRACE = 10.0  # seconds in which finished processes can end by themselves


Measured = tuple[Cell, dict[str, np.ndarray[Any, Any]]]


@dataclass
class Member:
    """One of the processes that train a cell together: its result, or the status and the reason of its failure."""

    process: Any
    pipe: Connection
    result: Measured | None = None
    failure: tuple[str, str] | None = None
    lost: bool = False  # failed because another process did
    disk_error: str | None = None

    @property
    def silent(self) -> bool:
        """Whether it ended without a report."""
        return not self.process.is_alive() and self.result is None and self.failure is None


def measure_on_devices(job: Job, report: Report, keep: Path | None, checkpoints: Checkpoints) -> Measured:
    """Measure the cell of a job with one process for each device; one device needs no other process.

    Raises:
        DiskError: If one of several processes could not write.
        EndedError: If one of several processes failed; all of them have ended then.
        Exception: With one device, what the measurement raises.
    """
    if job.execution.devices == 1:
        return measure(job, report, keep, checkpoints=checkpoints)
    members: list[Member] = []
    with tempfile.TemporaryDirectory(prefix="hashzoo-") as folder:
        try:
            for rank in range(job.execution.devices):
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
    """The result of the first process. DiskError or EndedError, with the most specific reason, if any process fails."""
    until = float("inf")
    while True:
        ends = [member.process.sentinel for member in members if member.process.is_alive()]
        wait([*ends, *(member.pipe for member in members if not member.pipe.closed)], 0.5)
        ended = [not member.process.is_alive() for member in members]  # before the pipes are read
        for member in members:
            _read_reports(member, report)
        if members[0].result is not None:
            return members[0].result
        failed = [m for m, over in zip(members, ended, strict=True) if m.failure or (over and m.silent)]
        if failed:
            until = min(until, time.monotonic() + SETTLE)
        if failed and (time.monotonic() > until or len(failed) == len(members)):
            disk_error = next((member.disk_error for member in members if member.disk_error), None)
            raise DiskError(disk_error) if disk_error else EndedError(*_why(members))


def _read_reports(member: Member, report: Report) -> None:
    for kind, value in messages(member.pipe):
        if kind == "progress":
            report(*value)
        elif kind == "done":
            member.result = value
        else:
            member.failure, member.lost, member.disk_error = value


def _why(members: list[Member]) -> tuple[str, str]:
    """The status and the reason: of a process that ended without a report, or of the first that failed by itself."""
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
    environment: dict[str, str],
) -> None:
    """The main function of each process: join the group, measure, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    end_with_parent(meeting.parent)
    os.environ.update(environment)
    os.environ["LOCAL_RANK"] = str(rank)  # the name that torchrun uses, for plugins

    def report(progress: float, values: dict[str, float]) -> None:
        if rank == 0:
            pipe.send(("progress", (progress, values)))

    try:
        group = ProcessGroup(rank, job.execution.devices)
        group.join(meeting, "nccl" if job.execution.device == "cuda" else "gloo")
        kept = keep if rank == 0 else None
        pipe.send(("done", measure(job, report, kept, checkpoints=checkpoints, process_group=group)))
    except BaseException as error:
        traceback.print_exc()
        disk_error = str(error) if isinstance(error, DiskError) else None
        pipe.send(("failed", (status_of(error), isinstance(error, PeerLostError), disk_error)))
