"""The launcher of this machine: one process a cell, forked from a server that has loaded torch already."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hashzoo.bench.job import Job
from hashzoo.errors import EnvironmentFailure, describe_exit
from hashzoo.execution.base import Limits
from hashzoo.execution.processes import heard, spawn
from hashzoo.execution.worker import log_of, work

GRACE = 5.0  # seconds between asking a process to end and ending it
LOG = 1 << 24  # bytes that a cell may print: beyond, what it said is dropped


class LocalLauncher:
    """One process a cell on this machine; on several GPUs the cells take turns."""

    here = True

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._gpus: list[str] = []

    def start(self, job: Job, folder: Path, slot: int) -> Child:
        """Start a cell. ``slot`` is the lowest number that no running cell has."""
        seen = {}
        if job.device == "cuda":
            self._gpus = self._gpus or gpus()
            seen = {"CUDA_VISIBLE_DEVICES": ",".join(turn(self._gpus, slot, job.devices))}
        process, pipe = spawn(work, job, folder.resolve(), self.limits.memory, **seen)
        return Child(job, process, pipe, log_of(job, folder), self.limits.timeout)

    def wait(self, attempts: Sequence[Any], seconds: float) -> None:
        """Until one has ended or has something to say, or for some seconds."""
        children = [one for one in attempts if isinstance(one, Child)]
        wait([one.process.sentinel for one in children] + [c.pipe for c in children if not c.pipe.closed], seconds)

    def close(self) -> None:
        """Nothing is left to close: the server ends with this process."""


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def turn(there: Sequence[str], slot: int, count: int) -> list[str]:
    """The GPUs of the cell in a slot that needs so many: the next ones in a round.

    >>> [turn(["0", "1", "2"], slot, 1) for slot in range(4)]
    [['0'], ['1'], ['2'], ['0']]
    >>> [turn(["0", "1", "2", "3"], slot, 2) for slot in range(3)]
    [['0', '1'], ['2', '3'], ['0', '1']]
    """
    first = slot * count % max(len(there) // count * count, 1)
    return list(there[first : first + count])


@dataclass
class Child:
    """A cell in progress: its process, and the pipe it reports through."""

    job: Job
    process: Any
    pipe: Connection
    log: Path
    timeout: float | None
    started: float = field(default_factory=time.monotonic)
    trouble: str = ""
    written: bool = False
    over: bool = False  # ended because its time was

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """The progress told since the last call, and the last values."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG:
                with self.log.open("r+b") as file:  # never empty in between: its writer clears away empty ones
                    file.write(f"(the first {LOG >> 20} MiB of the output, or more, were dropped)\n".encode())
                    file.truncate()
        for kind, value in heard(self.pipe):
            if kind == "progress":
                yield value
            elif kind == "trouble":
                self.trouble = value
            else:
                self.written = True

    def ended(self) -> bool:
        """Whether it has ended, by itself or because its time is over."""
        if self.process.is_alive() and self.timeout and time.monotonic() - self.started > self.timeout:
            self.over = True
        return self.over or not self.process.is_alive()

    def fate(self) -> tuple[str, str]:
        """How it ended; EnvironmentFailure where a result could not be kept."""
        list(self.news())
        self.end()
        code = self.process.exitcode
        if self.trouble:
            raise EnvironmentFailure(self.trouble)
        if code == 0 and self.written:
            return "ok", ""
        if self.over:
            return "timeout", f"no result within {self.timeout:g} s"
        return "crashed", f"the process {describe_exit(code)}"

    def end(self) -> None:
        """End it, and all that it started."""
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(GRACE)
            if self.process.is_alive():
                self.process.kill()
        self.process.join()
        with suppress(OSError):  # of its group nobody is left, mostly
            os.killpg(self.process.pid, signal.SIGKILL)
        if not self.pipe.closed:
            self.pipe.close()
