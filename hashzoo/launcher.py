"""What a launcher is: where the cells of a sweep run, and how they are told from each other while they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hashzoo.bench import Job


@dataclass(frozen=True)
class Limits:
    """What the cells of a sweep may take: how many at a time, and each so many seconds and bytes of memory."""

    parallel: int = 1
    timeout: float | None = None
    memory: int | None = None


class Attempt(Protocol):
    """A cell in progress."""

    job: Job

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """The progress (0..1) told since the last call, with the latest values, if it can be known."""
        ...

    def ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        ...

    def fate(self) -> tuple[str, str]:
        """Of one that ended: ("ok", "") where its cell lies in the folder, else a status of cells and the reason.

        TroubleError where a result could not be kept there.
        """
        ...

    def end(self) -> None:
        """End it and all that belongs to it, now."""
        ...


class Launcher(Protocol):
    """Starts cells somewhere: what a factory of the hook ``hashzoo_launchers`` makes of Limits and its options."""

    #: Whether cells run on this machine, so that the features they share are better extracted before they start.
    here: bool

    def start(self, job: Job, folder: Path, slot: int) -> Attempt:
        """Start a cell whose result is to lie in ``folder``. ``slot`` is the lowest number no running cell has."""
        ...

    def wait(self, attempts: Sequence[Any], seconds: float) -> None:
        """Until one of them has something to say, or for so many seconds."""
        ...

    def close(self) -> None:
        """Let go of what the launcher holds."""
        ...
