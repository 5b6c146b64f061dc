"""Processes: how children start, report and end with their parent, and how a process keeps its memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

#: Modules that the fork server imports once, so that a cell starts in milliseconds.
PRELOAD = [
    "hashzoo.execution.worker",
    "sklearn.datasets",
    "torchvision.transforms.v2",
    "hashzoo.hamming.kernels",
    "hashzoo.execution.preload",
]


#: Modules that the fork server of this process imports before them, such as a library that backbones need.
libraries: dict[str, None] = {}


#: Python's resource tracker cleans up after a cell that was killed; its warning about that is not for the user.
TRACKER_WARNING = "ignore:resource_tracker:UserWarning"


#: Parameters of glibc's ``mallopt``: map no block by itself, return none to the system, grow by 64 MB, and one heap for
#: all threads, since that of another thread cannot hold large blocks.
ALLOCATOR = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 2**26), "M_ARENA_MAX": (-8, 1)}


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next allocations; only glibc has such a switch.

    By default, every tensor above 32 MB is mapped anew and its pages are cleared. A forward pass of a convolutional
    network can spend more time on that than on its arithmetic.
    """
    with suppress(OSError, AttributeError, TypeError):  # other C libraries and systems
        library = ctypes.CDLL(None)
        for parameter, value in ALLOCATOR.values():
            library.mallopt(parameter, value)


def spawn(target: Callable[..., None], *given: Any, **more: str) -> tuple[Any, Connection]:
    """Start a process that runs ``target(*given, pipe, environment)``.

    Args:
        target: The function to run.
        *given: Its first arguments; the first one has a ``title``, which names the process.
        **more: Environment variables to set in addition to those that hashzoo reads.

    Returns:
        The process, and the end of the pipe that its reports arrive at.
    """
    context: Any = multiprocessing.get_context(start_method())
    if start_method() == "forkserver":
        context.set_forkserver_preload([*libraries, *PRELOAD])
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


def start_method() -> str:
    """How a child starts: forked from a server that has imported torch, or a new interpreter on systems without one."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


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
    with suppress(OSError, AttributeError):  # Windows has no process groups
        os.setpgid(0, 0)
    if not _killed_with_parent():
        end_with_parent()
    os.environ.update(environment)


def _killed_with_parent() -> bool:
    """Ask Linux to kill this process when its parent ends; False elsewhere. The fork server ends with the sweep."""
    try:
        return bool(ctypes.CDLL(None).prctl(1, signal.SIGKILL) == 0)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError, TypeError):  # as Windows and macOS answer
        return False


def end_with_parent(folder: Path | None = None) -> None:
    """End this process as soon as its parent has ended, however it ended; first remove ``folder``."""
    threading.Thread(target=_wait_for_parent, args=(folder,), daemon=True).start()


def _wait_for_parent(folder: Path | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def end_all(process: Any, grace: float) -> None:
    """End a process that leads a group, and what it started; it has ``grace`` seconds between SIGTERM and SIGKILL.

    On Windows, which has no process groups, what a process started that has ended already is not found.
    """
    started = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    if process.is_alive():
        process.terminate()
        process.join(grace)
        if process.is_alive():
            process.kill()
    process.join()
    with suppress(OSError, AttributeError):  # the group is usually empty by now
        os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with suppress(psutil.Error):
            one.kill()
