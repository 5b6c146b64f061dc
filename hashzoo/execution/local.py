"""The launcher of this machine: one process for each cell, forked from a server that has imported torch."""

from __future__ import annotations

import os
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
from hashzoo.execution.processes import end_all, messages, spawn
from hashzoo.execution.worker import log_of, work

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
LOG = 1 << 24  # bytes of output that are kept of a cell


class LocalLauncher:
    """Runs each cell in a process of its own; cells are assigned to the GPUs in turn."""

    here = True

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._gpus: list[str] = []

    def start(self, job: Job, folder: Path, slot: int) -> Child:
        """Start a cell. ``slot`` is the lowest number that no running cell has."""
        seen, (kind, _, number) = {}, job.execution.device.partition(":")
        if kind == "cuda":
            self._gpus = self._gpus or gpus()
            used = [self._gpus[int(number)]] if number else assign(self._gpus, slot, job.execution.devices)
            seen, job = {"CUDA_VISIBLE_DEVICES": ",".join(used)}, job.on(kind)  # the process sees no other GPU
        process, pipe = spawn(work, job, folder.resolve(), self.limits.memory, **seen)
        return Child(job, process, pipe, log_of(job, folder), self.limits.timeout)

    def wait(self, attempts: Sequence[Any], seconds: float) -> None:
        """Wait until one has ended or has a report, or for some seconds."""
        children = [one for one in attempts if isinstance(one, Child)]
        wait([one.process.sentinel for one in children] + [c.pipe for c in children if not c.pipe.closed], seconds)

    def close(self) -> None:
        """Do nothing: the fork server ends with this process."""


def gpus() -> list[str]:
    """The GPUs that this process can use, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def assign(devices: Sequence[str], slot: int, count: int) -> list[str]:
    """The ``count`` GPUs of the cell in a slot, round-robin.

    >>> [assign(["0", "1", "2"], slot, 1) for slot in range(4)]
    [['0'], ['1'], ['2'], ['0']]
    >>> [assign(["0", "1", "2", "3"], slot, 2) for slot in range(3)]
    [['0', '1'], ['2', '3'], ['0', '1']]
    """
    first = slot * count % max(len(devices) // count * count, 1)
    return list(devices[first : first + count])


@dataclass
class Child:
    """A cell in progress: its process, and the pipe that its reports arrive through."""

    job: Job
    process: Any
    pipe: Connection
    log: Path
    timeout: float | None
    started: float = field(default_factory=time.monotonic)
    disk_error: str = ""
    written: bool = False
    timed_out: bool = False

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """The reports since the last call: progress and the latest logged values."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG:
                with self.log.open("r+b") as file:  # never empty: the worker removes an empty log
                    file.write(f"(the first {LOG >> 20} MiB of the output, or more, were dropped)\n".encode())
                    file.truncate()
        for kind, value in messages(self.pipe):
            if kind == "progress":
                yield value
            elif kind == "disk error":
                self.disk_error = value
            else:
                self.written = True

    def ended(self) -> bool:
        """Whether it has ended, or has run out of time."""
        if self.process.is_alive() and self.timeout and time.monotonic() - self.started > self.timeout:
            self.timed_out = True
        return self.timed_out or not self.process.is_alive()

    def fate(self) -> tuple[str, str]:
        """The status and the reason. EnvironmentFailure if the result could not be written."""
        list(self.news())
        self.end()
        code = self.process.exitcode
        if self.disk_error:
            raise EnvironmentFailure(self.disk_error)
        if code == 0 and self.written:
            return "ok", ""
        if self.timed_out:
            return "timeout", f"no result within {self.timeout:g} s"
        return "crashed", f"the process {describe_exit(code)}"

    def end(self) -> None:
        """End the process and all that it started."""
        end_all(self.process, GRACE)
        if not self.pipe.closed:
            self.pipe.close()
        with suppress(OSError):  # a process that was killed leaves its empty log
            if self.log.stat().st_size == 0:
                self.log.unlink()
