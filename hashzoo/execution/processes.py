"""Child processes: how they start, how they report, and how they end with their parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

#: Modules that the fork server imports once, so that a cell starts in milliseconds.
PRELOAD = [
    "hashzoo.execution.worker",
    "sklearn.datasets",
    "torchvision.transforms.v2",
    "hashzoo.hamming.kernels",
    "hashzoo.execution.preload",
]


#: Python's resource tracker cleans up after a cell that was killed; its warning about that is not for the user.
TRACKER_WARNING = "ignore:resource_tracker:UserWarning"


def spawn(target: Callable[..., None], *given: Any, **more: str) -> tuple[Any, Connection]:
    """Start a process that runs ``target(*given, pipe, environment)``.

    Args:
        target: The function to run.
        *given: Its first arguments; the first one has a ``title``, which names the process.
        **more: Environment variables to set in addition to those that hashzoo reads.

    Returns:
        The process, and the end of the pipe that its reports arrive at.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    if TRACKER_WARNING not in sys.warnoptions:
        sys.warnoptions.append(TRACKER_WARNING)  # the tracker starts with these options
    ours, theirs = context.Pipe(duplex=False)
    # the fork server keeps the environment it started with, and a cluster can assign GPUs later
    environment = {name: os.environ[name] for name in os.environ if name.startswith(("HASHZOO_", "CUDA_VISIBLE_"))}
    environment |= more
    process = context.Process(target=target, args=(*given, theirs, environment), name=given[0].title)
    with _without_main():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module: a child would import it again, which can be a script or a cluster's worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def messages(pipe: Connection) -> Iterator[tuple[str, Any]]:
    """The messages waiting in a pipe, as kinds and values. The pipe is closed if its other end is."""
    try:
        while not pipe.closed and pipe.poll():
            yield pipe.recv()
    except (EOFError, OSError):
        pipe.close()


def isolate(environment: dict[str, str]) -> None:
    """Make this process end with its parent, lead a process group of its own, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the fork server ends with the sweep
    os.environ.update(environment)
