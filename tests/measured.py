"""Cells for tests that use trained methods: measured, with their weights."""

from __future__ import annotations

from pathlib import Path

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.registry import saved_method, zoo
from hashzoo.results import store


def cell_of(folder: Path, method: str, **changes: object) -> Path:
    """A cell of small digits, 16 bits and one epoch unless told otherwise; the path of its JSON."""
    values = {"name": "x", "dataset": "digits.small", "backbone": "pixels", "bits": [16], "methods": [method]}
    file = Benchmark.model_validate(values | {"train": {"epochs": 1, "batch": 100}} | changes)
    (job,) = plan(file, zoo.load_plugins(), execution=Execution(save_weights=True))
    store.prepare(folder)
    path = store.path(folder, job.identity, job.benchmark)
    cell, arrays = measure(job, keep=saved_method.path_of(path))
    return store.write(folder, cell, arrays)
