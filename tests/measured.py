"""Cells for tests that use trained methods: measured, with their weights."""

from __future__ import annotations

from pathlib import Path

from hashzoo import cells, trained, zoo
from hashzoo.bench import plan
from hashzoo.bench_file import Benchmark
from hashzoo.measure import measure


def cell_of(folder: Path, method: str, **changes: object) -> Path:
    """A cell of small digits, 16 bits and one epoch unless told otherwise; the path of its JSON."""
    values = {"name": "x", "dataset": "digits.small", "backbone": "pixels", "bits": [16], "methods": [method]}
    file = Benchmark.model_validate(values | {"train": {"epochs": 1, "batch": 100}} | changes)
    (job,) = plan(file, zoo.load(), keep=True)
    cells.prepare(folder)
    path = cells.path(folder, job.identity, job.benchmark)
    cell, arrays = measure(job, keep=trained.path_of(path))
    return cells.write(folder, cell, arrays)
