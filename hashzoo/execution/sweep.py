"""From jobs to a leaderboard: skip the cells that are there, measure the rest, write the CSVs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pandas import DataFrame

from hashzoo.bench.job import Job, load_job_data, load_zoo
from hashzoo.data import split_file
from hashzoo.errors import UsageError
from hashzoo.execution import prefetch, processes, scheduler
from hashzoo.execution.base import Launcher, Limits, Observer, Silent
from hashzoo.execution.trackers import TrackerThreads
from hashzoo.execution.worker import checkpoint_of
from hashzoo.hookspecs import Tracker
from hashzoo.results import store
from hashzoo.results.board import write_board
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode
from hashzoo.results.provenance import VERSIONS, versions


@dataclass(frozen=True)
class Sweep:
    """How a sweep runs: where, within which limits, what is measured again, and who is told.

    ``launcher`` is this machine's unless given; ``trackers`` receive each cell that is finished here. ``rerun`` is
    "failed", "versions", "all" or None. ``installed`` has the digests of the installed code, for the column ``stale``
    of the CSV files.
    """

    limits: Limits = field(default_factory=Limits)
    launcher: Launcher | None = None
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    rerun: str | None = None
    installed: InstalledCode | None = None


def sweep(
    jobs: Sequence[Job], folder: Path, how: Sweep | None = None, observer: Observer | None = None
) -> tuple[list[Cell], DataFrame]:
    """Measure the cells that ``folder`` does not hold yet, and write ``cells.csv`` and ``leaderboard.csv``.

    Args:
        jobs: The cells of the benchmark.
        folder: The results folder; it is made if needed.
        how: Where and within which limits cells run.
        observer: Shows progress and warnings.

    Returns:
        The cells of these jobs, and the board of all cells in the folder.
    """
    how, observer = how or Sweep(), observer or Silent()
    store.prepare(folder)
    done, todo = _sorted_out(jobs, folder, how.rerun, observer)
    if done and todo:
        observer.note(f"{len(done)} of {len(jobs)} cells are there already")
    try:
        keep_splits(todo, folder)
        if todo:
            processes.libraries.update(_libraries(todo))
            if how.launcher is None or how.launcher.here:
                prefetch.extract_features(todo, observer.features)
            done += _measured(todo, folder, how, observer)
        _remove_trainings(jobs, done, folder)
    finally:  # also after Ctrl-C or on a full disk: finished cells are on the board
        cells, messages = store.read_all(folder)
        board = write_board(folder, cells, how.installed)
    for message in messages:
        observer.note(message)
    return done, board


def _sorted_out(
    jobs: Sequence[Job], folder: Path, rerun: str | None, observer: Observer
) -> tuple[list[Cell], list[Job]]:
    """The cells that the folder holds already, and the jobs to do."""
    done, todo, lacking = list[Cell](), list[Job](), Counter[str]()
    for job in jobs:
        found, messages = store.find(folder, job.identity, job.benchmark)
        for message in messages:
            observer.note(message)
        if found is None or again(found, job, rerun, folder):
            todo.append(job)
            if found is not None and found.status == "ok":
                lacking.update(name for name in job.metrics if name not in found.metrics)
        else:
            done.append(found)
    for name, count in lacking.items():
        observer.note(f"{count} finished cell{'s' * (count > 1)} without {name}: measured again")
    return done, todo


def _libraries(jobs: Sequence[Job]) -> dict[str, None]:
    """The libraries that the backbones of some jobs import."""
    found = {}
    for job in {job.identity.backbone: job for job in jobs}.values():
        known = load_zoo(job.inputs).outline("backbone", job.identity.backbone, job.inputs.backbone_options)
        found.update(dict.fromkeys(known.libraries if known else ()))
    return found


def _measured(todo: Sequence[Job], folder: Path, how: Sweep, observer: Observer) -> list[Cell]:
    with observer.cells(todo), TrackerThreads(how.trackers, observer.note) as trackers:
        nested, finished = [job for job in todo if job.nested], list[Cell]()

        def event(job: Job, kind: str, value: Any) -> None:
            observer.event(job, kind, value)
            if kind in ("done", "elsewhere") and job.nested:
                finished.append(value)
                _remove_trainings([one for one in nested if one.training == job.training], finished, folder)
            if kind == "done":
                trackers.finished(value)
            elif kind == "progress":
                trackers.progress(job, value[1])

        return scheduler.run_cells(todo, folder, launcher=how.launcher, limits=how.limits, event=event)


def _remove_trainings(jobs: Sequence[Job], done: Sequence[Cell], folder: Path) -> None:
    """Remove the trainings that several nested lengths shared, except those that a cell still needs."""
    over = {cell.identity.key for cell in done if cell.status in ("ok", "nan", "skipped")}
    needed = {job.training.key for job in jobs if job.identity.key not in over}
    for job in jobs:
        if job.nested and job.training.key not in needed:
            checkpoint_of(job, folder).unlink(missing_ok=True)


def keep_splits(jobs: Sequence[Job], folder: Path) -> None:
    """Write the split of each dataset, one small file each, unless ``folder`` has it.

    Composed queries are drawn from another protocol and are not written.
    """
    for job in {job.identity.data: job for job in jobs}.values():
        file = folder / store.splits_file(job.identity)
        if file.exists():
            continue
        data, _ = load_job_data(job, load_zoo(job.inputs))
        with suppress(UsageError):  # a split that cannot be written, such as composed queries
            file.parent.mkdir(exist_ok=True)
            split_file.save(data, file)


def again(found: Cell, job: Job, rerun: str | None, folder: Path) -> bool:
    """Whether a finished cell has to be measured again, because of ``rerun`` or because it is incomplete.

    ``rerun="versions"`` measures again what was measured with other versions of the libraries than the installed ones.
    """
    if rerun == "all" or (rerun == "failed" and found.status != "ok"):
        return True
    if scheduler.incomplete(found, job, folder):
        return True
    return rerun in VERSIONS and found.provenance.get("versions") != versions()
