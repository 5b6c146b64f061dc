"""The interfaces of a sweep: launchers, which run cells somewhere, and observers, which show what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hashzoo.bench.job import Job
from hashzoo.types import ProgressCallback


@dataclass(frozen=True)
class Limits:
    """Limits of the cells of a sweep.

    Attributes:
        parallel: Cells at a time.
        timeout: Seconds that a cell can take; None sets no limit.
        memory: Bytes that a cell can allocate; None sets no limit.
    """

    parallel: int = 1
    timeout: float | None = None
    memory: int | None = None


class Attempt(Protocol):
    """A cell in progress."""

    job: Job

    def news(self) -> Iterator[tuple[float, dict[str, float]]]:
        """The reports since the last call: progress, 0..1, and the latest logged values. Empty if they are unknown."""
        ...

    def ended(self) -> bool:
        """Whether the cell has ended."""
        ...

    def fate(self) -> tuple[str, str]:
        """The status of a cell that has ended, and the reason; ``("ok", "")`` if its file is in the folder.

        Raises:
            EnvironmentFailure: If the result could not be written there.
        """
        ...

    def end(self) -> None:
        """End the cell and all its processes now."""
        ...


class Launcher(Protocol):
    """Starts cells somewhere. A factory of the hook ``hashzoo_launchers`` builds one from Limits and its options."""

    #: Whether cells run on this machine; then the features that they share are extracted before they start.
    here: bool

    def start(self, job: Job, folder: Path, slot: int) -> Attempt:
        """Start a cell that writes its result to ``folder``. ``slot`` is the lowest number that no running cell has."""
        ...

    def wait(self, attempts: Sequence[Any], seconds: float) -> None:
        """Wait until one of them has ended or has a report, or for some seconds."""
        ...

    def close(self) -> None:
        """Release what the launcher holds."""
        ...


@runtime_checkable
class SpreadingLauncher(Protocol):
    """A launcher that does other tasks than cells, too."""

    def spread(self, make: Callable[[], Callable[[Any], Any]], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """The number and the result of each task, as tasks end; ``make`` returns the function that does one."""
        ...

    def close(self) -> None:
        """Release what the launcher holds."""
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
