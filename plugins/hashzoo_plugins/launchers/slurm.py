"""Run cells as jobs of a Slurm cluster, with submitit. The nodes share the results folder."""

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

DEFAULT_MINUTES = 60  # of a job without --timeout
EXTRA_MINUTES = 5  # of a job beyond --timeout, to start Python and torch from a slow disk
LATENCY = 60.0  # seconds until a file that a node has written is visible in the shared folder
POLL = 0.2  # seconds between checks
GRACE = 5.0  # seconds for canceled jobs on this machine to end


class Slurm:
    """One Slurm job per cell. The nodes must have the results folder and this Python under the same paths.

    ``minutes`` is the time limit of a job without its time in the queue (0: --timeout plus 5 minutes, or 60 without
    --timeout). ``gpus`` None means as many as the cell needs if the device is cuda. ``cluster`` local runs the jobs on
    this machine, for tests.
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
            raise ValueError("slurm needs minutes >= 0, gpus >= 0, cpus >= 1 and memory_gb > 0")
        self._submitit = import_extra("launcher slurm", "submitit", "slurm")
        self.limits, self.cluster, self.gpus, self.cpus, self.memory = limits, cluster, gpus, cpus, memory_gb
        self.minutes = minutes or (
            math.ceil(limits.timeout / 60) + EXTRA_MINUTES if limits.timeout else DEFAULT_MINUTES
        )
        named = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
        self.named = {f"slurm_{name}": value for name, value in named.items() if value}
        self.here = cluster == "local"
        self._executor: Any = None
        self._out: list[Submitted] = []

    def start(self, job: Job, folder: Path, slot: int) -> Submitted:
        """Submit a cell."""
        gpus = job.execution.devices * job.execution.device.startswith("cuda") if self.gpus is None else self.gpus
        job = job.on("cuda" if gpus else "cpu")
        folder = folder.resolve()
        if self._executor is None:
            self._executor = self._create_executor(folder / "slurm", gpus)
        try:
            task = self._executor.submit(measure_on_node, job, folder, self.limits)
        except self._submitit.core.utils.FailedJobError as error:
            why = str(error).strip().split("\n")[-1]
            raise EnvironmentFailure(f"Slurm rejected a job ({why}); check the options slurm.*") from error
        self._out = [one for one in self._out if not one.over]
        self._out.append(Submitted(job, folder, task, self.minutes))
        return self._out[-1]

    def wait(self, attempts: Sequence[Submitted], seconds: float) -> None:
        """Wait until one attempt has ended, or for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not any(one.ended() for one in attempts):
            time.sleep(POLL)

    def close(self) -> None:
        """Wait until canceled jobs on this machine have ended; Slurm ends its jobs by itself."""
        if self.here:
            until = time.monotonic() + GRACE
            while time.monotonic() < until and not all(one.ended() for one in self._out):
                time.sleep(POLL)

    def _create_executor(self, folder: Path, gpus: int) -> Any:
        try:
            executor = self._submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except RuntimeError as error:
            raise EnvironmentFailure(
                f"Slurm was not found on this machine ({error}); run the command on a machine with sbatch"
            ) from error
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
    """A submitted cell."""

    job: Job
    folder: Path
    task: Any
    minutes: int
    over: bool = field(default=False, init=False)

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """Yield nothing: the progress of a cell is not sent from its node."""
        return iter(())

    def ended(self) -> bool:
        """Whether the job has ended."""
        self.over = self.over or bool(self.task.done())
        return self.over

    def fate(self) -> tuple[str, str]:
        """The status and the reason. Raises EnvironmentFailure if the node could not store the cell."""
        failure = self.task.exception()
        if failure is not None:
            return self._unfinished(failure)
        created, failure_text = self.task.result()
        if failure_text:
            raise EnvironmentFailure(failure_text)
        until = time.monotonic() + LATENCY
        while not self._arrived(created):
            if time.monotonic() > until:
                return (
                    "crashed",
                    f"its job succeeded but its file is not in {self.folder}; share this folder with the nodes",
                )
            time.sleep(POLL)
        for file in self.folder.joinpath("slurm").glob(f"{self.task.job_id}_*"):
            with suppress(OSError):  # a leftover file does no harm
                file.unlink()
        return "ok", ""

    def end(self) -> None:
        """Cancel the job."""
        if not self.ended():
            with suppress(Exception):  # a job that Slurm no longer knows has ended
                self.task.cancel(check=False)

    def _arrived(self, created: str) -> bool:
        list(self.folder.joinpath("cells").iterdir())  # listing a network folder makes new files visible
        found = find_cell(self.job, self.folder)
        return found is not None and found.created == created

    def _unfinished(self, failure: Exception) -> tuple[str, str]:
        state = str(self.task.state).split(" ")[0]
        log = self.task.paths.stderr
        if state == "TIMEOUT":
            return "timeout", f"Slurm ended its job after {self.minutes} minutes"
        if state == "OUT_OF_MEMORY":
            return "oom", "Slurm ended its job, which used more memory than slurm.memory_gb"
        last = str(failure).strip().splitlines()[-1:] or [""]
        return "crashed", f"its job ended as {state} and left no result: {last[0][:200]}; see {log}"


def measure_on_node(job: Job, folder: Path, limits: Limits) -> tuple[str, str]:
    """Measure one cell on a node; return the time of its creation, or else empty and the error message."""
    try:
        return measure_claimed(job, folder, limits).created, ""
    except HashzooError as error:
        return "", str(error)
