"""A study: every method of a benchmark is tuned with the same number of trials, on images held out of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

from hashzoo._version import __version__
from hashzoo.api.bench import Methods, Options, Request, check_names, list_jobs, observer_of, sweep_of
from hashzoo.api.trials import Unit, record
from hashzoo.api.watch import Callback, Screen
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Job, load_job_data
from hashzoo.bench.search import search_of
from hashzoo.data.held_out import HeldOut, parse
from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import higher_is_better
from hashzoo.execution.base import Observer
from hashzoo.execution.sweep import sweep
from hashzoo.results import store, tuned
from hashzoo.results.cell import Cell
from hashzoo.results.durations import Durations
from hashzoo.results.tuned import Point, Trial, Tuned, TunedMethod
from hashzoo.training.budget import Budget
from hashzoo.training.devices import resolve_device

NOTHING = "it has nothing to tune"

Sampler = Literal["sobol", "tpe", "gp"]


class TuneOptions(Options, total=False):
    """Further options of :func:`tune`: those of :func:`hashzoo.benchmark`, and how settings are tried and chosen."""

    trials: int  # by default 20
    folds: int  # cross-validation, in place of one held-out part
    validation: float  # the part of the training set that is held out, by default 0.2
    metric: str  # by default map@all
    sampler: Sampler  # by default sobol
    prune: bool  # with tpe or gp and folds: end a trial after a fold in which it is worse than the median
    study_seed: int  # seed of the points and of the held-out images


@dataclass(frozen=True)
class Study:
    """The result of :func:`tune`.

    Attributes:
        folder: The results folder, with the cells of all trials.
        tuned: The chosen settings and all trials; None if cells of other shards are missing.
        left_out: Methods that have nothing to tune or do not fit, each with the reason.
    """

    folder: Path
    tuned: Tuned | None
    left_out: dict[str, str]

    @property
    def file(self) -> Path:
        """The file of the chosen settings, for ``hashzoo bench --tuned``."""
        return self.folder / tuned.FILE

    @property
    def failed(self) -> list[TunedMethod]:
        """The methods of which every trial failed."""
        return [one for one in self.tuned.methods if one.chosen < 0] if self.tuned else []


def tune(
    benchmark: str | Path | Benchmark = "first",
    *,
    methods: Methods | None = None,
    bits: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    results: str | Path | None = None,
    progress: Callback | bool = True,
    **options: Unpack[TuneOptions],
) -> Study:
    """Tune every method with the same number of trials, and write ``tuned.toml``.

    A trial trains a method on the training set without a held-out part, one half of which then searches the other;
    queries and database are never used. Trial 0 is the default. Trials are ordinary cells: those that ``results`` holds
    are not measured again, and processes that share the folder share the work.

    Args:
        benchmark: As for :func:`hashzoo.benchmark`.
        methods: As for :func:`hashzoo.benchmark`.
        bits: Code lengths; each is tuned.
        seeds: Seeds of training; the score of a trial is the mean over them.
        results: The results folder; by default ``hashzoo-results/NAME-tuning``.
        progress: As for :func:`hashzoo.benchmark`.
        **options: See :class:`hashzoo.api.tuning.TuneOptions`.

    Returns:
        The study. ``hashzoo.benchmark(..., tuned=study.file)`` measures the chosen settings.

    Raises:
        UsageError: If a name, an option or a number is wrong, or a method cannot serve the setting.
        EnvironmentFailure: If data, weights, a device or the disk fail, or Optuna is not installed.
    """
    study = StudyRequest(benchmark, methods=methods, bits=bits, seeds=seeds, results=results, **options)
    return study.run(observer_of(progress))


class StudyRequest:
    """A study, read and checked by name. Arguments as for :func:`tune`."""

    def __init__(self, benchmark: str | Path | Benchmark, **asked: Any) -> None:
        check_names({name: value for name, value in asked.items() if name not in _ARGUMENTS}, TuneOptions)
        own = {name: asked.pop(name) for name in TuneOptions.__annotations__ if name in asked and name not in _SHARED}
        if "tuned" in asked or "metrics" in asked:
            raise UsageError("a study has no tuned settings and one metric; leave out tuned, and give metric")
        if asked.get("nested"):
            raise UsageError("a study tunes each code length by itself; leave out nested")
        self.metric: str = own.get("metric", "map@all")
        self.trials: int = own.get("trials", 20)
        self.sampler: str = own.get("sampler", "sobol")
        self.prune: bool = own.get("prune", False)
        self.seed: int = own.get("study_seed", 0)
        self.cuts = _cuts(own.get("folds"), own.get("validation"), self.seed)
        self.request = Request(benchmark, **asked, metrics=[self.metric])
        if asked.get("results") is None:
            self.request.folder = Path("hashzoo-results") / f"{self.request.file.name}-tuning"
        self.higher = higher_is_better(self.metric, self.request.zoo.metric_functions())
        self._check()

    def _check(self) -> None:
        if self.trials < 1:
            raise UsageError(f"a study needs 1 trial or more, not {self.trials}")
        if self.sampler not in ("sobol", "tpe", "gp"):
            raise UsageError(f"the sampler must be sobol, tpe or gp, not {self.sampler!r}")
        if self.prune and (self.sampler == "sobol" or len(self.cuts) < 2):
            raise UsageError("pruning compares folds as they finish; add --sampler tpe or gp, and --folds 2 or more")
        if "shard" in self.request.options and self.sampler != "sobol":
            raise UsageError(f"{self.sampler} needs all earlier trials; share one results folder in place of --shard")

    def units(self, observer: Observer) -> tuple[list[Unit], dict[str, str]]:
        """What is tuned; and the methods that are left out, with a reason each."""
        device = resolve_device(self.request.options.get("device", "auto"), self.request.options.get("devices", 1))
        units, left_out = dict[tuple[str, str, int], Unit](), dict[str, str]()
        sizes = dict[str, int]()
        for cut in self.cuts:
            for job in list_jobs(self.request, device, observer, cut):
                identity = job.identity
                dataset, _ = parse(identity.dataset)
                budget = Budget.model_validate(identity.budget)
                entry = self.request.zoo.method(identity.method)
                search = search_of(entry, budget)
                if job.refusal or not search.spaces:
                    left_out[identity.method] = job.refusal or NOTHING
                    continue
                if identity.dataset not in sizes:
                    sizes[identity.dataset] = len(load_job_data(job, self.request.zoo)[0].train)
                place = dataset, identity.method, identity.bits
                unit = units.setdefault(place, Unit(*place, search))
                unit.jobs.append(job)
                passes = budget.epochs if entry.card.kind == "deep" else 1
                unit.images.append(sizes[identity.dataset] * passes)
        refused = {name for name in self.request.named if left_out.get(name, NOTHING) != NOTHING}
        for name in sorted(refused - {unit.method for unit in units.values()}) or ([] if units else sorted(left_out)):
            raise UsageError(f"{name} cannot be tuned: {left_out[name]}")
        return list(units.values()), left_out

    def cost(self, observer: Observer) -> list[dict[str, Any]]:
        """The cells of each method, those that are pending, and their seconds as far as they are known."""
        folders = (self.request.folder, Path("hashzoo-results") / self.request.file.name)
        measured = [cell for folder in folders for cell in store.peek_all(folder)]
        known, durations = {cell.identity.key for cell in measured}, Durations(measured)
        found = []
        for unit in self.units(observer)[0]:
            numbers = range(self.trials if self.sampler == "sobol" else 1)
            jobs = [job for n in numbers for job in unit.cells(unit.search.point(n, self.seed))]
            pending = [job.identity for job in jobs if job.identity.key not in known]
            if self.sampler != "sobol":  # later trials depend on earlier ones
                pending += [job.identity for job in unit.jobs] * (self.trials - 1)
            seconds, unknown = durations.total(pending)
            line = {"method": unit.method, "dataset": unit.dataset, "bits": unit.bits, "pending": len(pending)}
            found.append({**line, "seconds": None if unknown else seconds})
        return found

    def run(self, observer: Observer) -> Study:
        """Measure the trials that the folder does not hold yet, choose, and write the result."""
        store.prepare(self.request.folder)
        units, left_out = self.units(observer)
        for name, reason in left_out.items():
            observer.note(f"not tuned: {reason if name in reason else f'{name}: {reason}'}")
        if isinstance(observer, Screen):
            observer.past = Durations(store.peek_all(self.request.folder))
        methods = self._with_sobol(units, observer) if self.sampler == "sobol" else self._with_optuna(units, observer)
        if methods is None:
            return Study(self.request.folder, None, left_out)
        found = Tuned(
            hashzoo=__version__,
            benchmark=self.request.file.name,
            metric=self.metric,
            higher=self.higher,
            trials=self.trials,
            sampler=self.sampler + "+pruning" * self.prune,
            seed=self.seed,
            held_out=[cut.suffix[1:] for cut in self.cuts],
            seeds=sorted({job.identity.seed for unit in units for job in unit.jobs}),
            methods=methods,
        )
        study = Study(self.request.folder, found, left_out)
        tuned.write(found, study.file)
        return study

    def measured(self, jobs: Iterable[Job], observer: Observer) -> dict[str, Cell]:
        """The cells of jobs by key, measured unless the folder holds them; two jobs of one key are one cell."""
        single = list({job.identity.key: job for job in jobs}.values())
        device = single[0].execution.device if single else "cpu"
        cells, _ = sweep(single, self.request.folder, sweep_of(self.request, device), observer)
        return {cell.identity.key: cell for cell in cells}

    def chosen(self, unit: Unit, trials: list[Trial]) -> TunedMethod:
        """The best of the trials of a method; the first of equal ones."""
        sign = 1.0 if self.higher else -1.0
        ok = [(sign * one.score, -one.number, one) for one in trials if one.score is not None]
        best = max(ok)[2] if ok else None
        identity = unit.jobs[0].identity
        return TunedMethod(
            dataset=unit.dataset,
            method=unit.method,
            bits=unit.bits,
            backbone=identity.backbone,
            code=identity.code,
            epochs=identity.budget["epochs"],
            chosen=best.number if best else -1,
            score=best.score if best else None,
            default=trials[0].score if trials else None,
            edges=unit.search.edges(best.settings) if best else [],
            settings=best.settings if best else {},
            trials=trials,
        )

    def _with_sobol(self, units: list[Unit], observer: Observer) -> list[TunedMethod] | None:
        """The methods, each with the same Sobol points; None if cells of other shards are missing."""
        points = {id(unit): [unit.search.point(n, self.seed) for n in range(self.trials)] for unit in units}
        jobs = [job for n in range(self.trials) for unit in units for job in unit.cells(points[id(unit)][n])]
        cells = self.measured(self.request.of_shard(jobs), observer)
        if "shard" in self.request.options:
            cells |= {cell.identity.key: cell for cell in store.peek_all(self.request.folder)}
        if missing := {job.identity.key for job in jobs} - cells.keys():
            observer.note(
                f"{len(missing)} cells of other shards are missing; merge the folders, then run this without --shard"
            )
            return None
        return [self.chosen(unit, list(self._trials(unit, points[id(unit)], cells))) for unit in units]

    def _trials(self, unit: Unit, points: Sequence[Point], cells: dict[str, Cell]) -> Iterator[Trial]:
        for number, point in enumerate(points):
            yield record(unit, number, point, [cells[job.identity.key] for job in unit.cells(point)], self.metric)

    def _with_optuna(self, units: list[Unit], observer: Observer) -> list[TunedMethod]:
        from hashzoo.api.optuna_study import OptunaStudies, Rules  # here, since Optuna is optional

        rules = Rules(self.trials, self.sampler, self.prune, self.seed, self.metric, self.higher)
        studies = OptunaStudies(rules, units)
        while jobs := studies.jobs():
            studies.tell(self.measured(jobs, observer))
        studies.write(self.request.folder)
        return [self.chosen(unit, studies.trials(unit)) for unit in units]


_ARGUMENTS = frozenset({"methods", "bits", "seeds", "results"})

#: Options that :func:`hashzoo.benchmark` has too.
_SHARED = frozenset(Options.__annotations__)


def _cuts(folds: int | None, validation: float | None, seed: int) -> list[HeldOut]:
    if folds is not None and validation is not None:
        raise UsageError("--folds and --validation exclude each other; give one of them")
    if folds is not None and folds < 2:
        raise UsageError(f"cross-validation needs 2 folds or more, not {folds}")
    if folds is None:
        return [HeldOut(fraction=0.2 if validation is None else validation, seed=seed)]
    return [HeldOut(folds, fold, seed=seed) for fold in range(1, folds + 1)]
