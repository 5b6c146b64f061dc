"""One process a cell: what a method does to its process, it does to no other cell."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hashzoo import cells, freezing, trained
from hashzoo.bench import Job
from hashzoo.cells import Cell
from hashzoo.errors import HashzooError, TroubleError
from hashzoo.measure import blank, measure
from hashzoo.method import NonFiniteError
from hashzoo.types import Tell

#: Imported once by the server that children are forked from, so that a cell starts in milliseconds.
PRELOAD = [
    "hashzoo.launch",
    "lightning_fabric",
    "sklearn.datasets",
    "torchvision.transforms.v2",
    "hashzoo.kernels",
]
GRACE = 5.0  # seconds between asking a process to end and ending it

Event = Callable[[Job, str, Any], None]  # job, "started" | "progress" | "done", progress or cell


@dataclass
class Running:
    """A cell in progress: its process, the pipe it reports through, and when it must have ended."""

    job: Job
    process: Any
    pipe: Connection
    deadline: float
    started: float = field(default_factory=time.monotonic)
    trouble: str = ""


def run(
    jobs: Sequence[Job], folder: Path, *, parallel: int = 1, timeout: float | None = None, event: Event
) -> list[Cell]:
    """Measure each job in a process of its own, ``parallel`` at a time; every job gets a cell, whatever happens.

    ``timeout`` is in seconds a cell. TroubleError when a finished cell cannot be kept. On KeyboardInterrupt the
    children end, finished cells stay, and the interrupt goes on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    waiting, running, finished = list(jobs), list[Running](), list[Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                event(job, "started", None)
                if job.refusal:
                    finished.append(_keep(folder, blank(job, "skipped", job.refusal)))
                    event(job, "done", finished[-1])
                    continue
                running.append(_start(context, job, folder, timeout))
            for one in _ended(running, event):
                running.remove(one)
                finished.append(_settle(one, folder, timeout))
                event(one.job, "done", finished[-1])
    finally:
        for one in running:
            _end(one)
    return finished


def warm(jobs: Sequence[Job], tell: Callable[[str], AbstractContextManager[Tell]]) -> None:
    """Extract the features of picture files that jobs share before they start, each by all cores; once for all.

    In a process each, like a cell. What goes wrong here is left to the cells, each of which will say it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(shared(job), job)
    first.pop("", None)
    for job in first.values():
        process, ours = _spawn(context, _warm, job)
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(surroundings)
    with suppress(Exception):
        freezing.warm(job, os.cpu_count() or 1, lambda done, total: pipe.send((done, total)))


def _start(context: Any, job: Job, folder: Path, timeout: float | None) -> Running:
    process, ours = _spawn(context, work, job, folder.resolve())
    return Running(job, process, ours, time.monotonic() + (timeout or float("inf")))


def _spawn(context: Any, target: Callable[..., None], *given: Any) -> tuple[Any, Connection]:
    """A process that runs ``target(*given, pipe, surroundings)``, and our end of the pipe it speaks through."""
    ours, theirs = context.Pipe(duplex=False)
    surroundings = {name: value for name, value in os.environ.items() if name.startswith("HASHZOO_")}
    process = context.Process(target=target, args=(*given, theirs, surroundings), name=given[0].title)
    process.start()
    theirs.close()
    return process, ours


def _ended(running: list[Running], event: Event) -> list[Running]:
    """Wait a little; pass on progress; return what has ended or is over time."""
    if not running:
        return []
    wait([one.process.sentinel for one in running] + [one.pipe for one in running if not one.pipe.closed], 0.5)
    for one in running:
        _listen(one, event)
    over = time.monotonic()
    return [one for one in running if not one.process.is_alive() or over > one.deadline]


def _listen(one: Running, event: Event) -> None:
    try:
        while not one.pipe.closed and one.pipe.poll():
            kind, value = one.pipe.recv()
            if kind == "trouble":
                one.trouble = value
            else:
                event(one.job, kind, value)
    except (EOFError, OSError):
        one.pipe.close()


def _settle(one: Running, folder: Path, timeout: float | None) -> Cell:
    """The cell of a process that has ended: the one it wrote, or one that says how it ended."""
    over = one.process.is_alive()
    _end(one)
    if one.trouble:
        raise TroubleError(one.trouble)
    found, _ = cells.find(folder, one.job.identity, one.job.benchmark)
    if found is not None and not over and one.process.exitcode == 0:
        return found
    if over:
        return _keep(folder, blank(one.job, "timeout", f"no result within {timeout:g} s"))
    code = one.process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; often the system ending a process that takes too much memory" if name == "SIGKILL" else ""
        return _keep(folder, blank(one.job, "crashed", f"the process was ended by {name}{hint}"))
    return _keep(folder, blank(one.job, "crashed", f"the process ended with code {code} and left no result"))


def _end(one: Running) -> None:
    if one.process.is_alive():
        one.process.terminate()
        one.process.join(GRACE)
        if one.process.is_alive():
            one.process.kill()
    one.process.join()
    if not one.pipe.closed:
        one.pipe.close()


def _keep(folder: Path, cell: Cell) -> Cell:
    cells.write(folder, cell, {})
    return cell


def log_of(job: Job, folder: Path) -> Path:
    """Where a cell's process writes what it prints, tracebacks included."""
    return cells.path(folder, job.identity, job.benchmark).with_suffix(".log")


def work(job: Job, folder: Path, pipe: Connection, surroundings: dict[str, str]) -> None:
    """What a child process does. Its output goes to a log beside the cell; an empty log is removed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C for all of us
    os.environ.update(surroundings)
    log = log_of(job, folder)
    with log.open("w", buffering=1, encoding="utf-8", errors="replace") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output

        def report(progress: float, values: dict[str, float]) -> None:
            try:
                pipe.send(("progress", (progress, values)))
            except OSError:  # who asked for this cell is gone: it is nobody's failure, and nothing is left
                log.unlink(missing_ok=True)
                os._exit(1)

        trained.path_of(log).unlink(missing_ok=True)  # of a former measurement
        try:
            cell, arrays = measure(job, report, trained.path_of(log) if job.keep else None)
        except BaseException as error:
            traceback.print_exc()
            cell, arrays = blank(job, *status_of(error)), {}
        try:
            cells.write(folder, cell, arrays)
        except TroubleError as error:
            pipe.send(("trouble", str(error)))
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def status_of(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a cell whose measurement raised.

    >>> status_of(MemoryError())
    ('oom', 'MemoryError')
    >>> status_of(NonFiniteError("loss term 'pair' is nan"))
    ('nan', "loss term 'pair' is nan")
    """
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if isinstance(error, NonFiniteError):
        return "nan", text
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "oom", named
    if isinstance(error, HashzooError):
        return "failed", text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "failed", named + where
