"""What a study tries: the ranges of a method and of its budget, the points in them, and the cells of a point."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Job
from hashzoo.data.held_out import HeldOut
from hashzoo.errors import UsageError
from hashzoo.factory import FactoryInfo, options
from hashzoo.method import Deep
from hashzoo.registry.zoo import Entry
from hashzoo.results.tuned import TRAIN, Point, Tuned, vary_identity
from hashzoo.space import Log, Space, Uniform
from hashzoo.training.budget import Budget

#: The values of the budget that a study tries for every deep method, each with a column of the Sobol sequence of its
#: own, so that methods share these points.
SHARED = ("lr", "weight_decay", "backbone_lr", "dropout")
FACTOR = 30  # the learning rate is searched from 1/30 to 30 times that of the benchmark
OWN = 12  # columns for hyperparameters of the method


@dataclass(frozen=True)
class Search:
    """The ranges of one method on one benchmark.

    Attributes:
        spaces: Ranges by name: ``train.lr`` for a value of the budget, ``weight`` for a hyperparameter. Empty for a
            method that has nothing to tune.
        columns: The column of the Sobol sequence of each.
    """

    spaces: Mapping[str, Space] = field(default_factory=dict)
    columns: Mapping[str, int] = field(default_factory=dict)

    def point(self, number: int, seed: int) -> dict[str, Any]:
        """The values of a trial: none for trial 0, which is the default, and a Sobol point for every other one."""
        if not number:
            return {}
        places = _sobol(_power(number), seed)[number - 1]
        return {name: space.at(float(places[self.columns[name]])) for name, space in self.spaces.items()}

    def edges(self, point: Point) -> list[str]:
        """The values of a point at an end of their range, such as ``train.lr high``."""
        ends = {name: self.spaces[name].edge(value) for name, value in point.items() if name in self.spaces}
        return [f"{name} {end}" for name, end in ends.items() if end]


def search_of(entry: Entry, budget: Budget) -> Search:
    """The ranges of a method: of the budget, if it is deep, and of the hyperparameters that declare one."""
    own = {name: option.space for name, option in options(entry.factory).items() if option.space is not None}
    if len(own) > OWN:
        raise UsageError(f"{entry.name} declares {len(own)} ranges; at most {OWN} can be searched")
    shared = shared_spaces(budget) if entry.card.kind == "deep" else {}
    if not _drops_features(entry):
        shared.pop(f"{TRAIN}dropout", None)
    columns = {name: SHARED.index(name.removeprefix(TRAIN)) for name in shared}
    columns |= {name: len(SHARED) + place for place, name in enumerate(own)}
    return Search({**shared, **own}, columns)


def _drops_features(entry: Entry) -> bool:
    """Whether the training of a method is known to read features by a head, which ``[train] dropout`` requires.

    A loop of its own may not, and all of its trials with dropout would fail.
    """
    method = FactoryInfo(entry.factory).function
    if FactoryInfo(entry.factory).composition is not None:
        return True
    return inspect.isclass(method) and issubclass(method, Deep) and method.fit is Deep.fit


def shared_spaces(budget: Budget) -> dict[str, Space]:
    """The ranges of the values of a budget that a study tries for every deep method.

    >>> {name: str(space) for name, space in shared_spaces(Budget()).items()}  # doctest: +NORMALIZE_WHITESPACE
    {'train.lr': '3.333e-05 to 0.03 (log)', 'train.weight_decay': '1e-06 to 0.01 (log)',
     'train.backbone_lr': '0.001 to 1 (log)'}
    """
    low, high = (float(f"{value:.4g}") for value in (budget.lr / FACTOR, budget.lr * FACTOR))
    full = budget.backbone == "full"
    spaces: dict[str, Space] = {"lr": Log(low, high), "weight_decay": Log(1e-6, 1e-2)}
    spaces |= {"backbone_lr": Log(1e-3, 1.0)} if full else {"dropout": Uniform(0.0, 0.5)}
    return {TRAIN + name: space for name, space in spaces.items() if name in type(budget).model_fields}


def describe_shared() -> dict[str, str]:
    """The ranges of :func:`shared_spaces` as text, of fine-tuned and of frozen backbones.

    >>> describe_shared()["train.lr"]
    '1/30 to 30 times that of the benchmark (log)'
    """
    kinds = (("fine-tuned", "full"), ("frozen", "frozen"))
    found = {kind: shared_spaces(Budget.model_validate({"backbone": value})) for kind, value in kinds}
    texts = {f"{TRAIN}lr": f"1/{FACTOR} to {FACTOR} times that of the benchmark (log)"}
    for kind, spaces in found.items():
        for name, space in spaces.items():
            everywhere = all(name in other for other in found.values())
            texts.setdefault(name, f"{space}" if everywhere else f"{space}, {kind} backbones")
    return texts


def _power(number: int) -> int:
    """The exponent of the least power of two that is at least ``number``: a Sobol sequence is balanced at these."""
    return max(5, (number - 1).bit_length())


@cache
def _sobol(exponent: int, seed: int) -> NDArray[np.float64]:
    """(2^exponent, columns) points of a scrambled Sobol sequence; longer sequences start with the shorter ones."""
    from scipy.stats import qmc  # here, since it takes a second to import

    sequence = qmc.Sobol(len(SHARED) + OWN, scramble=True, seed=np.random.default_rng(seed))
    return np.asarray(sequence.random_base2(exponent))


def held_out(benchmark: Benchmark, part: HeldOut) -> Benchmark:
    """A benchmark on one dataset, on the training set of which a part is held out."""
    (name,) = benchmark.datasets
    held = f"{name}{part.suffix}"
    settings = benchmark.set | ({held: benchmark.set[name]} if name in benchmark.set else {})
    return benchmark.model_copy(update={"dataset": held, "set": settings})


def vary(job: Job, point: Point, mark: str = "") -> Job:
    """The job with the values of a point in place of its own, and a mark that its row begins with."""
    kept = [one for one in re.split(r" (?=[\w./-]+=)", job.row.settings) if one]
    new = {name.removeprefix(TRAIN): value for name, value in point.items()}
    kept = [one for one in kept if one.partition("=")[0] not in new]
    texts = [mark] * bool(mark) + kept + [f"{name}={value}" for name, value in new.items()]
    row = replace(job.row, settings=" ".join(texts))
    return replace(job, identity=vary_identity(job.identity, point), row=row)


def with_tuned(jobs: Sequence[Job], found: Tuned) -> tuple[list[Job], list[str]]:
    """The jobs with the settings of a study, and a line for each method that it does not have, or knows otherwise.

    Raises UsageError if it has no method, dataset and code length of the jobs.
    """
    varied, lacking, notes = list[Job](), dict[str, None](), dict[str, None]()
    for job in jobs:
        identity, epochs = job.identity, job.identity.budget["epochs"]
        study = found.find(identity.dataset, identity.method, identity.bits)
        if study is None:
            lacking[f"{identity.method} at {identity.bits} bits"] = None
        elif study.code != identity.code:
            notes[f"{identity.method}: its code changed since it was tuned; tune it again"] = None
        elif study.epochs != epochs:
            notes[f"{identity.method}: tuned at {study.epochs} epochs, not {epochs}; the best settings can differ"] = (
                None
            )
        varied.append(job if study is None else vary(job, study.settings, found.mark))
    if jobs and not any(job.row.settings.startswith(found.mark) for job in varied):
        raise UsageError(
            f"the study of {found.benchmark} has no method, dataset and code length of this benchmark; "
            "tune this benchmark, or choose others with --methods, --dataset and --bits"
        )
    return varied, [*notes, *([f"not tuned: {', '.join(lacking)}"] if lacking else [])]
