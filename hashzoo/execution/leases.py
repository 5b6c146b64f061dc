"""Who is at a cell: a small file beside it, kept fresh while its owner lives, so that many can share one folder.

A lease is made in one step that only one of many can win. Its owner touches it every few seconds. One whose owner has
ended on this machine, or which nobody has touched for a minute, wherever its owner may be, is taken over; a lock of the
operating system sees to it that only one does. Ages are read from the folder's own clock, since machines differ.
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

from hashzoo.storage.files import disk_errors

BEAT = 10.0  # seconds between touches
STALE = 60.0  # seconds without one after which an owner is taken for dead
LOCK = ".leases.lock"


class Leases:
    """The leases that one process holds in a folder. Close it, or leave its ``with``, to give all back."""

    def __init__(self, folder: Path, *, beat: float = BEAT, stale: float = STALE) -> None:
        self.folder, self.beat, self.stale = folder, beat, stale
        self.me = f"{machine()} {os.getpid()} {began(os.getpid())} {secrets.token_hex(8)}"
        self._held: set[Path] = set()
        self._clock = folder / f".clock-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, name: str) -> bool:
        """Whether the lease ``name`` is ours now. EnvironmentFailure where the folder cannot be written to."""
        file = self.folder / name
        with disk_errors("write", file):
            won = self._make(file) or (self._dead(file) and self._take_over(file))
        if won:
            with self._lock:
                self._held.add(file)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beats, name="leases", daemon=True)
                self._heart.start()
        return won

    def give_back(self, name: str) -> None:
        """End a lease of ours. One that has been taken over is left to who has it."""
        file = self.folder / name
        with self._lock:
            self._held.discard(file)
        with suppress(OSError), filelock.FileLock(self.folder / LOCK):
            if _owner(file) == self.me:
                file.unlink()

    def tidy(self) -> None:
        """Clear away what the dead have left: leases, logs without a word, files that they did not finish."""
        with suppress(OSError), filelock.FileLock(self.folder / LOCK):
            for file in sorted(self.folder.glob("*.lease")):
                if self._dead(file):
                    file.unlink()
                    log = file.with_suffix(".log")
                    if log.exists() and not log.stat().st_size:
                        log.unlink()
            for file in [file for kind in (".clock-*", ".probe-*", ".*.tmp") for file in self.folder.glob(kind)]:
                if self._age(file) > self.stale:
                    file.unlink(missing_ok=True)

    def close(self) -> None:
        """Give back every lease and stop touching them."""
        self._over.set()
        if self._heart is not None:
            self._heart.join()
        for file in sorted(self._held):
            self.give_back(file.name)
        with suppress(OSError):
            self._clock.unlink(missing_ok=True)

    def _make(self, file: Path) -> bool:
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, json.dumps({"owner": self.me}).encode())
        finally:
            os.close(handle)
        return True

    def _dead(self, file: Path) -> bool:
        """Whether who made a lease is gone: ended on this machine, or not heard of for long."""
        try:
            place, pid, started, _ = _owner(file).rsplit(" ", 3)
        except ValueError:  # cut off while it was written: only its age tells
            place, pid, started = "", "", ""
        if place == machine() and pid.isdigit():
            # where the start of a process cannot be read, any process of that number counts as the owner
            return began(int(pid)) != started
        try:
            return self._age(file) > self.stale
        except FileNotFoundError:
            return False  # given back since; whoever asks again will get it

    def _age(self, file: Path) -> float:
        """Seconds since a file was touched, by the folder's own clock."""
        touched = file.stat().st_mtime
        self._clock.touch()
        return self._clock.stat().st_mtime - touched

    def _take_over(self, file: Path) -> bool:
        with filelock.FileLock(self.folder / LOCK):
            if not file.exists() or not self._dead(file):
                return False  # another was faster
            # not replaced: a new file appears in one step too, and this one is nobody's in between
            file.unlink()
            return self._make(file)

    def _beats(self) -> None:
        while not self._over.wait(self.beat):
            with self._lock:
                held = list(self._held)
            for file in held:
                with suppress(OSError):  # a folder that is gone for a while is no reason to stop
                    if _owner(file) == self.me:
                        os.utime(file)


def machine() -> str:
    """This machine, since it was started, and which processes can be seen from here; no other has the same."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(part.replace(" ", "_") for part in parts)


def began(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks; empty where there is none.

    Of systems without ``/proc`` it is "running" of any process that there is.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with suppress(OSError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]  # a zombie works no more
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "running"
    return "running"


def _owner(file: Path) -> str:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        return str(found["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
