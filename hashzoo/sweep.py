"""A benchmark's jobs through to its leaderboard: skip what is there, measure the rest, show it, write the CSVs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hashzoo import cells, launch, leaderboard, splits, tables, zoo
from hashzoo.bench import Job, data_of
from hashzoo.cells import Cell
from hashzoo.errors import UsageError
from hashzoo.hookspecs import Tracker
from hashzoo.launcher import Launcher, Limits
from hashzoo.metrics import Extra
from hashzoo.progress import EVERY, bar
from hashzoo.provenance import versions

PATIENCE = 60.0  # seconds that trackers have to catch up once the sweep is over
HASTE = 3.0  # and after Ctrl-C


def sweep(
    jobs: Sequence[Job],
    folder: Path,
    *,
    limits: Limits,
    launcher: Launcher | None = None,
    trackers: Mapping[str, Tracker] | None = None,
    rerun: str | None = None,
    extra: Extra | None = None,
) -> list[Cell]:
    """Measure what ``folder`` does not hold yet, write ``cells.csv`` and ``leaderboard.csv``, print the board.

    ``launcher`` is this machine's, unless given; ``trackers`` hear of each cell that is finished here; ``extra`` are
    the metrics of plugins: they say which scores may be starred.
    """
    cells.prepare(folder)
    console = Console()
    done: list[Cell] = []
    todo: list[Job] = []
    for job in jobs:
        found, messages = cells.find(folder, job.identity, job.benchmark)
        for message in messages:
            console.print(message, style="yellow", markup=False, soft_wrap=True)
        if found is None or again(found, job, rerun, folder):
            todo.append(job)
        else:
            done.append(found)
    if done and todo:
        console.print(f"{len(done)} of {len(jobs)} cells are there already", markup=False)
    try:
        keep_splits(todo, folder)
        if todo:
            if launcher is None or launcher.here:
                launch.warm(todo, lambda what: bar(what, console))
            with Watch(console, todo) as watch, Told(trackers or {}, console) as told:

                def event(job: Job, kind: str, value: Any) -> None:
                    watch.event(job, kind, value)
                    if kind == "done":
                        told.finished(value)

                done += launch.run(todo, folder, launcher=launcher, limits=limits, event=event)
    finally:  # also after Ctrl-C or a full disk: what is finished stands on the board
        kept, messages = cells.read_all(folder)
        board = leaderboard.write(folder, kept)
    for message in messages:
        console.print(message, style="yellow", markup=False, soft_wrap=True)
    for table in tables.render(board, width=console.width, extra=extra):
        console.print(table)
    console.print(f"{folder / 'leaderboard.csv'}  {folder / 'cells.csv'}", markup=False, soft_wrap=True)
    return done


class Told:
    """Trackers that hear of finished cells, each in a thread of its own, so that a slow one keeps nobody waiting.

    One that fails is named once and told no more; one that is behind when the sweep is over gets some seconds.
    """

    def __init__(self, trackers: Mapping[str, Tracker], console: Console, patience: float = PATIENCE) -> None:
        self.console, self.patience = console, patience
        self.queues: dict[str, queue.SimpleQueue[Cell | None]] = {name: queue.SimpleQueue() for name in trackers}
        self.threads = {
            name: threading.Thread(target=self._tell, args=(name, tracker), name=f"tracker {name}", daemon=True)
            for name, tracker in trackers.items()
        }

    def __enter__(self) -> Told:
        for thread in self.threads.values():
            thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.finished(None)
        until = time.monotonic() + (self.patience if error is None else min(self.patience, HASTE))
        for name, thread in self.threads.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._say(f"tracker {name} is {self.queues[name].qsize()} cells behind and is waited for no longer")

    def finished(self, cell: Cell | None) -> None:
        """Tell all of a cell; None says that it was the last."""
        for waiting in self.queues.values():
            waiting.put(cell)

    def _tell(self, name: str, tracker: Tracker) -> None:
        try:
            while (cell := self.queues[name].get()) is not None:
                tracker.finished(cell)
            tracker.close()
        except Exception as error:  # whatever a service far away does, cells are kept here
            self._say(f"tracker {name} failed and is told no more: {type(error).__name__}: {error}")

    def _say(self, what: str) -> None:
        self.console.print(what, style="yellow", markup=False, soft_wrap=True)


def keep_splits(jobs: Sequence[Job], folder: Path) -> None:
    """Write who is in which part, one small file a data set, where ``folder`` does not have it yet.

    Queries composed of two pictures are drawn anew from the protocol that they are composed of; it is not kept.
    """
    for job in {job.identity.data: job for job in jobs}.values():
        file = folder / "splits" / f"{job.identity.dataset}.{job.identity.data}.npz"
        if file.exists():
            continue
        data, _ = data_of(job, zoo.load(job.plugins))
        with suppress(UsageError):  # what splits.save cannot keep
            file.parent.mkdir(exist_ok=True)
            splits.save(data, file)


def again(found: Cell, job: Job, rerun: str | None, folder: Path) -> bool:
    """Whether a finished cell must be measured again: asked to, or it lacks what is asked for now.

    ``stale`` means made with other versions of the libraries than are installed here.
    """
    if rerun == "all" or (rerun == "failed" and found.status != "ok"):
        return True
    if launch.lacking(found, job, folder):
        return True
    return rerun == "stale" and found.provenance.get("versions") != versions()


def encoding(values: Mapping[str, float]) -> str:
    """What is said of a cell that encodes pictures; empty for any other report.

    >>> encoding({"encoded": 5120, "of": 60000, "pictures/s": 812.4})
    '5120 of 60000 encoded, 812 pictures/s, about 68 s left'
    >>> encoding({"pair": 0.3})
    ''
    """
    if "pictures/s" not in values:
        return ""
    done, count, rate = (values[name] for name in ("encoded", "of", "pictures/s"))
    left = (count - done) / max(rate, 1e-9)
    return f"{done:.0f} of {count:.0f} encoded, {rate:.0f} pictures/s, about {left:.0f} s left"


class Watch:
    """The live table of a sweep in a terminal; one plain line a finished cell anywhere else."""

    def __init__(self, console: Console, jobs: Sequence[Job]) -> None:
        self.console, self.metric, self.total = console, jobs[0].metrics[0], len(jobs)
        self.several = len({job.identity.dataset for job in jobs}) > 1
        self.live = console.is_terminal
        self.running: dict[str, str] = {}  # cells, and what takes them long
        self.last = time.monotonic()
        self.finished = 0
        self.started = time.monotonic()
        self.scores: dict[str, dict[int, list[str]]] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task("cells", total=len(jobs))
        self.screen: Live | None = None

    def __enter__(self) -> Watch:
        if self.live:
            self.screen = Live(self._view(), console=self.console, refresh_per_second=4, transient=True)
            self.screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen:
            self.screen.stop()

    def _name(self, job: Job, name: str) -> str:
        return f"{name} on {job.identity.dataset}" if self.several else name

    def event(self, job: Job, kind: str, value: Any) -> None:
        """Take in what happened to a cell."""
        name = self._name(job, job.title)
        if kind == "progress":
            self.running[name] = encoding(value[1])
            self._said(name)
        elif kind == "started":
            self.running[name] = ""
        else:
            self.running.pop(name, None)
            self.finished += 1
            self._line(job, value, kind == "elsewhere")
        shown = ", ".join(f"{name}: {what}" if what else name for name, what in self.running.items())
        self.bar.update(self.task, completed=self.finished, description=shown or "cells")
        if self.screen:
            self.screen.update(self._view())

    def _said(self, name: str) -> None:
        """Where there is no screen, a line now and then of a cell that encodes for long."""
        if self.running[name] and not self.live and time.monotonic() - self.last > EVERY:
            self.last = time.monotonic()
            print(f"{name}: {self.running[name]}", flush=True)

    def _line(self, job: Job, cell: Cell, elsewhere: bool) -> None:
        score = cell.metrics.get(self.metric)
        text = f"{score:.4f}" if score is not None and cell.status == "ok" else cell.status
        self.scores.setdefault(self._name(job, job.identity.method), {}).setdefault(job.identity.bits, []).append(text)
        if self.live:
            return
        left = (time.monotonic() - self.started) / self.finished * (self.total - self.finished)
        still = f"; about {left:.0f} s left" if self.finished < self.total else ""
        what = f"{self.metric} {text}" if cell.status == "ok" else f"{cell.status}: {cell.reason}"
        by = " (done by another sweep)" if elsewhere else ""
        name = self._name(job, job.title)
        print(f"[{self.finished}/{self.total}] {name}: {what}{by}{still}", flush=True)

    def _view(self) -> Group:
        widths = sorted({bits for row in self.scores.values() for bits in row})
        table = Table(title=self.metric, title_justify="left", box=None)
        for name in ["method", *(f"{bits} bits" for bits in widths)]:
            table.add_column(name)
        for method, row in sorted(self.scores.items()):
            table.add_row(method, *(" ".join(row.get(bits, [])) for bits in widths))
        return Group(table, self.bar)
