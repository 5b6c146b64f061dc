"""Progress of work on images: a bar with rate and time left in a terminal or notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hashzoo.types import ProgressCallback

EVERY = 10.0  # seconds between plain lines


def is_live(console: Console) -> bool:
    """Whether a console shows output that changes in place: a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def bar(what: str, console: Console | None = None) -> Iterator[ProgressCallback]:
    """A progress callback that shows images done, rate and time left. Work that ends at once shows nothing."""
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
    )
    task = shown.add_task(what, total=None, rate=0.0)

    def tell(done: int, total: int) -> None:
        nonlocal last, latest
        latest, now = (done, total), time.monotonic()
        rate = done / max(now - started, 1e-9)
        shown.update(task, completed=done, total=total, rate=rate)
        if not is_live(console) and now - last > EVERY:
            last = now
            left = (total - done) / max(rate, 1e-9)
            print(
                f"{what}: {done} of {total}, {rate:.0f} images/s, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    with shown if is_live(console) else nullcontext():  # a disabled one ends with an empty line in some versions
        yield tell
    done, _ = latest
    if done and time.monotonic() - started > 1:
        seconds = time.monotonic() - started
        print(f"{what}: {done} in {seconds:.0f} s, {done / seconds:.0f} images/s", file=sys.stderr, flush=True)
