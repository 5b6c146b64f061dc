"""Leases let several sweeps share one results folder: one lease file per cell, owned by one process at a time.

A lease file is created atomically, so only one of several processes can acquire it. Its owner touches it every few
seconds. A lease expires when its owner has ended on this machine, or when it has not been touched for a minute, on
whatever machine its owner runs; a file lock ensures that only one process takes an expired lease over. Ages are
measured by the clock of the folder's file system, because the clocks of machines differ.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import psutil

from hashzoo.storage.files import disk_errors

HEARTBEAT = 10.0  # seconds between touches
EXPIRY = 60.0  # seconds without a touch after which an owner counts as ended
LOCK = ".leases.lock"
_UNKNOWN = "unknown"  # start time of a process that the operating system does not disclose


class Leases:
    """The leases that one process holds in a folder. Leaving the ``with`` block, or ``close``, releases all of them."""

    def __init__(self, folder: Path, *, heartbeat: float = HEARTBEAT, expiry: float = EXPIRY) -> None:
        self.folder, self.heartbeat, self.expiry = folder, heartbeat, expiry
        self.owner = f"{machine_id()} {os.getpid()} {process_start(os.getpid())} {secrets.token_hex(8)}"
        self._held: set[Path] = set()
        self._clock = folder / f".clock-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, name: str) -> bool:
        """Try to acquire the lease ``name``. Raises DiskError if the folder is not writable."""
        file = self.folder / name
        with disk_errors("write", file):
            acquired = self._create(file) or (self._expired(file) and self._take_over(file))
        if acquired:
            with self._lock:
                self._held.add(file)
            if self._thread is None:
                self._thread = threading.Thread(target=self._touch_held, name="leases", daemon=True)
                self._thread.start()
        return acquired

    def release(self, name: str) -> None:
        """Release a lease of this process. A lease that another process has taken over stays with it."""
        file = self.folder / name
        with self._lock:
            self._held.discard(file)
        with suppress(OSError), filelock.FileLock(self.folder / LOCK):
            if _read_owner(file) == self.owner:
                file.unlink()

    def clean_up(self) -> None:
        """Delete what ended processes have left: expired leases with their empty logs, and old temporary files."""
        with suppress(OSError), filelock.FileLock(self.folder / LOCK):
            for file in sorted(self.folder.glob("*.lease")):
                if self._expired(file):
                    file.unlink()
                    log = file.with_suffix(".log")
                    if log.exists() and not log.stat().st_size:
                        log.unlink()
            for file in [file for kind in (".clock-*", ".probe-*", ".*.tmp") for file in self.folder.glob(kind)]:
                if self._age(file) > self.expiry:
                    file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release every lease and stop touching them."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        for file in sorted(self._held):
            self.release(file.name)
        with suppress(OSError):
            self._clock.unlink(missing_ok=True)

    def _create(self, file: Path) -> bool:
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, json.dumps({"owner": self.owner}).encode())
        finally:
            os.close(handle)
        return True

    def _expired(self, file: Path) -> bool:
        """Whether the owner of a lease has ended on this machine or has not touched it for too long."""
        try:
            machine, pid, started, _ = _read_owner(file).rsplit(" ", 3)
        except ValueError:  # truncated while it was written: only its age decides
            machine, pid, started = "", "", ""
        if machine == machine_id() and pid.isdigit():
            return process_start(int(pid)) not in (started, _UNKNOWN)
        try:
            return self._age(file) > self.expiry
        except FileNotFoundError:
            return False  # just released: the next attempt acquires it

    def _age(self, file: Path) -> float:
        """Seconds since a file was touched, by the clock of the folder's file system."""
        touched = file.stat().st_mtime
        self._clock.touch()
        return self._clock.stat().st_mtime - touched

    def _take_over(self, file: Path) -> bool:
        with filelock.FileLock(self.folder / LOCK):
            if not file.exists() or not self._expired(file):
                return False  # another process was faster
            # Deleted and created, not replaced: in between, any process can still create it atomically.
            file.unlink()
            return self._create(file)

    def _touch_held(self) -> None:
        while not self._closed.wait(self.heartbeat):
            with self._lock:
                held = list(self._held)
            for file in held:
                with suppress(OSError):  # a network folder can be unavailable for a while
                    if _read_owner(file) == self.owner:
                        os.utime(file)


def machine_id() -> str:
    """Identifies this machine, its boot and its process namespace: where a process id has one meaning."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(part.replace(" ", "_") for part in parts)


def process_start(pid: int) -> str:
    """When a running process started, in hundredths of a second since boot; empty if no such process is running.

    Counted from boot, the number does not change when the system clock is set.
    """
    try:
        boot = psutil.boot_time()
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return ""
        return str(round((process.create_time() - boot) * 100))
    except psutil.NoSuchProcess:
        return ""
    except psutil.AccessDenied:
        return _UNKNOWN


def _read_owner(file: Path) -> str:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return str(content["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
