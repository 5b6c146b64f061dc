"""How processes of ours begin, what they tell us, and how they are kept to themselves."""

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

#: Imported once by the server that children are forked from, so that a cell starts in milliseconds.
PRELOAD = [
    "hashzoo.execution.worker",
    "sklearn.datasets",
    "torchvision.transforms.v2",
    "hashzoo.hamming.kernels",
    "hashzoo.execution.preload",
]


#: What a cell held that was ended is cleared away by Python's tracker of resources, which need not tell.
CLEARED = "ignore:resource_tracker:UserWarning"


def spawn(target: Callable[..., None], *given: Any, **more: str) -> tuple[Any, Connection]:
    """A process that runs ``target(*given, pipe, surroundings)``, and our end of the pipe it speaks through.

    Its surroundings are ours that hashzoo reads, and ``more``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    if CLEARED not in sys.warnoptions:
        sys.warnoptions.append(CLEARED)  # which the tracker is started with
    ours, theirs = context.Pipe(duplex=False)
    # the server may be older than what a cluster has said since of the GPU that is ours now
    surroundings = {name: os.environ[name] for name in os.environ if name.startswith(("HASHZOO_", "CUDA_VISIBLE_"))}
    surroundings |= more
    process = context.Process(target=target, args=(*given, theirs, surroundings), name=given[0].title)
    with _without_main():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _without_main() -> Iterator[None]:
    """A child would run again the script that we are, which may be a cluster's worker: a second, and for nothing."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def heard(pipe: Connection) -> Iterator[tuple[str, Any]]:
    """What has been said through a pipe and not been heard yet: kinds and values. It is closed where it has ended."""
    try:
        while not pipe.closed and pipe.poll():
            yield pipe.recv()
    except (EOFError, OSError):
        pipe.close()


def alone(surroundings: dict[str, str]) -> None:
    """Make this process one that ends with who started it, and with all that it starts, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the server that forks us ends with the sweep
    os.environ.update(surroundings)
