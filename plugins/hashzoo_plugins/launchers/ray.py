"""Run cells on a Ray cluster: an existing one, or a private one on this machine."""

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
from itertools import islice
from pathlib import Path
from typing import Any

from hashzoo import EnvironmentFailure, HashzooError, Job, Limits, measure_to_files, store_files
from hashzoo_plugins.extras import import_extra

#: The environment of a private Ray: no usage statistics; it listens on 127.0.0.1 only, the default on macOS; and
#: every client, also on this machine, needs the token that Ray stores in the home folder.
ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
LOOPBACK = "127.0.0.1"
GRACE = 2.0  # seconds for canceled cells to end
GIB = 1 << 30


class Ray:
    """One task per cell on the Ray cluster at ``address``; without an address, on a private one of this machine.

    ``cpus``, ``gpus`` (None: as many as the cell needs if the device is cuda) and ``memory_gb`` are the resources that
    Ray reserves for a cell. A cell whose worker or node is lost is submitted again, up to ``retries`` times.
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
            raise ValueError("cpus, gpus, memory_gb and retries must not be negative")
        with _environment({} if address else ALONE):  # Ray reads most of it when it is imported
            self._ray = import_extra("launcher ray", "ray", "ray")
        self.limits, self.address, self.retries = limits, address, retries
        self.cpus, self.gpus, self.memory = cpus, gpus, int(memory_gb * GIB)
        self.here = not address
        self._ours = False  # whether this launcher started or joined the cluster, and so leaves it at the end
        self._place = ""
        self._task: Any = None
        self._out: list[Sent] = []

    def start(self, job: Job, folder: Path, slot: int) -> Sent:
        """Submit a cell; Ray starts it when resources are free."""
        gpus = (
            float(job.execution.devices * job.execution.device.startswith("cuda")) if self.gpus is None else self.gpus
        )
        job = job.on("cuda" if gpus else "cpu")  # Ray makes only the GPUs of the cell visible to it
        self._join(gpus)
        # Ray retries without limit after it ends a worker because the memory of a node is low
        task = self._task.options(num_cpus=self.cpus, num_gpus=gpus, memory=self.memory or None, max_retries=0)
        where = str(Path.cwd())
        self._out = [one for one in self._out if one.result is None]
        self._out.append(Sent(self._ray, lambda: task.remote(job, self.limits, where), job, folder, self.retries))
        return self._out[-1]

    def wait(self, attempts: Sequence[Sent], seconds: float) -> None:
        """Wait until one attempt has ended, or for some seconds."""
        self._ray.wait([one.ref for one in attempts], num_returns=1, timeout=seconds, fetch_local=False)

    def spread(self, make: Callable[[], Callable[[Any], Any]], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """The number and the result of each task, as tasks end, as many at a time as cells.

        ``make`` returns the function that does a task; it is called in each task and should keep what it loads. A task
        whose worker or node is lost is done again, up to ``retries`` times.
        """
        gpus = self.gpus or 0.0
        self._join(gpus)
        do = self._ray.remote(do_on_node).options(
            num_cpus=self.cpus, num_gpus=gpus, memory=self.memory or None, max_retries=self.retries
        )
        shared, todo, waiting = self._ray.put(make), iter(enumerate(tasks)), dict[Any, int]()
        while True:
            for number, task in islice(todo, self.limits.parallel - len(waiting)):
                waiting[do.remote(shared, task)] = number
            if not waiting:
                return
            (ended,), _ = self._ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(ended), self._result(ended)

    def _result(self, ended: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ended)
        except errors.RayTaskError as error:
            if isinstance(error.cause, HashzooError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            why = " ".join(str(error).split())[:200]
            raise EnvironmentFailure(f"launcher ray: a task was lost {self.retries + 1} times ({why})") from error

    def close(self) -> None:
        """Leave the cluster, and stop it if it is private."""
        if any(one.result is None for one in self._out):
            time.sleep(GRACE)  # Ray reports canceled tasks as ended before their processes are gone
        if self._ours:
            self._ray.shutdown()
            self._ours = False
        if self._place:
            shutil.rmtree(self._place, ignore_errors=True)

    def _join(self, gpus: float) -> None:
        if self._task is not None:
            return
        if not self._ray.is_initialized():
            self._ours = True  # set first, so that a failed start is cleaned up too
            with _sigterm_handler_kept():
                self._start() if self.here else self._enter()
        if self.here:
            available = self._ray.cluster_resources().get("GPU", 0)
            if gpus > available:
                raise EnvironmentFailure(
                    f"launcher ray: a cell needs {gpus:g} GPUs, but this machine has {available:g}; reduce ray.gpus"
                )
        self._task = self._ray.remote(measure_on_node)

    def _start(self) -> None:
        # Ray's sockets are in it, and their paths are limited to 107 characters, which TMPDIR can exceed
        self._place = tempfile.mkdtemp(prefix="hashzoo-ray-", dir="/tmp")  # nosec B108 # mkdtemp chooses a random name
        try:
            with _environment({**ALONE, "TMPDIR": self._place}):  # so that no file of a cell is left
                self._ray.init(
                    address="local",
                    num_cpus=math.ceil(max(1.0, self.cpus) * self.limits.parallel),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=self._place,
                )
        except Exception as error:  # Ray raises plain exceptions, for example a timeout on a busy machine
            self.close()
            why = str(error).strip().split("\n")[0]
            raise EnvironmentFailure(
                f"Ray did not start on this machine ({why}); run the command again, or without --launcher ray"
            ) from error
        addresses = {node["NodeManagerAddress"] for node in self._ray.nodes()}
        if addresses != {LOOPBACK}:
            self.close()
            raise EnvironmentFailure(
                f"Ray listens on {', '.join(sorted(addresses))}, so other machines can reach it; start a cluster with "
                "`ray start --head` and set --set ray.address=ADDRESS"
            )

    def _enter(self) -> None:
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdigit():  # Ray would wait for minutes if nothing listens there
                socket.create_connection((host, int(port)), timeout=10).close()
            self._ray.init(address=self.address, logging_level="ERROR")
        except Exception as error:
            why = str(error).strip().split("\n")[0]
            raise EnvironmentFailure(f"no Ray cluster at {self.address} ({why}); check ray.address") from error


@dataclass
class Sent:
    """A submitted cell."""

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
        """Yield nothing: the progress of a cell is not sent from its node."""
        return iter(())

    def ended(self) -> bool:
        """Whether the task has ended. A lost task is submitted again while retries are left."""
        if self.result is None and self.ray.wait([self.ref], timeout=0)[0]:
            self.result = self._answer()
        return self.result is not None

    def fate(self) -> tuple[str, str]:
        """The status and the reason; the files of the cell are stored."""
        if self.files:
            store_files(self.job, self.folder, self.files)
        return self.result or ("crashed", "the task has not ended")

    def end(self) -> None:
        """Cancel the task, its process and all child processes."""
        if self.result is None:
            with suppress(Exception):  # a stopped cluster has ended the task
                self.ray.cancel(self.ref, force=False)

    def _answer(self) -> tuple[str, str] | None:
        errors = self.ray.exceptions
        try:
            self.files = self.ray.get(self.ref)
            return "ok", ""
        except errors.RayTaskError as error:  # raised before the cell was measured
            cause = error.cause
            return "crashed", f"on its node: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        except errors.RayError as error:
            self.lost += 1
            if self.lost <= self.retries:
                self.ref = self.send()
                return None
            why = f"lost {self.lost} times; the last time: {' '.join(str(error).split())[:200]}"
            return "oom" if isinstance(error, errors.OutOfMemoryError) else "crashed", why


def measure_on_node(job: Job, limits: Limits, folder: str) -> dict[str, bytes]:
    """Measure one cell on a node, and return its files by name."""
    with suppress(OSError):  # with shared folders, relative paths stay valid
        os.chdir(folder)
    return measure_to_files(job, limits)


def do_on_node(make: Callable[[], Callable[[Any], Any]], task: Any) -> Any:
    """Do one task on a node, and return its result."""
    return make()(task)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
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
def _sigterm_handler_kept() -> Iterator[None]:
    """Restore the SIGTERM handler that shuts a benchmark down cleanly, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # outside the main thread Ray does not replace it
            signal.signal(signal.SIGTERM, before)
