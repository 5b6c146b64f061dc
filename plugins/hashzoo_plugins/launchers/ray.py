"""Cells on a Ray cluster: one that runs already, or one on this machine that nobody else can reach."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashzoo import EnvironmentFailure, Job, Limits, measure_to_files, store_files
from hashzoo_plugins.extras import import_extra

#: What a Ray of this machine alone reads: nothing is told to its makers; it listens on 127.0.0.1, as it does by itself
#: on a Mac; and who wants to speak to it, from this machine too, needs the token that Ray keeps in the home folder.
ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
LOOPBACK = "127.0.0.1"
GRACE = 2.0  # seconds that cells have to end when they are taken back
GIB = 1 << 30


class Ray:
    """A task a cell on a Ray cluster: the one at ``address``, or one of this machine alone where none is given.

    ``cpus``, ``gpus`` (None: as many as it asks for where the device is cuda) and ``memory_gb`` are what Ray sets aside
    for a cell. A cell whose worker or node is lost is sent out again, ``retries`` times.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        address: str = "",
        cpus: float = 1.0,
        gpus: float | None = None,
        memory_gb: float = 0.0,
        retries: int = 2,
    ) -> None:
        if min(cpus, gpus or 0, memory_gb, retries) < 0:
            raise ValueError("cpus, gpus, memory_gb and retries are 0 or more")
        with _environment({} if address else ALONE):  # much of it is read when Ray is imported
            self._ray = import_extra("launcher ray", "ray", "ray")
        self.limits, self.address, self.retries = limits, address, retries
        self.cpus, self.gpus, self.memory = cpus, gpus, int(memory_gb * GIB)
        self.here = not address
        self._ours = False  # whether the cluster, or our way into it, ends with the sweep
        self._place = ""
        self._task: Any = None
        self._out: list[Sent] = []

    def start(self, job: Job, folder: Path, slot: int) -> Sent:
        """Send out a cell; Ray starts it where there is room."""
        gpus = float(job.execution.devices * (job.execution.device == "cuda")) if self.gpus is None else self.gpus
        job = job.on("cuda" if gpus else "cpu")  # Ray shows it the GPUs that are its own, and no other
        self._join(gpus)
        # Ray's own retries never end where it ended a worker to save a node's memory
        task = self._task.options(num_cpus=self.cpus, num_gpus=gpus, memory=self.memory or None, max_retries=0)
        where = str(Path.cwd())
        self._out = [one for one in self._out if one.result is None]
        self._out.append(Sent(self._ray, lambda: task.remote(job, self.limits, where), job, folder, self.retries))
        return self._out[-1]

    def wait(self, attempts: Sequence[Sent], seconds: float) -> None:
        """Until one has an answer, or for some seconds."""
        self._ray.wait([one.ref for one in attempts], num_returns=1, timeout=seconds, fetch_local=False)

    def close(self) -> None:
        """Leave the cluster, or end it where it is ours."""
        if any(one.result is None for one in self._out):
            time.sleep(GRACE)  # Ray takes what was taken back for ended before it has cleaned up behind itself
        if self._ours:
            self._ray.shutdown()
            self._ours = False
        if self._place:
            shutil.rmtree(self._place, ignore_errors=True)

    def _join(self, gpus: float) -> None:
        if self._task is not None:
            return
        if not self._ray.is_initialized():
            self._ours = True  # first: a start that fails halfway is ended too
            with _signals_kept():
                self._start() if self.here else self._enter()
        if self.here:
            there = self._ray.cluster_resources()
            if gpus > there.get("GPU", 0):
                raise EnvironmentFailure(
                    f"launcher ray: a cell is to have {gpus:g} GPUs, and there are {there.get('GPU', 0):g}"
                )
        self._task = self._ray.remote(measured)

    def _start(self) -> None:
        # Ray's sockets lie in it, whose paths may have 107 letters: the usual folder for temporary files may be deep
        self._place = tempfile.mkdtemp(prefix="hashzoo-ray-", dir="/tmp")  # nosec B108 # of a name nobody guesses
        try:
            with _environment({**ALONE, "TMPDIR": self._place}):  # so that nothing of a cell outlives it
                self._ray.init(
                    address="local",
                    num_cpus=math.ceil(max(1.0, self.cpus) * self.limits.parallel),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=self._place,
                )
        except Exception as error:  # Ray raises bare ones, among them after 30 s on a machine that is very busy
            self.close()
            why = str(error).strip().split("\n")[0]
            raise EnvironmentFailure(
                f"Ray does not start here ({why}); run the same command again, or without it"
            ) from error
        heard = {node["NodeManagerAddress"] for node in self._ray.nodes()}
        if heard != {LOOPBACK}:
            self.close()
            raise EnvironmentFailure(
                f"Ray listens on {', '.join(sorted(heard))} and not on this machine alone; start a cluster with "
                "`ray start --head` and name it with --set ray.address=ADDRESS"
            )

    def _enter(self) -> None:
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdigit():  # Ray itself waits for minutes for one that is not there
                socket.create_connection((host, int(port)), timeout=10).close()
            self._ray.init(address=self.address, logging_level="ERROR")
        except Exception as error:
            why = str(error).strip().split("\n")[0]
            raise EnvironmentFailure(f"there is no Ray cluster at {self.address} ({why}); check ray.address") from error


@dataclass
class Sent:
    """A cell that is out."""

    ray: Any
    send: Callable[[], Any]
    job: Job
    folder: Path
    retries: int
    lost: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    result: tuple[str, str] | None = None
    ref: Any = None

    def __post_init__(self) -> None:
        self.ref = self.send()

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """Nothing: what a cell says on its way stays on its node."""
        return iter(())

    def ended(self) -> bool:
        """Whether it has come back, or is lost for good; one that is lost is sent out again."""
        if self.result is None and self.ray.wait([self.ref], timeout=0)[0]:
            self.result = self._answer()
        return self.result is not None

    def fate(self) -> tuple[str, str]:
        """How it ended; its files are kept."""
        if self.files:
            store_files(self.job, self.folder, self.files)
        return self.result or ("crashed", "it has not ended")

    def end(self) -> None:
        """Take it back: its process and all that it started end."""
        if self.result is None:
            with suppress(Exception):  # a cluster that is gone has ended it
                self.ray.cancel(self.ref, force=False)

    def _answer(self) -> tuple[str, str] | None:
        errors = self.ray.exceptions
        try:
            self.files = self.ray.get(self.ref)
            return "ok", ""
        except errors.RayTaskError as error:  # it could not even begin there
            cause = error.cause
            return "crashed", f"on its node: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        except errors.RayError as error:
            self.lost += 1
            if self.lost <= self.retries:
                self.ref = self.send()
                return None
            why = f"lost {self.lost} times; the last time: {' '.join(str(error).split())[:200]}"
            return "oom" if isinstance(error, errors.OutOfMemoryError) else "crashed", why


def measured(job: Job, limits: Limits, where: str) -> dict[str, bytes]:
    """What a node does: one cell, and its files by name."""
    with suppress(OSError):  # where folders are shared, relative paths mean the same
        os.chdir(where)
    return measure_to_files(job, limits)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the one by which a sweep ends in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread: then nobody has changed it
            signal.signal(signal.SIGTERM, before)
