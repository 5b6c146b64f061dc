"""The interfaces of a sweep: launchers, which run cells somewhere, and observers, which show what happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hashzoo.bench.job import Job
from hashzoo.types import ProgressCallback


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

        EnvironmentFailure where a result could not be kept there.
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


class Observer(Protocol):
    """Shows what a sweep does. A sweep prints nothing itself."""

    def note(self, text: str) -> None:
        """Show one line: a damaged cell that was set aside, a tracker that failed."""
        ...

    def features(self, what: str) -> AbstractContextManager[ProgressCallback]:
        """Show the progress of a feature extraction that cells wait for."""
        ...

    def cells(self, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
        """Show the progress of these cells while they are measured."""
        ...

    def event(self, job: Job, kind: str, value: Any) -> None:
        """Show that a cell started, reports progress, or is done.

        Args:
            job: The cell.
            kind: ``"started"``, ``"progress"``, ``"done"``, or ``"elsewhere"`` for a cell that another sweep on the
                same folder has measured.
            value: None, the progress with the latest values, or the finished cell.
        """
        ...


class Silent:
    """An observer that shows nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def features(self, what: str) -> AbstractContextManager[ProgressCallback]:
        """Show nothing."""
        return nullcontext(lambda done, total: None)

    def cells(self, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
        """Show nothing."""
        return nullcontext()

    def event(self, job: Job, kind: str, value: Any) -> None:
        """Show nothing."""
