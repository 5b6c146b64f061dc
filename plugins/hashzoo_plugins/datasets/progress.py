"""The progress of a download: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

import rich.progress
from rich.console import Console

FIRST, EVERY = 2.0, 10.0  # seconds before the first line, and between lines


class Progress:
    """The progress of one file, shown on stderr inside a ``with`` block. Colors follow NO_COLOR."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self.name, self.console = name, console or Console(stderr=True)
        self.first = self.done = 0
        self.total: int | None = None
        self.started = time.monotonic()
        self.printed = self.started + FIRST - EVERY
        self.bar: rich.progress.Progress | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(),
                rich.progress.DownloadColumn(),
                rich.progress.TransferSpeedColumn(),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def start(self, done: int, total: int | None) -> None:
        """Begin a transfer after ``done`` bytes of ``total``, which is None if it is unknown."""
        self.first, self.done, self.total, self.started = done, done, total, time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=done, total=total)

    def advance(self, count: int) -> None:
        """Add ``count`` transferred bytes."""
        self.done += count
        if self.bar:
            self.bar.update(self.task, completed=self.done)
        elif time.monotonic() - self.printed >= EVERY:
            self.printed = time.monotonic()
            self.console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The progress as a line, such as ``file.tar: 12 of 170 MB, 0:01:10 left``."""
        elapsed, transferred = time.monotonic() - self.started, self.done - self.first
        if not self.total:
            return f"{self.name}: {self.done / 1e6:.0f} MB"
        left = timedelta(seconds=round(elapsed / max(1, transferred) * (self.total - self.done)))
        return f"{self.name}: {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB, {left} left"
