"""A benchmark from Python: plan it, run it, and look at its board."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from hashzoo.api.board import Board, method_name
from hashzoo.api.services import service
from hashzoo.api.watch import Callback, Progress, Screen
from hashzoo.bench.benchmark_file import Benchmark, read
from hashzoo.bench.fallback import require_same_backbone
from hashzoo.bench.job import Execution, Job
from hashzoo.bench.measure import measure
from hashzoo.bench.nested import training_identity
from hashzoo.bench.overrides import Overrides
from hashzoo.bench.plan import plan, require_feasible
from hashzoo.bench.search import held_out, with_tuned
from hashzoo.data.held_out import HeldOut
from hashzoo.errors import UsageError, unknown_name
from hashzoo.execution.base import Limits, Observer, Silent
from hashzoo.execution.local import gpus
from hashzoo.execution.sweep import Sweep, sweep
from hashzoo.factory import MethodFactory
from hashzoo.registry.zoo import Zoo, load_plugins
from hashzoo.results import store, tuned
from hashzoo.results.cell import Cell, Identity
from hashzoo.results.durations import Durations
from hashzoo.storage.files import expand_user
from hashzoo.training.devices import resolve_device


class _Identified(Protocol):
    """A cell before it is measured."""

    @property
    def identity(self) -> Identity: ...


T = TypeVar("T", bound=_Identified)

#: Methods by name, pattern, ``head+loss``, class or factory; or a table of names and factories.
Methods = Sequence[str | MethodFactory] | Mapping[str, MethodFactory]

MOST = 8  # cells at a time on a CPU
LEAST = 16 << 20  # bytes of memory that a cell is limited to at least


class Options(TypedDict, total=False):
    """Further options of :func:`benchmark`: those of the command ``hashzoo bench``, by the same names."""

    dataset: str | Sequence[str]
    root: str | Path
    backbone: str
    metrics: Sequence[str]
    epochs: int
    precision: str
    nested: bool  # one training for all code lengths
    settings: Mapping[str, Mapping[str, Any]]  # by method, dataset, backbone, launcher or tracker, or "train"
    jobs: int
    launcher: str
    shard: tuple[int, int]
    timeout: float
    mem_limit: int  # bytes
    track: Sequence[str]
    plugins: Sequence[str]
    baselines: bool
    quick: bool
    save_weights: bool
    deterministic: bool
    rerun: str
    on_bad_image: str
    device: str
    devices: int
    workers: int
    tuned: str | Path  # the tuned.toml of a study, or its folder


class CellOptions(TypedDict, total=False):
    """Further options of :func:`run_cell`."""

    settings: Mapping[str, Mapping[str, Any]] | None  # by method, dataset or backbone; under "train", of the budget
    metrics: Sequence[str]  # by default map@all
    plugins: Sequence[str]  # plugin files or modules to load, as by --plugin


@dataclass(frozen=True)
class Plan:
    """A benchmark that was checked and is ready to run.

    Attributes:
        zoo: The plugins.
        jobs: The cells, of all shards or of the one that was asked for.
        folder: The results folder.
        how: Builds limits, launcher and trackers; a dry run needs none of them.
        unused: Names under ``settings`` that no cell uses, with a hint each.
    """

    zoo: Zoo
    jobs: list[Job]
    folder: Path
    how: Callable[[], Sweep]
    unused: list[str]


def benchmark(
    benchmark: str | Path | Benchmark = "first",
    *,
    methods: Methods | None = None,
    bits: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    results: str | Path | None = None,
    progress: Callback | bool = True,
    **options: Unpack[Options],
) -> Board:
    """Train and measure methods, and write a leaderboard.

    The same benchmark as the command ``hashzoo bench`` runs: cells that ``results`` already holds are not measured
    again, each cell runs in a process of its own, and an interrupt leaves finished cells and no partial files.

    Args:
        benchmark: Name of a shipped benchmark, path of a ``.toml``, or a :class:`Benchmark`.
        methods: Names, patterns and ``head+loss`` as on the command line; classes and factories, which need no
            registration and are named after their class (``MyMethod`` is ``my-method``); or a table of names and
            factories. By default those of the benchmark.
        bits: Code lengths.
        seeds: Seeds.
        results: The results folder; by default ``hashzoo-results/NAME``.
        progress: True shows a live table in a terminal and in Jupyter, and plain lines anywhere else. A function is
            called as ``progress(done, total, cell)`` for each finished cell instead. False shows nothing.
        **options: See :class:`Options`.

    Returns:
        The board.

    Raises:
        UsageError: If a name, an option or a number is wrong, or a method cannot serve the setting.
        EnvironmentFailure: If data, weights, a device or the disk fail.
    """
    observer = observer_of(progress)
    request = Request(benchmark, methods=methods, bits=bits, seeds=seeds, results=results, **options)
    return run(prepare(request, observer), observer)


def run_cell(
    dataset: str,
    method: str | MethodFactory,
    *,
    backbone: str = "tiny",
    bits: int = 32,
    seed: int = 0,
    **options: Unpack[CellOptions],
) -> Cell:
    """Measure one cell in this process and return it; nothing is written.

    This is what a tuner calls: there is no results folder, no other process and no isolation. What the method raises
    is raised here.

    Args:
        dataset: Name of a dataset.
        method: Name, ``head+loss``, class or factory.
        backbone: Name of a backbone.
        bits: Code length.
        seed: Seed.
        **options: See :class:`hashzoo.api.bench.CellOptions`.

    Returns:
        The cell; ``cell.metrics`` has the scores.

    Raises:
        UsageError: If a name or an option is wrong, or the method cannot serve the setting.
    """
    check_names(options, CellOptions)
    zoo = load_plugins(options.get("plugins", ()))
    (name,) = _names([method], zoo)
    file = Benchmark(
        name="cell",
        dataset=dataset,
        backbone=backbone,
        methods=[name],
        bits=[bits],
        seeds=[seed],
        metrics=list(options.get("metrics", ("map@all",))),
    )
    overrides = Overrides(settings=options.get("settings") or {})
    (job,) = [job for part, base in overrides.apply(file, zoo) for job in plan(part, zoo, base=base)]
    if job.refusal:
        raise UsageError(job.refusal)
    cell, _ = measure(job)
    return cell


def prepare(request: Request, observer: Observer | None = None) -> Plan:
    """Check a benchmark and list its cells; train nothing."""
    device = resolve_device(request.options.get("device", "auto"), request.options.get("devices", 1))
    jobs = list_jobs(request, device, observer or Silent())
    require_feasible(jobs, request.named)
    request.require_same_backbone([job.identity for job in jobs])
    if (path := request.options.get("tuned")) is not None:
        if request.options.get("nested"):
            raise UsageError("--tuned has settings for each code length; leave out --nested")
        jobs, notes = with_tuned(jobs, tuned.read(expand_user(Path(path))))
        for note in notes:
            (observer or Silent()).note(note)
    how = partial(sweep_of, request, device)
    return Plan(request.zoo, request.of_shard(jobs), request.folder, how, request.unused(job.identity for job in jobs))


class Request:
    """A benchmark and what replaces its values, read and checked by name.

    Arguments as for :func:`benchmark`.

    Attributes:
        file: The benchmark.
        zoo: The plugins.
        folder: The results folder.
        named: The methods that are named, and not selected by a pattern.
        services: The settings of launchers and trackers.
        overrides: What replaces values of the benchmark.
        options: The further options.
    """

    def __init__(
        self,
        benchmark: str | Path | Benchmark,
        *,
        methods: Methods | None = None,
        bits: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
        results: str | Path | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(options, Options)
        _check_memory(options.get("mem_limit"))
        self.file = benchmark if isinstance(benchmark, Benchmark) else read(str(benchmark))
        self.folder = expand_user(Path(results)) if results is not None else Path("hashzoo-results") / self.file.name
        self.options, self.zoo = options, load_plugins(options.get("plugins", ()))
        names = _define(self.zoo, methods)
        self.named = [name for name in names or [] if not any(letter in name for letter in "*?[")]
        services = {*self.zoo.launchers, *self.zoo.trackers}
        settings = options.get("settings", {})
        self.services = {name: table for name, table in settings.items() if name in services}
        dataset = options.get("dataset")
        self.overrides = Overrides(
            methods=names,
            datasets=[dataset] if isinstance(dataset, str) else dataset,
            root=expand_user(Path(root)) if (root := options.get("root")) is not None else None,
            backbone=options.get("backbone"),
            bits=bits,
            seeds=seeds,
            metrics=options.get("metrics"),
            epochs=options.get("epochs"),
            precision=options.get("precision"),
            nested=options.get("nested", False),
            settings={name: table for name, table in settings.items() if name not in services},
            quick=options.get("quick", False),
        )

    def of_shard(self, cells: Sequence[T]) -> list[T]:
        """The cells of the shard that was requested; all without one. Cells of one training are in one shard."""
        part, parts = self.options.get("shard", (1, 1))
        trainings: dict[tuple[str, int], list[T]] = {}
        for place, cell in enumerate(cells):
            identity = cell.identity
            nested = identity.budget.get("nested")
            trainings.setdefault((training_identity(identity).key, 0 if nested else place), []).append(cell)
        return [cell for own in list(trainings.values())[part - 1 :: parts] for cell in own]

    def require_same_backbone(self, planned: Iterable[Identity], measured: Iterable[Cell] | None = None) -> None:
        """Raise UsageError if the cells of the results folder are on another backbone and no backbone was named."""
        if self.file.fallback and self.overrides.backbone is None:
            cells = store.peek_all(self.folder) if measured is None else measured
            require_same_backbone(self.file, self.zoo, self.folder, cells, planned)

    def unused(self, identities: Iterable[Identity]) -> list[str]:
        """A line for each name whose settings reach no cell: ``dhn.weight`` is not an option of ``tanh+dhn``."""
        used = {name for one in identities for name in (one.method, one.dataset, one.backbone)}
        return [
            unknown_name("measured method, dataset or backbone", name, used)
            for name in sorted(self.overrides.settings.keys() - used - {"train"})
        ]


def run(plan: Plan, observer: Observer | None = None) -> Board:
    """Measure the cells of a plan that its folder does not hold yet, and write the board."""
    if isinstance(observer, Screen):
        observer.past = Durations(store.peek_all(plan.folder))
    cells, board = sweep(plan.jobs, plan.folder, plan.how(), observer)
    return Board(plan.folder, cells, board, plan.zoo)


def observer_of(progress: Callback | bool | Screen) -> Observer:
    """The observer for an argument ``progress`` of :func:`benchmark`, or the screen that it is."""
    if isinstance(progress, Screen):
        return progress
    if callable(progress):
        return Progress(progress)
    return Screen() if progress else Silent()


def _define(zoo: Zoo, methods: Methods | None) -> list[str] | None:
    """The names of methods, after those that were given as objects are added to the zoo."""
    if methods is None:
        return None
    if isinstance(methods, str):
        raise UsageError(f"methods is a list of methods, not {methods!r}; write [{methods!r}]")
    if isinstance(methods, Mapping):
        for name, factory in methods.items():
            zoo.define(name, factory)
        return list(methods)
    return _names(methods, zoo)


def _names(methods: Sequence[str | MethodFactory], zoo: Zoo) -> list[str]:
    names = []
    for one in methods:
        if not isinstance(one, str):
            zoo.define(method_name(one), one)
        names.append(one if isinstance(one, str) else method_name(one))
    return names


def list_jobs(request: Request, device: str, observer: Observer, held: HeldOut | None = None) -> list[Job]:
    """The jobs of a benchmark, or of the training sets of its datasets, of which a part is held out."""
    options, zoo = request.options, request.zoo
    execution = Execution(
        device=device,
        devices=options.get("devices", 1),
        workers=options.get("workers", 0),
        deterministic=options.get("deterministic", False),
        save_weights=options.get("save_weights", False),
    )
    jobs = list[Job]()
    for part, base in request.overrides.apply(request.file, zoo, observer.note):
        part = part if held is None else held_out(part, held)
        (dataset,) = part.datasets
        with observer.features(f"images of {dataset}") as progress:
            jobs += plan(
                part,
                zoo,
                base=base,
                baselines=options.get("baselines", True),
                execution=execution,
                skip_bad_images=options.get("on_bad_image", "error") == "skip",
                progress=progress,
            )
    for note in dict.fromkeys(note for job in jobs for note in job.inputs.notes):
        observer.note(note)
    return jobs


def check_names(options: Mapping[str, object], kind: type) -> None:
    """Raise UsageError for an option that is not one of a TypedDict, which Python itself does not check."""
    for name in sorted(options.keys() - kind.__annotations__.keys()):
        raise UsageError(unknown_name("option", name, kind.__annotations__))


def _check_memory(limit: int | None) -> None:
    """Raise UsageError for a limit in which no cell can run, such as 4 for 4G, and where there can be none."""
    if limit is not None and sys.platform != "linux":
        raise UsageError("a memory limit of cells works only on Linux; leave out --mem-limit")
    if limit is not None and limit < LEAST:
        raise UsageError(
            f"a memory limit of {limit} bytes is too small for any cell; use at least {LEAST >> 20}M, such as 4G"
        )


def sweep_of(request: Request, device: str) -> Sweep:
    """Limits, launcher and trackers of a sweep."""
    options, zoo, settings, folder = request.options, request.zoo, request.services, request.folder
    devices = options.get("devices", 1)
    several = {"cuda": max(len(gpus()), 1), "cpu": min(MOST, os.cpu_count() or 1)}
    at_once = several.get(device, 1)  # one cell at a time on a device that was named
    limits = Limits(options.get("jobs") or max(1, at_once // devices), options.get("timeout"), options.get("mem_limit"))
    return Sweep(
        limits=limits,
        launcher=service("launcher", zoo.launcher(options.get("launcher", "local")), settings, limits),
        trackers={name: service("tracker", zoo.tracker(name), settings, folder) for name in options.get("track", ())},
        rerun=options.get("rerun"),
        installed=zoo.code_digests,
    )
