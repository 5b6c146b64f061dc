"""The loop of a sweep: start cells as slots become free, and collect a result or a reason from each.

A cell is claimed by a lease before it starts, so that several sweeps, on one machine or on many, can share a results
folder. Cells that another sweep finishes meanwhile are read from the folder.
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

RETRY = 2.0  # seconds between attempts to claim a cell that another sweep holds
PAUSE = 0.5  # seconds to wait for reports


class Queue:
    """The cells of a sweep that no sweep on this folder has finished yet."""

    def __init__(self, jobs: Sequence[Job], folder: Path, leases: Leases) -> None:
        self.folder, self.leases = folder, leases
        self.waiting = list(jobs)
        self._before = {id(job): self._look(job) for job in jobs}
        self._next: dict[int, float] = {}  # when to try again to claim a cell that another sweep holds

    def __len__(self) -> int:
        return len(self.waiting)

    def take(self) -> tuple[Job | None, list[tuple[Job, Cell]]]:
        """The next cell, now claimed, or None; and the cells that other sweeps finished since the last call."""
        finished: list[tuple[Job, Cell]] = []
        for job in list(self.waiting):
            if found := self._done(job):
                finished.append((job, found))
            elif self._next.get(id(job), 0) <= time.monotonic():
                if not self.leases.acquire(_lease(job)):
                    self._next[id(job)] = time.monotonic() + RETRY
                elif found := self._done(job):  # finished between the check and the claim
                    self.leases.release(_lease(job))
                    finished.append((job, found))
                else:
                    self.waiting.remove(job)
                    return job, finished
        return None, finished

    def release(self, job: Job) -> None:
        """Release the lease of a cell."""
        self.leases.release(_lease(job))
        self._next.clear()  # another length of the same training can follow at once

    def _done(self, job: Job) -> Cell | None:
        """The cell if its file appeared after the sweep began; it is removed from the queue."""
        if self._look(job) == self._before[id(job)]:
            return None
        found, _ = store.find(self.folder, job.identity, job.benchmark)
        if found is None or incomplete(found, job, self.folder):
            return None
        self.waiting.remove(job)
        return found

    def _look(self, job: Job) -> tuple[int, int] | None:
        with suppress(OSError):
            seen = store.path(self.folder, job.identity, job.benchmark).stat()
            return seen.st_ino, seen.st_mtime_ns
        return None


def incomplete(found: Cell, job: Job, folder: Path) -> bool:
    """Whether a cell that is ok lacks something that the job asks for: a metric, weights, determinism."""
    if found.status != "ok":
        return False
    if job.execution.deterministic and not found.provenance.get("deterministic"):
        return True
    kept = saved_method.path_of(store.path(folder, job.identity, job.benchmark))
    return any(name not in found.metrics for name in job.metrics) or (job.execution.save_weights and not kept.is_file())


def _lease(job: Job) -> str:
    """The lease of a cell; cells of one training have one, so that the others wait for it."""
    return store.path(Path(), job.training, job.benchmark).with_suffix(".lease").name


def run_cells(
    jobs: Sequence[Job],
    folder: Path,
    *,
    launcher: Launcher | None = None,
    limits: Limits | None = None,
    event: Event = lambda job, kind, value: None,
) -> list[Cell]:
    """Measure each job, ``limits.parallel`` at a time. Every job gets a cell.

    On KeyboardInterrupt, running cells are ended, finished cells stay, and the interrupt is raised again.

    Args:
        jobs: The cells.
        folder: The results folder.
        launcher: Where cells run; by default on this machine.
        limits: Cells at a time, seconds and bytes of a cell.
        event: Called when a cell starts, reports progress, or is done.

    Returns:
        The cells, in the order in which they were finished.

    Raises:
        EnvironmentFailure: If a finished cell cannot be written.
    """
    limits = limits or Limits()
    loop = _Loop(folder, launcher or LocalLauncher(limits), limits, event)
    for job in jobs:
        if job.refusal:
            loop.finish(job, _store(folder, blank(job, "skipped", job.refusal)))
    with Leases(folder / "cells") as leases:
        leases.clean_up()
        loop.run(Queue([job for job in jobs if not job.refusal], folder, leases))
    return loop.finished


class _Loop:
    """Running cells by slot, and finished ones."""

    def __init__(self, folder: Path, launcher: Launcher, limits: Limits, event: Event) -> None:
        self.folder, self.launcher, self.limits, self.event = folder, launcher, limits, event
        self.running: dict[int, tuple[Attempt, float]] = {}  # with the time of its start
        self.finished: list[Cell] = []

    def finish(self, job: Job, cell: Cell, kind: str = "done") -> None:
        """Collect a finished cell."""
        self.finished.append(cell)
        self.event(job, kind, cell)

    def run(self, queue: Queue) -> None:
        """Work until the queue is empty and no cell runs; end the running cells whatever happens."""
        try:
            while queue or self.running:
                self._start(queue)
                if not self.running:  # other sweeps hold the remaining cells
                    time.sleep(PAUSE)
                    continue
                self.launcher.wait([attempt for attempt, _ in self.running.values()], PAUSE)
                self._collect(queue)
        finally:
            for attempt, _ in self.running.values():
                attempt.end()
            self.launcher.close()

    def _start(self, queue: Queue) -> None:
        """Start cells while there are free slots and unclaimed cells."""
        while len(self.running) < self.limits.parallel:
            job, others = queue.take()
            for other, cell in others:
                self.finish(other, cell, "elsewhere")
            if job is None:
                return
            self.event(job, "started", None)
            slot = next(n for n in range(self.limits.parallel) if n not in self.running)
            self.running[slot] = self.launcher.start(job, self.folder, slot), time.monotonic()

    def _collect(self, queue: Queue) -> None:
        """Pass on the reports of running cells, and take the cells of those that have ended."""
        for slot, (attempt, started) in list(self.running.items()):
            for value in attempt.news():
                self.event(attempt.job, "progress", value)
            if attempt.ended():
                del self.running[slot]
                cell = settle(attempt, self.folder, time.monotonic() - started)
                queue.release(attempt.job)
                self.finish(attempt.job, cell)


def settle(attempt: Attempt, folder: Path, seconds: float) -> Cell:
    """The cell of an attempt that ended after some seconds: the cell it wrote, or a cell with its status and reason."""
    status, reason = attempt.fate()
    found, _ = store.find(folder, attempt.job.identity, attempt.job.benchmark)
    if status == "ok" and found is not None:
        return found
    return _store(
        folder, blank(attempt.job, "crashed" if status == "ok" else status, reason, provenance.elapsed(seconds))
    )


def _store(folder: Path, cell: Cell) -> Cell:
    store.write(folder, cell, {})
    return cell
