"""One cell in several processes: they are started, watched and ended together, and its end has one reason."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.bench import Job
from hashzoo.cells import Cell
from hashzoo.checkpoints import Checkpoints
from hashzoo.endings import EndedError, how, status_of
from hashzoo.errors import DiskError
from hashzoo.measure import Report, measure
from hashzoo.processes import heard, spawn
from hashzoo.ranks import LostError, Ranks

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


def measured(job: Job, report: Report, keep: Path | None, checkpoints: Checkpoints) -> Measured:
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
            return "crashed", f"process {number} of {len(members)} {how(member.process.exitcode)}"
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
    os.environ["LOCAL_RANK"] = str(rank)  # where Fabric looks for it

    def report(progress: float, values: dict[str, float]) -> None:
        if rank == 0:
            pipe.send(("progress", (progress, values)))

    try:
        ranks = Ranks(rank, job.devices)
        ranks.join(meeting, "nccl" if job.device == "cuda" else "gloo")
        pipe.send(("done", measure(job, report, keep if rank == 0 else None, checkpoints=checkpoints, ranks=ranks)))
    except BaseException as error:
        traceback.print_exc()
        refused = str(error) if isinstance(error, DiskError) else None
        pipe.send(("failed", (status_of(error), isinstance(error, LostError), refused)))


def _follow(folder: Path) -> None:
    """End with the process that started this one, however it ends, and clean up behind it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
