"""The loop of a sweep: cells go out to a launcher as there is room, and each comes back with a result or a reason.

A cell is claimed by a lease before it starts, so that several of these loops, on one machine or on many, can work on
the same folder; what another has finished in the meantime is taken over from the folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hashzoo import cells, freezing, provenance, trained
from hashzoo.bench import Job
from hashzoo.cells import Cell
from hashzoo.launcher import Attempt, Launcher, Limits
from hashzoo.leases import Leases
from hashzoo.local import GRACE, Local
from hashzoo.measure import blank
from hashzoo.processes import alone, spawn
from hashzoo.types import Tell

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
                if not self.leases.take(_lease(job)):
                    self._next[id(job)] = time.monotonic() + AGAIN
                elif found := self._done(job):  # finished between our look and our claim
                    self.leases.give_back(_lease(job))
                    finished.append((job, found))
                else:
                    self.waiting.remove(job)
                    return job, finished
        return None, finished

    def release(self, job: Job) -> None:
        """Give back the lease of a cell of ours."""
        self.leases.give_back(_lease(job))

    def _done(self, job: Job) -> Cell | None:
        """The cell that has appeared since the sweep began, which takes it off the list."""
        if self._look(job) == self._before[id(job)]:
            return None
        found, _ = cells.find(self.folder, job.identity, job.benchmark)
        if found is None or lacking(found, job, self.folder):
            return None
        self.waiting.remove(job)
        return found

    def _look(self, job: Job) -> tuple[int, int] | None:
        with suppress(OSError):
            seen = cells.path(self.folder, job.identity, job.benchmark).stat()
            return seen.st_ino, seen.st_mtime_ns
        return None


def lacking(found: Cell, job: Job, folder: Path) -> bool:
    """Whether a cell that went well lacks what the job asks for: a metric, the weights, deterministic algorithms."""
    if found.status != "ok":
        return False
    if job.deterministic and not found.provenance.get("deterministic"):
        return True
    kept = trained.path_of(cells.path(folder, job.identity, job.benchmark))
    return any(name not in found.metrics for name in job.metrics) or (job.keep and not kept.is_file())


def _lease(job: Job) -> str:
    return cells.path(Path(), job.identity, job.benchmark).with_suffix(".lease").name


def run(
    jobs: Sequence[Job],
    folder: Path,
    *,
    launcher: Launcher | None = None,
    limits: Limits | None = None,
    event: Event = lambda job, kind, value: None,
) -> list[Cell]:
    """Measure each job, ``limits.parallel`` at a time; every job gets a cell, whatever happens.

    TroubleError when a finished cell cannot be kept. On KeyboardInterrupt what runs is ended, finished cells stay,
    and the interrupt goes on.
    """
    limits = limits or Limits()
    launcher = launcher or Local(limits)
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
        leases.tidy()
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
    found, _ = cells.find(folder, one.job.identity, one.job.benchmark)
    if status == "ok" and found is not None:
        return found
    return _keep(folder, blank(one.job, "crashed" if status == "ok" else status, reason, provenance.elapsed(seconds)))


def _keep(folder: Path, cell: Cell) -> Cell:
    cells.write(folder, cell, {})
    return cell


def one(job: Job, folder: Path, limits: Limits) -> Cell:
    """Measure one cell that is claimed already, in a process of its own: what a launcher runs on another machine."""
    launcher = Local(limits)
    child = launcher.start(job, folder, 0)
    try:
        while not child.ended():
            launcher.wait([child], PAUSE)
            list(child.news())
        return _settle(child, folder, time.monotonic() - child.started)
    finally:
        child.end()


def carried(job: Job, limits: Limits) -> dict[str, bytes]:
    """The files of one cell measured by :func:`one`, by name: for machines that do not share the results folder."""
    with tempfile.TemporaryDirectory(prefix="hashzoo-") as place:
        cells.prepare(Path(place))
        one(job, Path(place), limits)
        return {file.name: file.read_bytes() for file in sorted((Path(place) / "cells").iterdir())}


def received(job: Job, folder: Path, files: Mapping[str, bytes]) -> None:
    """Keep in a results folder the files that :func:`carried` gave of a cell, and no other of it: its JSON last."""
    target = cells.path(folder, job.identity, job.benchmark)
    former = {
        file for file in target.parent.glob(f"{target.stem}.*") if file.suffix in (".npz", ".log", ".safetensors")
    }
    for name, data in sorted(files.items(), key=lambda item: item[0] == target.name):
        cells.replace_bytes(target.with_name(Path(name).name), data)
    for file in former:
        if file.name not in files:
            with suppress(OSError):  # a file too many is no harm
                file.unlink(missing_ok=True)


def warm(jobs: Sequence[Job], tell: Callable[[str], AbstractContextManager[Tell]]) -> None:
    """Extract the features of picture files that jobs share before they start, each by all cores; once for all.

    In a process each, like a cell. What goes wrong here is left to the cells, each of which will say it.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(shared(job), job)
    first.pop("", None)
    for job in first.values():
        process, ours = spawn(_warm, job)
        try:
            with (
                tell(f"features of {job.identity.dataset} by {job.identity.backbone}") as said,
                suppress(EOFError, OSError),
            ):
                while True:
                    said(*ours.recv())
        finally:
            ours.close()  # so that the next word ends it, and it cleans up behind itself
            process.join(GRACE)
            process.kill()
            process.join()


def shared(job: Job) -> str:
    """What jobs with the same features of picture files have in common; empty where there is nothing to share."""
    identity, found = job.identity, job.inspection
    if job.refusal or not job.stored or found is None or not found.pools:
        return ""
    random = identity.seed if identity.backbone_options.get("weights", "random") == "random" else 0
    parts = [identity.backbone, identity.backbone_options, random, sorted(set(found.pools.values()))]
    return cells.canonical([*parts, identity.budget["maps"], identity.budget["precision"]])


def _warm(job: Job, pipe: Connection, surroundings: dict[str, str]) -> None:
    alone(surroundings)
    with suppress(Exception):
        freezing.warm(job, os.cpu_count() or 1, lambda done, total: pipe.send((done, total)))
