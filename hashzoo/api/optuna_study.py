"""Samplers and pruning of Optuna for a study. They are optional: ``pip install 'hashzoo[tune]'``.

Every trial is asked for and told in the same order, so a study that is interrupted, or shared by processes, asks for
the same points again and finds their cells. Optuna's storage is written at the end, for its dashboard.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashzoo.api.trials import Unit, record
from hashzoo.bench.job import Job
from hashzoo.errors import EnvironmentFailure
from hashzoo.results.cell import Cell
from hashzoo.results.tuned import Trial
from hashzoo.space import Choice, Integer, Log, Space, Uniform
from hashzoo.storage.files import disk_errors

#: The file of Optuna's storage in a results folder: ``optuna-dashboard RESULTS/optuna.log``.
STORAGE = "optuna.log"


@dataclass(frozen=True)
class Rules:
    """How settings are tried and chosen: see :class:`hashzoo.api.tuning.TuneOptions`."""

    trials: int
    sampler: str
    prune: bool
    seed: int
    metric: str
    higher: bool


class OptunaStudies:
    """One Optuna study for each unit. Each runs a trial at a time; all units run side by side.

    Args:
        rules: How settings are tried.
        units: What is tuned.

    Raises:
        EnvironmentFailure: If Optuna is not installed.
    """

    def __init__(self, rules: Rules, units: Sequence[Unit]) -> None:
        optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._running = {id(unit): _Running(optuna, rules, unit) for unit in units}

    def jobs(self) -> list[Job]:
        """The cells that are needed next; none if every unit has used its budget."""
        return [job for one in self._running.values() for job in one.jobs()]

    def tell(self, cells: Mapping[str, Cell]) -> None:
        """Take the cells of the last jobs into account."""
        for one in self._running.values():
            one.tell(cells)

    def trials(self, unit: Unit) -> list[Trial]:
        """The trials of a unit."""
        return self._running[id(unit)].done

    def write(self, folder: Path) -> None:
        """Write all studies to Optuna's storage in a folder, in place of what is there."""
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        target, beside = folder / STORAGE, folder / f".{STORAGE}-{secrets.token_hex(6)}.tmp"
        with disk_errors("write", target):
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(beside)))
            for one in self._running.values():
                name = f"{one.unit.method} {one.unit.bits} bits on {one.unit.dataset}"
                optuna.create_study(storage=storage, study_name=name, direction=one.direction).add_trials(
                    one.study.get_trials(deepcopy=False)
                )
            beside.replace(target)


def import_optuna() -> Any:
    """The module Optuna. EnvironmentFailure, with the command that installs it, if it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise EnvironmentFailure("the samplers tpe and gp need Optuna; run pip install 'hashzoo[tune]'") from error
    return optuna


class _Running:
    """The study of one unit: the trial in progress, and those that are done."""

    def __init__(self, optuna: Any, rules: Rules, unit: Unit) -> None:
        self.optuna, self.rules, self.unit = optuna, rules, unit
        self.direction = "maximize" if rules.higher else "minimize"
        self.study = optuna.create_study(
            direction=self.direction,
            sampler=_sampler(optuna, rules.sampler, rules.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4) if rules.prune else optuna.pruners.NopPruner(),
        )
        self.done = list[Trial]()
        self.used = 0  # images of trials that are done
        self._ids = dict[str, list[int]]()
        self.spaces = {name: _distribution(optuna, space) for name, space in unit.search.spaces.items()}
        self.parts = sorted({job.identity.dataset for job in unit.jobs})
        self.trial: Any = None
        self.point: dict[str, Any] = {}
        self.cells = list[Cell]()

    @property
    def budget(self) -> int:
        """The images that all trials may see together, so that pruned trials make room for others."""
        return self.rules.trials * sum(self.unit.images)

    def jobs(self) -> list[Job]:
        """The cells that are needed next: of the next fold if trials are pruned, else of the whole trial."""
        if self.trial is None and not self._ask():
            return []
        jobs = self.unit.cells(self.point)[len(self.cells) :]
        if not self.rules.prune:
            return jobs
        return [job for job in jobs if job.identity.dataset == jobs[0].identity.dataset]

    def _ask(self) -> bool:
        if self.used + sum(self.unit.images) > self.budget:
            return False
        if not self.done:  # the default, which is not a point of the ranges
            self.trial, self.point = "default", {}
        else:
            self.trial = self.study.ask(self.spaces)
            self.point = {name: _plain(self.trial.params[name]) for name in self.spaces}
        return True

    def tell(self, cells: Mapping[str, Cell]) -> None:
        """Take the cells of the last jobs into account, and end the trial if it has all, failed, or is pruned."""
        if self.trial is None:
            return
        self.cells += [cells[job.identity.key] for job in self.jobs()]
        complete = len(self.cells) == len(self.unit.jobs)
        found = record(self.unit, len(self.done), self.point, self.cells, self.rules.metric)
        pruned = False
        if self.trial != "default" and found.score is not None and self.rules.prune:
            self.trial.report(found.score, len(self.cells))
            pruned = not complete and self.trial.should_prune()
        if not complete and not pruned and found.score is not None:
            return
        if pruned:
            found = record(self.unit, len(self.done), self.point, self.cells, self.rules.metric, pruned=True)
        self._finish(found)

    def _finish(self, found: Trial) -> None:
        states = self.optuna.trial.TrialState
        if self.trial != "default":
            state = states.COMPLETE if found.score is not None else states.FAIL
            state = states.PRUNED if found.status == "pruned" else state
            self.study.tell(self.trial, found.score, state=state)
        self.done.append(found)
        self.used += found.images
        self.trial, self.cells = None, []


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.GPSampler(seed=seed)


def _distribution(optuna: Any, space: Space) -> Any:
    """The same range for Optuna."""
    kinds = optuna.distributions
    if isinstance(space, Log | Uniform):
        return kinds.FloatDistribution(space.low, space.high, log=isinstance(space, Log))
    if isinstance(space, Integer):
        return kinds.IntDistribution(space.low, space.high, log=space.log)
    if isinstance(space, Choice):
        return kinds.CategoricalDistribution(space.values)
    raise EnvironmentFailure(f"the samplers tpe and gp do not know the range {space}; use --sampler sobol")


def _plain(value: Any) -> Any:
    """A value with the digits that cells record."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
