"""Cells as jobs of a Slurm cluster whose nodes share the results folder, by submitit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hashzoo import EnvironmentFailure, HashzooError, Job, Limits, find_cell, measure_claimed
from hashzoo_plugins.extras import import_extra

USUAL = 60  # minutes of a job where no --timeout is given
SPARE = 5  # minutes of a job beyond its --timeout: for Python, torch and a slow disk
LATE = 60.0  # seconds within which a shared folder shows here what a node has written
POLL = 0.2
GRACE = 5.0  # seconds that cells of this machine have to end when they are cancelled


class Slurm:
    """A Slurm job a cell. The nodes must see the results folder and this Python under the same paths.

    ``minutes`` is what Slurm grants a job (0: the --timeout and 5 more, else 60); time in its queue counts for nothing.
    ``gpus`` None: as many as a cell asks for where the device is cuda. ``cluster`` local starts the jobs on this
    machine, to try a sweep out.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        cluster: Literal["slurm", "local"] = "slurm",
        partition: str = "",
        account: str = "",
        qos: str = "",
        constraint: str = "",
        minutes: int = 0,
        cpus: int = 1,
        gpus: int | None = None,
        memory_gb: float = 8.0,
    ) -> None:
        if min(minutes, gpus or 0) < 0 or cpus < 1 or memory_gb <= 0:
            raise ValueError("minutes and gpus are 0 or more, cpus at least 1, memory_gb above 0")
        self._submitit = import_extra("launcher slurm", "submitit", "slurm")
        self.limits, self.cluster, self.gpus, self.cpus, self.memory = limits, cluster, gpus, cpus, memory_gb
        self.minutes = minutes or (math.ceil(limits.timeout / 60) + SPARE if limits.timeout else USUAL)
        named = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
        self.named = {f"slurm_{name}": value for name, value in named.items() if value}
        self.here = cluster == "local"
        self._executor: Any = None
        self._out: list[Submitted] = []

    def start(self, job: Job, folder: Path, slot: int) -> Submitted:
        """Submit a cell."""
        gpus = job.execution.devices * (job.execution.device == "cuda") if self.gpus is None else self.gpus
        job = job.on("cuda" if gpus else "cpu")
        folder = folder.resolve()
        if self._executor is None:
            self._executor = self._made(folder / "slurm", gpus)
        try:
            task = self._executor.submit(measured, job, folder, self.limits)
        except self._submitit.core.utils.FailedJobError as error:
            why = str(error).strip().split("\n")[-1]
            raise EnvironmentFailure(f"Slurm does not take a job ({why}); check the options slurm.*") from error
        self._out = [one for one in self._out if not one.over]
        self._out.append(Submitted(job, folder, task, self.minutes))
        return self._out[-1]

    def wait(self, attempts: Sequence[Submitted], seconds: float) -> None:
        """Until one has ended, or for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not any(one.ended() for one in attempts):
            time.sleep(POLL)

    def close(self) -> None:
        """Wait until jobs of this machine that were cancelled are gone; Slurm ends its own by itself."""
        if self.here:
            until = time.monotonic() + GRACE
            while time.monotonic() < until and not all(one.ended() for one in self._out):
                time.sleep(POLL)

    def _made(self, folder: Path, gpus: int) -> Any:
        try:
            executor = self._submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except RuntimeError as error:
            raise EnvironmentFailure(f"there is no Slurm here ({error}); run this where sbatch is found") from error
        executor.update_parameters(
            name="hashzoo",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=gpus,
            mem_gb=self.memory,
            **self.named,
        )
        return executor


@dataclass
class Submitted:
    """A cell whose job waits or runs."""

    job: Job
    folder: Path
    task: Any
    minutes: int
    over: bool = field(default=False, init=False)

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """Nothing: what a cell says on its way stays on its node."""
        return iter(())

    def ended(self) -> bool:
        """Whether its job has."""
        self.over = self.over or bool(self.task.done())
        return self.over

    def fate(self) -> tuple[str, str]:
        """How it ended; EnvironmentFailure where the node could not keep the result."""
        failure = self.task.exception()
        if failure is not None:
            return self._unfinished(failure)
        created, trouble = self.task.result()
        if trouble:
            raise EnvironmentFailure(trouble)
        until = time.monotonic() + LATE
        while not self._arrived(created):
            if time.monotonic() > until:
                return "crashed", f"its job ended well, and its file is not in {self.folder}; do the nodes see it?"
            time.sleep(POLL)
        for file in self.folder.joinpath("slurm").glob(f"{self.task.job_id}_*"):
            with suppress(OSError):  # a file too many is no harm
                file.unlink()
        return "ok", ""

    def end(self) -> None:
        """Cancel its job."""
        if not self.ended():
            with suppress(Exception):  # one that Slurm does not know any more has ended
                self.task.cancel(check=False)

    def _arrived(self, created: str) -> bool:
        list(self.folder.joinpath("cells").iterdir())  # a network folder shows a new file to who lists it
        found = find_cell(self.job, self.folder)
        return found is not None and found.created == created

    def _unfinished(self, failure: Exception) -> tuple[str, str]:
        state = str(self.task.state).split(" ")[0]
        log = self.task.paths.stderr
        if state == "TIMEOUT":
            return "timeout", f"Slurm ended its job after {self.minutes} minutes"
        if state == "OUT_OF_MEMORY":
            return "oom", "Slurm ended its job, which took more memory than slurm.memory_gb"
        last = str(failure).strip().splitlines()[-1:] or [""]
        return "crashed", f"its job ended as {state} and left no result: {last[0][:200]}; see {log}"


def measured(job: Job, folder: Path, limits: Limits) -> tuple[str, str]:
    """What a node does: one cell. When it was written, and what stood in the way of that."""
    try:
        return measure_claimed(job, folder, limits).created, ""
    except HashzooError as error:
        return "", str(error)
