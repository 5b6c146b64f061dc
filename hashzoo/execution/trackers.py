"""Threads that pass finished cells, and the epochs of running ones, on to experiment trackers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from hashzoo.bench.job import Job
from hashzoo.hookspecs import Tracker
from hashzoo.results.cell import Cell

PATIENCE = 60.0  # seconds that trackers have to catch up once the sweep is over


HASTE = 3.0  # and after Ctrl-C

_Message = tuple[str, tuple[Any, ...]]  # the name of a method of the tracker, and its arguments


class TrackerThreads:
    """Passes finished cells to trackers, each in a thread of its own, so that a slow tracker does not delay the sweep.

    A tracker that fails is named once and receives no more cells; one that is behind after the sweep gets some seconds.
    """

    def __init__(
        self, trackers: Mapping[str, Tracker], note: Callable[[str], None], patience: float = PATIENCE
    ) -> None:
        self.note, self.patience = note, patience
        self.queues: dict[str, queue.SimpleQueue[_Message | None]] = {name: queue.SimpleQueue() for name in trackers}
        self.passed, self.recorded = 0, dict.fromkeys(trackers, 0)  # cells
        self.of_epochs = {name for name, tracker in trackers.items() if hasattr(tracker, "epoch")}
        self.threads = {
            name: threading.Thread(target=self._pass_on, args=(name, tracker), name=f"tracker {name}", daemon=True)
            for name, tracker in trackers.items()
        }

    def __enter__(self) -> TrackerThreads:
        for thread in self.threads.values():
            thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.finished(None)
        until = time.monotonic() + (self.patience if error is None else min(self.patience, HASTE))
        for name, thread in self.threads.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self.note(
                    f"tracker {name} is {self.passed - self.recorded[name]} cells behind; the sweep ends without it"
                )

    def finished(self, cell: Cell | None) -> None:
        """Pass a cell to all trackers; None says that it was the last."""
        self.passed += cell is not None
        for waiting in self.queues.values():
            waiting.put(None if cell is None else ("finished", (cell,)))

    def progress(self, job: Job, values: Mapping[str, float]) -> None:
        """Pass the reported values of a running cell to the trackers of epochs, if they are those of an epoch."""
        if "epoch" in values:
            of_epoch = {name: value for name, value in values.items() if name != "epoch"}
            for name in self.of_epochs:
                self.queues[name].put(("epoch", (job, int(values["epoch"]), of_epoch)))

    def _pass_on(self, name: str, tracker: Tracker) -> None:
        try:
            while (message := self.queues[name].get()) is not None:
                method, arguments = message
                getattr(tracker, method)(*arguments)
                self.recorded[name] += method == "finished"
            tracker.close()
        except Exception as error:  # a failing service must not harm the sweep
            self.note(f"tracker {name} failed and receives no more cells: {type(error).__name__}: {error}")
