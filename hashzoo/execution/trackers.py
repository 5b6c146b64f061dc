"""Threads that pass finished cells on to experiment trackers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping

from hashzoo.hookspecs import Tracker
from hashzoo.results.cell import Cell

PATIENCE = 60.0  # seconds that trackers have to catch up once the sweep is over


HASTE = 3.0  # and after Ctrl-C


class TrackerThreads:
    """Passes finished cells to trackers, each in a thread of its own, so that a slow tracker does not delay the sweep.

    A tracker that fails is named once and receives no more cells; one that is behind after the sweep gets some seconds.
    """

    def __init__(
        self, trackers: Mapping[str, Tracker], note: Callable[[str], None], patience: float = PATIENCE
    ) -> None:
        self.note, self.patience = note, patience
        self.queues: dict[str, queue.SimpleQueue[Cell | None]] = {name: queue.SimpleQueue() for name in trackers}
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
                self.note(f"tracker {name} is {self.queues[name].qsize()} cells behind; the sweep ends without it")

    def finished(self, cell: Cell | None) -> None:
        """Pass a cell to all trackers; None says that it was the last."""
        for waiting in self.queues.values():
            waiting.put(cell)

    def _pass_on(self, name: str, tracker: Tracker) -> None:
        try:
            while (cell := self.queues[name].get()) is not None:
                tracker.finished(cell)
            tracker.close()
        except Exception as error:  # a failing service must not harm the sweep
            self.note(f"tracker {name} failed and receives no more cells: {type(error).__name__}: {error}")
