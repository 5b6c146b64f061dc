"""A small board measured once, and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.registry import saved_method, zoo
from hashzoo.report.page import PageOptions, render_page
from hashzoo.results import store

HOSTILE = '</script><script>window.broken=1</script><img src=x onerror="window.broken=1">"\'&{{7*7}}'


def put(folder: Path, house: zoo.Zoo, methods: list[str], **changes: object) -> None:
    """Measure cells on small digits and keep their weights."""
    values = {"name": "small", "dataset": "digits.small", "backbone": "pixels", "bits": [8, 16], "methods": methods}
    values |= {"train": {"epochs": 1, "batch": 64, "lr": 3e-3}, "controls": []} | changes
    for job in plan(Benchmark.model_validate(values), house, execution=Execution(save_weights=True)):
        path = store.path(folder, job.identity, job.benchmark)
        cell, arrays = measure(job, keep=saved_method.path_of(path))
        store.write(folder, cell, arrays)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Two shallow methods of three seeds at two lengths, a deep one with attention, a control."""
    folder, house = tmp_path_factory.mktemp("board"), zoo.load_plugins()
    store.prepare(folder)
    put(folder, house, ["lsh", "itq"], seeds=[0, 1, 2])
    put(folder, house, ["sfdh"], backbone="tiny", bits=[16])
    put(folder, house, [], controls=["chance"])
    return folder


@pytest.fixture(scope="session")
def hostile(results, tmp_path_factory):
    """The same with names, settings and reasons that would like to be HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    for file in sorted((results / "cells").glob("*.json")):
        cell = store.read(file)
        store.write(folder, cell, store.arrays(file))
        if cell.identity.method != "sfdh":
            continue
        named = {"method": f"m{HOSTILE}", "backbone": f"b{HOSTILE}", "seed": 5}
        changes = {"settings": f"s={HOSTILE}", "plugin": HOSTILE, "benchmark": f"small{HOSTILE}", "role": "baseline"}
        odd = replace(cell, identity=replace(cell.identity, **named), **changes)
        odd = replace(odd, metrics={**odd.metrics, f"x{HOSTILE}": 0.5}, facts={**odd.facts, "marks": HOSTILE})
        store.write(folder, replace(odd, provenance={"command": HOSTILE, "platform": HOSTILE}), store.arrays(file))
        failed = replace(cell.identity, method=f"f{HOSTILE}", dataset=f"d{HOSTILE}")
        store.write(folder, replace(cell, identity=failed, status="failed", reason=HOSTILE, metrics={}), {})
    return folder


@pytest.fixture(scope="session")
def html(results):
    """The page of the board."""
    return render_page(results, PageOptions(gallery=3))
