"""The live table of a sweep: cells running, done and failed, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from hashzoo.api.progress import EVERY, bar, is_live
from hashzoo.bench.job import Job
from hashzoo.errors import printable
from hashzoo.execution.base import Silent
from hashzoo.results.cell import Cell
from hashzoo.results.durations import Durations
from hashzoo.results.render import duration
from hashzoo.results.table import Column, Entry, TextTable
from hashzoo.types import ProgressCallback


def encoding_progress(values: Mapping[str, float]) -> str:
    """The text about a cell that encodes images; empty for any other report.

    >>> encoding_progress({"encoded": 5120, "of": 60000, "images/s": 812.4})
    '5120 of 60000 encoded, 812 images/s, about 68 s left'
    >>> encoding_progress({"pair": 0.3})
    ''
    """
    if "images/s" not in values:
        return ""
    done, count, rate = (values[name] for name in ("encoded", "of", "images/s"))
    left = (count - done) / max(rate, 1e-9)
    return f"{done:.0f} of {count:.0f} encoded, {rate:.0f} images/s, about {left:.0f} s left"


#: Called for each finished cell: cells done, cells in all, the cell.
Callback = Callable[[int, int, Cell], None]


class Progress(Silent):
    """An observer that calls a function for each finished cell."""

    def __init__(self, callback: Callback) -> None:
        self.callback, self.done, self.total = callback, 0, 0

    def cells(self, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
        """Count the cells that will be measured."""
        self.done, self.total = 0, len(jobs)
        return nullcontext()

    def event(self, job: Job, kind: str, value: Any) -> None:
        """Pass on a finished cell."""
        if kind in ("done", "elsewhere"):
            self.done += 1
            self.callback(self.done, self.total, value)


class Screen:
    """An observer that shows a sweep: a live table in a terminal or notebook, plain lines anywhere else.

    Attributes:
        past: The seconds of cells that were measured before, from which the time left is estimated.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.past = Durations()
        self.table: Watch | None = None

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, style="yellow", markup=False, soft_wrap=True)

    def features(self, what: str) -> AbstractContextManager[ProgressCallback]:
        """A bar with the rate and the time left."""
        return bar(what, self.console)

    def cells(self, jobs: Sequence[Job]) -> AbstractContextManager[Watch]:
        """The live table of these cells."""
        self.table = Watch(self.console, jobs, self.past)
        return self.table

    def event(self, job: Job, kind: str, value: Any) -> None:
        """Pass on to the live table what happened to a cell."""
        if self.table:
            self.table.event(job, kind, value)


class Watch:
    """The live table of a sweep in a terminal or notebook; elsewhere, a plain line for each finished cell."""

    def __init__(self, console: Console, jobs: Sequence[Job], past: Durations | None = None) -> None:
        self.durations = past or Durations()
        self.pending = {job.identity.key: job for job in jobs if not job.refusal}
        self.started: dict[str, float] = {}  # key of a running cell -> when it started
        self.most = 1  # cells that ran at once
        self.console, self.metric, self.total = console, jobs[0].metrics[0], len(jobs)
        self.several = len({job.identity.dataset for job in jobs}) > 1
        self.live = is_live(console)
        self.running: dict[str, str] = {}  # title of a cell -> progress of its encoding
        self.last = time.monotonic()
        self.finished = 0
        self.scores: dict[str, dict[int, list[str]]] = {}
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self.task = self.bar.add_task("cells", total=len(jobs), left=self.left())
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
        """Show what happened to a cell."""
        name = self._name(job, job.title)
        if kind == "progress":
            self.running[name] = encoding_progress(value[1])
            self._said(name)
        elif kind == "started":
            self.running[name] = ""
            self.started[job.identity.key] = time.monotonic()
            self.most = max(self.most, len(self.started))
        else:
            self.running.pop(name, None)
            self.started.pop(job.identity.key, None)
            self.pending.pop(job.identity.key, None)
            self.durations.add(value)
            self.finished += 1
            self._line(job, value, kind == "elsewhere")
        shown = ", ".join(f"{name}: {what}" if what else name for name, what in self.running.items())
        self.bar.update(self.task, completed=self.finished, description=shown or "cells", left=self.left())
        if self.screen:
            self.screen.update(self._view())

    def left(self) -> str:
        """The time left, from measured cells of the same methods; empty if there are no cells left.

        Cells of methods that no cell tells about are counted instead.
        """
        now = time.monotonic()
        seconds, unknown = 0.0, 0
        for key, job in self.pending.items():
            expected = self.durations.estimate(job.identity)
            if expected is None:
                unknown += 1
            else:
                seconds += max(0.0, expected - (now - self.started.get(key, now)))
        known = len(self.pending) - unknown
        parts = [f"about {duration(seconds / min(self.most, known))} left"] if known else []
        cells = "cell" if unknown == 1 else "cells"
        if unknown:
            parts.append(f"{unknown} {'more ' if known else ''}{cells} of methods that were not measured yet")
        return " and ".join(parts)

    def _said(self, name: str) -> None:
        """Without a live table, print a line now and then about a cell that encodes for long."""
        if self.running[name] and not self.live and time.monotonic() - self.last > EVERY:
            self.last = time.monotonic()
            print(f"{name}: {self.running[name]}", flush=True, file=self.console.file)

    def _line(self, job: Job, cell: Cell, elsewhere: bool) -> None:
        score = cell.metrics.get(self.metric)
        text = f"{score:.4f}" if score is not None and cell.status == "ok" else cell.status
        self.scores.setdefault(self._name(job, job.identity.method), {}).setdefault(job.identity.bits, []).append(text)
        if self.live:
            return
        still = f"; {left}" if (left := self.left()) else ""
        what = f"{self.metric} {text}" if cell.status == "ok" else f"{cell.status}: {cell.reason}"
        by = " (done by another sweep)" if elsewhere else ""
        name = self._name(job, job.title)
        line = f"[{self.finished}/{self.total}] {name}: {what}{by}{still}"
        print(line, flush=True, file=self.console.file)

    def _view(self) -> Group:
        widths = sorted({bits for row in self.scores.values() for bits in row})
        columns = [Column("method", text=True, identifies=True)]
        columns += [Column(f"{bits} bits", text=True) for bits in widths]
        rows = [
            [Entry(printable(method)), *(Entry(" ".join(row.get(bits, []))) for bits in widths)]
            for method, row in sorted(self.scores.items())
        ]
        table = TextTable(columns, rows, self.metric, ruled=False, advice="the leaderboard has all scores")
        return Group(table, self.bar)
