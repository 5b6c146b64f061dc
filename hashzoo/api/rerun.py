"""Measure random cells of others again on this machine, from their identity alone, and compare the scores."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashzoo.api.bench import Request, list_jobs
from hashzoo.bench.benchmark_file import checked
from hashzoo.bench.job import Job
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.execution.base import Limits, Silent
from hashzoo.execution.sweep import Sweep, sweep
from hashzoo.factory import options
from hashzoo.registry.build import path_options
from hashzoo.registry.zoo import Entry, Zoo, load_plugins
from hashzoo.results.bundle import counted
from hashzoo.results.bundle_checks import FAILED, NOTE, OK, UNCHECKED, Lines, title
from hashzoo.results.cell import Cell

BUILT_IN = ("default", "random")  # values of options for weights that name no file


@dataclass(frozen=True)
class Rerun:
    """Which cells are measured again, and how.

    Attributes:
        number: How many cells; 0 measures none.
        seed: Draws the cells; None draws others each time.
        tolerance: The largest difference of a score that is allowed.
        root: The folder of the dataset's files.
        settings: Options by the name of a dataset or backbone, such as the path of weights.
        timeout: Seconds that a cell can take; None sets no limit.
    """

    number: int = 0
    seed: int | None = None
    tolerance: float = 0.0
    root: Path | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout: float | None = None


def rerun(cells: Sequence[Cell], how: Rerun, plugins: Sequence[str] = ()) -> Lines:
    """Measure random finished cells again, each in a process of its own, in a folder that is deleted afterwards.

    No path, file name or plugin is taken from a cell: those are given in ``how`` and ``plugins``. A cell whose key is
    another one here, because its data, weights or code are, is not measured.
    """
    finished = sorted((cell for cell in cells if cell.status == "ok"), key=lambda cell: cell.identity.key)
    seed = random.SystemRandom().randrange(2**32) if how.seed is None else how.seed
    drawn = random.Random(seed).sample(finished, min(how.number, len(finished)))  # nosec B311 # no secret
    zoo, jobs = load_plugins(plugins), dict[str, Job]()
    for cell in drawn:
        job = _job_of(cell, zoo, how, plugins)
        if isinstance(job, str):
            yield UNCHECKED, f"{title(cell)}: {job}"
        else:
            jobs[cell.identity.key] = job
    measured = _measured(list(jobs.values()), how)
    wrong = [
        (cell, text)
        for cell in drawn
        if cell.identity.key in measured
        for text in _differences(cell, measured[cell.identity.key], how.tolerance)
    ]
    for cell, text in wrong:
        yield FAILED, f"{title(cell)}: {text}"
    same = len(measured) - len({id(cell) for cell, _ in wrong})
    equal = "the same to the last digit" if not how.tolerance else f"the same up to {how.tolerance:g}"
    status = OK if same == len(drawn) else NOTE
    yield status, f"{equal}: {same} of {counted(len(drawn), 'cell')}, drawn with seed {seed}"


def _measured(jobs: list[Job], how: Rerun) -> dict[str, Cell]:
    """The cells of jobs by key, measured in a folder that is deleted."""
    if not jobs:
        return {}
    with tempfile.TemporaryDirectory(prefix="hashzoo-rerun-") as folder:
        cells, _ = sweep(jobs, Path(folder), Sweep(Limits(1, how.timeout)))
    return {cell.identity.key: cell for cell in cells}


def _differences(cell: Cell, again: Cell, tolerance: float) -> list[str]:
    if again.status != "ok":
        return [f"here it is {again.status}: {again.reason}"]
    found = []
    for name, score in sorted(cell.metrics.items()):
        other = again.metrics.get(name)
        if other is None:
            found.append(f"{name} is not measured here")
        elif not (math.isnan(score) and math.isnan(other)) and not abs(score - other) <= tolerance:
            found.append(f"{name} is {score!r}, and {other!r} here{_elsewhere(cell, again)}")
    return found


def _elsewhere(cell: Cell, again: Cell) -> str:
    """What can change digits: other versions or another processor."""
    names = {"versions": "versions", "cpu_capability": "CPU instructions", "device": "device"}
    other = [text for name, text in names.items() if cell.provenance.get(name) != again.provenance.get(name)]
    return f" (other {' and '.join(other)}; --tolerance allows a difference)" if other else ""


def _job_of(cell: Cell, zoo: Zoo, how: Rerun, plugins: Sequence[str]) -> Job | str:
    """The job that measures a cell again, or why there is none."""
    identity = cell.identity
    try:
        request = Request(_benchmark(cell, zoo, how), plugins=plugins, baselines=False)
        (job,) = list_jobs(request, "cpu", Silent())
    except (UsageError, EnvironmentFailure, OSError) as error:
        return str(error)
    if job.refusal:
        return job.refusal
    if job.identity.key == identity.key:
        return job
    here = vars(job.identity)
    other = ", ".join(name for name, value in vars(identity).items() if here[name] != value)
    return f"here it is another cell: {other.replace('_', ' ')} differ"


def _benchmark(cell: Cell, zoo: Zoo, how: Rerun) -> Any:
    """A benchmark of one cell, without the paths and files of its options."""
    identity = cell.identity
    kept = {
        identity.dataset: _without(identity.dataset_options, zoo.dataset(identity.dataset)),
        identity.method: _without(identity.hyperparameters, zoo.method(identity.method)),
        identity.backbone: _without(identity.backbone_options, zoo.backbone(identity.backbone)),
    }
    if how.root is not None and "root" in options(zoo.dataset(identity.dataset).factory):
        kept[identity.dataset]["root"] = str(how.root.absolute())
    for name, table in how.settings.items():
        if name in kept:
            kept[name] |= table
    budget = dict(identity.budget)
    if "quantization" in budget:
        budget["quantization"] = str(budget["quantization"]).partition(" ")[0]
    return checked(
        {
            "name": cell.benchmark,
            "dataset": identity.dataset,
            "backbone": identity.backbone,
            "methods": [identity.method],
            "bits": [identity.bits],
            "seeds": [identity.seed],
            "metrics": [name for name in cell.metrics if not name.endswith("/selected")],
            "train": budget,
            "truth": {"neighbours": identity.dataset_options.get("truth", "")},
            "set": {name: table for name, table in kept.items() if table},
        },
        title(cell),
    )


def _without(given: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """Options without paths, without weights unless they name no file, and without the truth of a benchmark."""
    paths = path_options(entry.factory) | {"truth"} - options(entry.factory).keys()
    return {
        name: value
        for name, value in given.items()
        if name not in paths and (not name.endswith("weights") or value in BUILT_IN)
    }
