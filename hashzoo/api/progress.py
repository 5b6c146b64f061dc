"""Long work on images, shown: a bar with rate and time left in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hashzoo.types import ProgressCallback

EVERY = 10.0  # seconds between plain lines


@contextmanager
def bar(what: str, console: Console | None = None) -> Iterator[ProgressCallback]:
    """Gives a function to be told how many of how many images are done. Work that ends at once shows nothing."""
    console = console or Console(stderr=True)
    started, last, latest = time.monotonic(), time.monotonic(), (0, 0)
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = shown.add_task(what, total=None, rate=0.0)

    def tell(done: int, total: int) -> None:
        nonlocal last, latest
        latest, now = (done, total), time.monotonic()
        rate = done / max(now - started, 1e-9)
        shown.update(task, completed=done, total=total, rate=rate)
        if not console.is_terminal and now - last > EVERY:
            last = now
            left = (total - done) / max(rate, 1e-9)
            print(
                f"{what}: {done} of {total}, {rate:.0f} images/s, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    with shown:
        yield tell
    done, _ = latest
    if done and time.monotonic() - started > 1:
        seconds = time.monotonic() - started
        print(f"{what}: {done} in {seconds:.0f} s, {done / seconds:.0f} images/s", file=sys.stderr, flush=True)
