"""What launchers for other machines build on: measure a cell there, and bring its files back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hashzoo.bench.job import Job
from hashzoo.execution.base import Limits
from hashzoo.execution.local import LocalLauncher
from hashzoo.execution.scheduler import PAUSE, settle
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.storage.files import replace_bytes


def measure_claimed(job: Job, folder: Path, limits: Limits) -> Cell:
    """Measure one cell in a process of its own, and store it in a results folder.

    A launcher calls this on the machine that runs the cell, if that machine shares the results folder. The caller
    holds the lease of the cell.

    Args:
        job: The cell to measure.
        folder: The results folder.
        limits: The time and memory that the cell may use.

    Returns:
        The cell, whatever its status.

    Raises:
        EnvironmentFailure: If the cell cannot be written to ``folder``.
    """
    launcher = LocalLauncher(limits)
    child = launcher.start(job, folder, 0)
    try:
        while not child.ended():
            launcher.wait([child], PAUSE)
            list(child.news())
        return settle(child, folder, time.monotonic() - child.started)
    finally:
        child.end()


def measure_to_files(job: Job, limits: Limits) -> dict[str, bytes]:
    """Measure one cell in a process of its own, and return its files instead of storing them.

    A launcher calls this on the machine that runs the cell, if that machine does not share the results folder, and
    passes the files to :func:`store_files` on the machine that does.

    Args:
        job: The cell to measure.
        limits: The time and memory that the cell may use.

    Returns:
        The content of each file of the cell, by file name.

    Raises:
        EnvironmentFailure: If the disk of this machine fails.
    """
    with tempfile.TemporaryDirectory(prefix="hashzoo-") as place:
        store.prepare(Path(place))
        measure_claimed(job, Path(place), limits)
        found = sorted((Path(place) / "cells").iterdir())
        return {file.name: file.read_bytes() for file in found if file.suffix != ".checkpoint"}


def store_files(job: Job, folder: Path, files: Mapping[str, bytes]) -> None:
    """Store the files of one cell in a results folder, in place of any earlier files of that cell.

    Args:
        job: The cell that was measured.
        folder: The results folder.
        files: What :func:`measure_to_files` returned for ``job``.

    Raises:
        EnvironmentFailure: If a file cannot be written.
    """
    target = store.path(folder, job.identity, job.benchmark)
    former = {
        file for file in target.parent.glob(f"{target.stem}.*") if file.suffix in (".npz", ".log", ".safetensors")
    }
    for name, data in sorted(files.items(), key=lambda item: item[0] == target.name):  # the JSON last: it completes
        replace_bytes(target.with_name(Path(name).name), data)
    for file in former:
        if file.name not in files:
            with suppress(OSError):  # a leftover file does no harm
                file.unlink(missing_ok=True)


def find_cell(job: Job, folder: Path) -> Cell | None:
    """Read the cell of a job from a results folder.

    Args:
        job: The cell that was asked for.
        folder: The results folder.

    Returns:
        The cell, or None if the folder has no readable cell for this job.
    """
    found, _ = store.find(folder, job.identity, job.benchmark)
    return found
