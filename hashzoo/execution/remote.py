"""Measure a cell on another machine: claim, measure, and copy its files back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hashzoo.bench.job import Job
from hashzoo.execution.base import Limits
from hashzoo.execution.local import Local
from hashzoo.execution.scheduler import PAUSE, _settle
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.storage.files import replace_bytes


def measure_claimed(job: Job, folder: Path, limits: Limits) -> Cell:
    """Measure one cell that is claimed already, in a process of its own: what a launcher runs on another machine."""
    launcher = Local(limits)
    child = launcher.start(job, folder, 0)
    try:
        while not child.ended():
            launcher.wait([child], PAUSE)
            list(child.news())
        return _settle(child, folder, time.monotonic() - child.started)
    finally:
        child.end()


def measure_to_files(job: Job, limits: Limits) -> dict[str, bytes]:
    """The files of one cell measured by :func:`one`, by name: for machines that do not share the results folder."""
    with tempfile.TemporaryDirectory(prefix="hashzoo-") as place:
        store.prepare(Path(place))
        measure_claimed(job, Path(place), limits)
        return {file.name: file.read_bytes() for file in sorted((Path(place) / "cells").iterdir())}


def store_files(job: Job, folder: Path, files: Mapping[str, bytes]) -> None:
    """Keep in a results folder the files that :func:`carried` gave of a cell, and no other of it: its JSON last."""
    target = store.path(folder, job.identity, job.benchmark)
    former = {
        file for file in target.parent.glob(f"{target.stem}.*") if file.suffix in (".npz", ".log", ".safetensors")
    }
    for name, data in sorted(files.items(), key=lambda item: item[0] == target.name):
        replace_bytes(target.with_name(Path(name).name), data)
    for file in former:
        if file.name not in files:
            with suppress(OSError):  # a file too many is no harm
                file.unlink(missing_ok=True)
