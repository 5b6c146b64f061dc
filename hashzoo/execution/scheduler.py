"""The loop of a sweep: cells go out to a launcher as there is room, and each comes back with a result or a reason.

A cell is claimed by a lease before it starts, so that several of these loops, on one machine or on many, can work on
the same folder; what another has finished in the meantime is taken over from the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hashzoo.bench.job import Job, blank
from hashzoo.execution.base import Attempt, Launcher, Limits
from hashzoo.execution.leases import Leases
from hashzoo.execution.local import LocalLauncher
from hashzoo.registry import saved_method
from hashzoo.results import provenance, store
from hashzoo.results.cell import Cell

Event = Callable[[Job, str, Any], None]  # job, "started" | "progress" | "done" | "elsewhere", progress or cell

AGAIN = 2.0  # seconds between looks at cells that others are at
PAUSE = 0.5  # seconds to wait for news of our own


class Queue:
    """The cells of a sweep that are not done yet, by us or by another who shares the folder."""

    def __init__(self, jobs: Sequence[Job], folder: Path, leases: Leases) -> None:
        self.folder, self.leases = folder, leases
        self.waiting = list(jobs)
        self._before = {id(job): self._look(job) for job in jobs}
        self._next: dict[int, float] = {}  # when to ask again for one that another is at

    def __len__(self) -> int:
        return len(self.waiting)

    def take(self) -> tuple[Job | None, list[tuple[Job, Cell]]]:
        """The next cell that is ours now, or None, and those that others have finished since the last call."""
        finished: list[tuple[Job, Cell]] = []
        for job in list(self.waiting):
            if found := self._done(job):
                finished.append((job, found))
            elif self._next.get(id(job), 0) <= time.monotonic():
                if not self.leases.acquire(_lease(job)):
                    self._next[id(job)] = time.monotonic() + AGAIN
                elif found := self._done(job):  # finished between our look and our claim
                    self.leases.release(_lease(job))
                    finished.append((job, found))
                else:
                    self.waiting.remove(job)
                    return job, finished
        return None, finished

    def release(self, job: Job) -> None:
        """Give back the lease of a cell of ours."""
        self.leases.release(_lease(job))

    def _done(self, job: Job) -> Cell | None:
        """The cell that has appeared since the sweep began, which takes it off the list."""
        if self._look(job) == self._before[id(job)]:
            return None
        found, _ = store.find(self.folder, job.identity, job.benchmark)
        if found is None or lacking(found, job, self.folder):
            return None
        self.waiting.remove(job)
        return found

    def _look(self, job: Job) -> tuple[int, int] | None:
        with suppress(OSError):
            seen = store.path(self.folder, job.identity, job.benchmark).stat()
            return seen.st_ino, seen.st_mtime_ns
        return None


def lacking(found: Cell, job: Job, folder: Path) -> bool:
    """Whether a cell that went well lacks what the job asks for: a metric, the weights, deterministic algorithms."""
    if found.status != "ok":
        return False
    if job.deterministic and not found.provenance.get("deterministic"):
        return True
    kept = saved_method.path_of(store.path(folder, job.identity, job.benchmark))
    return any(name not in found.metrics for name in job.metrics) or (job.keep and not kept.is_file())


def _lease(job: Job) -> str:
    return store.path(Path(), job.identity, job.benchmark).with_suffix(".lease").name


def run_cells(
    jobs: Sequence[Job],
    folder: Path,
    *,
    launcher: Launcher | None = None,
    limits: Limits | None = None,
    event: Event = lambda job, kind, value: None,
) -> list[Cell]:
    """Measure each job, ``limits.parallel`` at a time; every job gets a cell, whatever happens.

    EnvironmentFailure when a finished cell cannot be kept. On KeyboardInterrupt what runs is ended, finished cells
    stay, and the interrupt goes on.
    """
    limits = limits or Limits()
    launcher = launcher or LocalLauncher(limits)
    finished: list[Cell] = []

    def done(job: Job, cell: Cell, kind: str = "done") -> None:
        finished.append(cell)
        event(job, kind, cell)

    for job in jobs:
        if job.refusal:
            done(job, _keep(folder, blank(job, "skipped", job.refusal)))
    running: dict[int, Attempt] = {}
    begun: dict[int, float] = {}
    with Leases(folder / "cells") as leases:
        leases.clean_up()
        queue = Queue([job for job in jobs if not job.refusal], folder, leases)
        try:
            while queue or running:
                while len(running) < limits.parallel:
                    ours, others = queue.take()
                    for other, cell in others:
                        done(other, cell, "elsewhere")
                    if ours is None:
                        break
                    event(ours, "started", None)
                    slot = next(n for n in range(limits.parallel) if n not in running)
                    running[slot], begun[slot] = launcher.start(ours, folder, slot), time.monotonic()
                if not running:  # what is left, others are at
                    time.sleep(PAUSE)
                    continue
                launcher.wait(list(running.values()), PAUSE)
                for slot, one in list(running.items()):
                    for value in one.news():
                        event(one.job, "progress", value)
                    if one.ended():
                        cell = _settle(running.pop(slot), folder, time.monotonic() - begun.pop(slot))
                        queue.release(one.job)
                        done(one.job, cell)
        finally:
            for one in running.values():
                one.end()
            launcher.close()
    return finished


def _settle(one: Attempt, folder: Path, seconds: float) -> Cell:
    """The cell of an attempt that has ended after so many seconds: the one it wrote, or one that says how it ended."""
    status, reason = one.fate()
    found, _ = store.find(folder, one.job.identity, one.job.benchmark)
    if status == "ok" and found is not None:
        return found
    return _keep(folder, blank(one.job, "crashed" if status == "ok" else status, reason, provenance.elapsed(seconds)))


def _keep(folder: Path, cell: Cell) -> Cell:
    store.write(folder, cell, {})
    return cell
