"""A disk that fails at one step of a write, inside the process that writes: for children that are thrown away."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What may happen at a step, and whether everything that is written afterwards fails as well.
FAULTS = {"crash": False, "ENOSPC": False, "EIO": False, "EROFS": True, "EACCES": True}


class Disk:
    """Counts the steps by which anything below ``folder`` is written, and breaks the one with number ``at``."""

    def __init__(self, folder: Path, at: int = -1, fault: str = "crash") -> None:
        self.folder, self.at, self.fault = str(folder), at, fault
        self.steps: list[str] = []

    def step(self, name: str, before: Callable[[], object] = lambda: None) -> None:
        """One step. Where it is the one to break, ``before`` does what a disk had done of it by then."""
        number = len(self.steps)
        self.steps.append(name)
        if number != self.at and not (0 <= self.at < number and FAULTS[self.fault]):
            return
        before()
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code))

    def mine(self, path: Any) -> bool:
        """Whether a path, or what a handle stands for, lies below the folder."""
        try:
            if isinstance(path, int):
                path = Path(f"/proc/self/fd/{path}").readlink()
            return os.path.abspath(path).startswith(self.folder)  # noqa: PTH100 - Path.absolute keeps ".."
        except (OSError, TypeError, AttributeError):
            return False

    def broken_in(self) -> Disk:
        """Stand between this process and its disk from now on."""
        opened, os_open = io.open, os.open

        def open_(path: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            if not self.mine(path) or not set(mode) & set("wxa+"):
                return opened(path, mode, *given, **named)
            self.step("open")
            return Written(opened(path, mode, *given, **named), self)

        def os_open_(path: Any, *given: Any, **named: Any) -> int:
            if self.mine(path):
                self.step("open")
            return os_open(path, *given, **named)

        builtins.open = io.open = open_  # type: ignore[assignment]
        os.open = os_open_
        for name in ("mkdir", "fsync", "posix_fallocate", "replace", "rename", "unlink", "rmdir"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        return self

    def _counted(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *given: Any, **named: Any) -> Any:
            if self.mine(path) or "dir_fd" in named:
                self.step(name)
            return act(path, *given, **named)

        return counted


class Written:
    """A file whose writing and closing are steps; half of what is written when it breaks is on the disk."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._disk.step("write", half)
        return self._file.write(data)

    def close(self) -> None:
        try:
            self._disk.step("close", self._file.flush)
        finally:
            self._file.close()

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
