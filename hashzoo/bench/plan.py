"""From a benchmark file to jobs: everything is checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from hashzoo.backbone import Backbone
from hashzoo.bench.benchmark_file import VECTOR_BACKBONE, Benchmark
from hashzoo.bench.identity import identify
from hashzoo.bench.job import Execution, Inputs, Job, Row, uses_stored_features
from hashzoo.bench.nested import nested_budget, nested_refusals, weighs_gradients
from hashzoo.bench.quantization import own_budget, record_quantization
from hashzoo.bench.suitability import (
    MetricFacts,
    Unlabelled,
    check_metrics,
    require_neighbours,
    require_relevant,
    stored_views_refusal,
    trial,
    unlabelled_images,
    unlabelled_refusal,
)
from hashzoo.data.audit import describe, lost_classes, source_findings
from hashzoo.data.integrity import Inspection, drop_bad_images, fingerprint
from hashzoo.data.vector_checks import require_different, vector_findings
from hashzoo.data.vectors import holds_vectors
from hashzoo.errors import UsageError, unknown_name
from hashzoo.factory import FactoryInfo, Option, options
from hashzoo.hookspecs import TrainingFacts
from hashzoo.registry.build import (
    build_backbone,
    convert_options,
    image_shape,
    inspect_images,
    load_data,
    without_paths,
)
from hashzoo.registry.source import source_files
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.cell import Identity
from hashzoo.results.provenance import describe_origin
from hashzoo.training.budget import Budget
from hashzoo.types import ProgressCallback, Splits

log = logging.getLogger(__name__)

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """The data of a benchmark: options as given, options as they are recorded in keys, and the images."""

    name: str
    options: Options
    recorded: Options
    data: Splits
    inspection: Inspection
    fingerprint: str
    known: Mapping[str, Option]  # the options that the dataset has
    notes: tuple[str, ...]  # what was found while its files were read


@dataclass(frozen=True)
class Trunk:
    """A backbone of a benchmark: options as given, options as they are recorded in keys, and the network."""

    entry: Entry
    options: Options
    recorded: Options
    network: Backbone


def plan(
    benchmark: Benchmark,
    zoo: Zoo,
    *,
    base: Budget | None = None,
    baselines: bool = True,
    execution: Execution | None = None,
    skip_bad_images: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Job]:
    """The cells of a benchmark on one dataset, with every hyperparameter filled in.

    Args:
        benchmark: The benchmark; it names one dataset.
        zoo: The plugins.
        base: The budget of the benchmark file. Differences from it are part of a row's settings.
        baselines: Whether the baselines and controls of the benchmark are included.
        execution: How the cells run. A method that trains in one process only gets ``devices=1``.
        skip_bad_images: Whether images that do not decode are left out instead of being an error.
        progress: Called while images are verified.

    Returns:
        The jobs. A method that cannot serve the setting gives jobs with a ``refusal``.

    Raises:
        UsageError: If a name, an option, a number or a metric of the benchmark is wrong.
        EnvironmentFailure: If an image does not decode, or weights cannot be read.
    """
    check_names(benchmark, zoo, baselines)
    dataset = _dataset(benchmark, zoo, skip_bad_images, progress)
    data = dataset.data
    benchmark = benchmark.for_data(data.labelled, bool(data.metric))
    methods = check_names(benchmark, zoo, baselines)
    dataset = replace(dataset, notes=(*dataset.notes, *_truth_notes(benchmark, dataset.name, data)))
    check_metrics(benchmark, zoo, _metric_facts(benchmark, dataset))
    require_neighbours(dataset.name, data, benchmark.metrics, zoo.metric_functions())
    require_relevant(dataset.name, data, benchmark.metrics, benchmark.train.select, zoo.metric_functions())
    trunks: dict[str, Trunk] = {}
    jobs = list[Job]()
    for name, entry in methods.items():
        wanted = benchmark.backbone_for(name, entry.card.kind, holds_vectors(data.train.images))
        if wanted not in trunks:
            trunks[wanted] = _trunk(benchmark, zoo, wanted, dataset)
        jobs += _jobs(benchmark, zoo, base, entry, dataset, trunks[wanted], execution or Execution())
    return jobs


def check_names(benchmark: Benchmark, zoo: Zoo, baselines: bool) -> dict[str, Entry]:
    """The methods of a benchmark. UsageError if a number, or a name in it, is wrong."""
    _check_numbers(benchmark)
    _check_backbone_names(benchmark, zoo)
    for name in benchmark.once:
        zoo.method(name)  # raises for an unknown one
    always = [*benchmark.baselines, *benchmark.controls] if baselines else []
    methods = {name: zoo.method(name) for name in zoo.match_methods([*always, *benchmark.methods])}
    _check_settings(benchmark, zoo, methods)
    record_quantization(benchmark.train, zoo)
    return methods


class Refusable(Protocol):
    """A cell before it is measured: a :class:`Job`, or what a dry run knows of one."""

    @property
    def identity(self) -> Identity:
        """What would be measured."""

    @property
    def refusal(self) -> str:
        """Why it cannot be measured; empty if it can."""


def require_feasible(cells: Sequence[Refusable], names: Sequence[str]) -> None:
    """Raise UsageError with the reason if a method that was named is refused on every dataset at some code length."""
    for name in names:
        mine = [cell for cell in cells if cell.identity.method == name]
        refused = {cell.identity.dataset: cell.refusal for cell in mine if cell.refusal}
        if mine and refused.keys() == {cell.identity.dataset for cell in mine}:
            raise UsageError(next(iter(refused.values())))


def _check_numbers(benchmark: Benchmark) -> None:
    for bits in benchmark.bits:
        if bits < 1:
            raise UsageError(f"bits must be 1 or more, not {bits}")
    for seed in benchmark.seeds:
        if not 0 <= seed < 2**32:  # the range of the generators of numpy, scikit-learn and torch
            raise UsageError(f"seeds must be from 0 to {2**32 - 1}, not {seed}")


def _check_backbone_names(benchmark: Benchmark, zoo: Zoo) -> None:
    kinds = {"shallow", "deep"}
    for name in benchmark.backbones.keys() - kinds:
        if name not in zoo.methods and "+" not in name:
            raise UsageError(f"backbones.{name}: {unknown_name('method or kind', name, {*kinds, *zoo.methods})}")


def _check_settings(benchmark: Benchmark, zoo: Zoo, methods: Mapping[str, Entry]) -> None:
    """Every name under ``set`` must be a method, dataset or backbone."""
    used = {*methods, *benchmark.datasets, *benchmark.backbones.values(), *filter(None, [benchmark.backbone])}
    known = {*used, *zoo.methods, *zoo.datasets, *zoo.backbones}
    for name in benchmark.set:
        if name not in known:
            raise UsageError(f"set {name}: {unknown_name('method, dataset or backbone', name, used)}")


def _dataset(benchmark: Benchmark, zoo: Zoo, skip_bad: bool, progress: ProgressCallback | None) -> Dataset:
    (name,) = benchmark.datasets
    factory = zoo.dataset(name).factory
    values = convert_options("dataset", name, factory, benchmark.set.get(name, {}))
    data = load_data(zoo, name, values)
    inspection = inspect_images(name, data, skip_bad, progress)
    notes = _notes(name, data, inspection)
    data = drop_bad_images(data, inspection)
    digest = fingerprint(data, inspection)
    recorded = without_paths(factory, values, data.source, digest)
    return Dataset(name, values, recorded, data, inspection, digest, options(factory), notes)


def _notes(name: str, data: Splits, inspection: Inspection) -> tuple[str, ...]:
    """What was found while the files of a dataset were read, and the classes of which no image decodes, a line each."""
    usable = {part: ~np.isin(np.arange(len(split)), list(inspection.bad[part])) for part, split in data.parts().items()}
    lost = lost_classes(data, usable) if inspection.left_out else []
    return tuple(f"{name}: {one.name}: {describe(one)}" for one in [*source_findings(data), *lost] if one.count)


def _truth_notes(benchmark: Benchmark, name: str, data: Splits) -> tuple[str, ...]:
    """What was found in vectors, and where the truth is not what the data says, a line each."""
    if not holds_vectors(data.train.images):
        if not benchmark.truth.neighbours:
            return ()
        return (f"{name}: the truth of recall@k are the database images with the nearest features, by cosine",)
    findings = vector_findings(data)
    require_different(name, data, findings)
    notes = [f"{name}: {one.name}: {describe(one)}" for one in findings if one.count]
    other = {benchmark.backbone, *benchmark.backbones.values()} - {None, VECTOR_BACKBONE}
    if other:
        notes.append(f"{name}: vectors are their own features; backbone {VECTOR_BACKBONE}, not {min(map(str, other))}")
    return tuple(notes)


def _metric_facts(benchmark: Benchmark, dataset: Dataset) -> MetricFacts:
    data = dataset.data
    exact = bool(data.metric or benchmark.truth.neighbours)
    shape = data.multilabel, data.validation is not None, data.pairs is not None
    return MetricFacts("validation" in dataset.known, *shape, data.labelled, exact)


def _trunk(benchmark: Benchmark, zoo: Zoo, name: str, dataset: Dataset) -> Trunk:
    entry = zoo.backbone(name)
    values = convert_options("backbone", name, entry.factory, benchmark.set.get(name, {}))
    network = build_backbone(zoo, name, image_shape(dataset.data), values, 0)
    if benchmark.train.backbone != "full" and not benchmark.train.maps:
        network.map_dims = ()  # feature maps are not stored
    # a weights file is recorded by its digest, not by its path
    recorded = values | {option: network.weights for option in values if option.endswith("weights")}
    for option in FactoryInfo(entry.factory).unrecorded:
        recorded.pop(option, None)
    if network.note:
        log.warning(network.note)
    return Trunk(entry, values, recorded, network)


def _jobs(
    benchmark: Benchmark,
    zoo: Zoo,
    base: Budget | None,
    entry: Entry,
    dataset: Dataset,
    trunk: Trunk,
    execution: Execution,
) -> Iterator[Job]:
    """The jobs of one method: every code length and seed."""
    values = convert_options("method", entry.name, entry.factory, benchmark.set.get(entry.name, {}))
    base_identity = identify(benchmark, zoo, entry, values, dataset, trunk)
    origin = describe_origin(source_files(entry.factory))
    row = Row(
        benchmark=benchmark.name,
        role=_role(entry.name, benchmark),
        budget_kind=benchmark.budget,
        settings=" ".join(_settings(benchmark, base, entry, values, dataset, trunk)),
        plugin=entry.plugin,
        plugin_version=entry.version,
        contaminated=bool(trunk.network.trained_on) and trunk.network.trained_on in dataset.data.pretraining,
    )
    inputs = Inputs(
        dataset_options=dataset.options,
        backbone_options=trunk.options,
        plugins=zoo.extra,
        definitions={entry.name: zoo.definitions[entry.name]} if entry.name in zoo.definitions else {},
        inspection=dataset.inspection,
        stored=uses_stored_features(benchmark.train, entry),
        notes=dataset.notes,
    )
    if not FactoryInfo(entry.factory).distributed or weighs_gradients(base_identity):
        execution = replace(execution, devices=1)
    reasons = dict[int, str]()
    for bits in benchmark.bits_of(entry.name):
        facts = training_facts(bits, values, benchmark.train, dataset.data, trunk.network.dim)
        reasons[bits] = (
            _refusal(entry, dataset, trunk, bits, values)
            or stored_views_refusal(entry, dataset.data.setting(bits), trunk.network, values, benchmark.train)
            or unmet(zoo, entry, facts)
        )
    for bits, reason in nested_refusals(benchmark, entry, reasons).items():
        for seed in dict.fromkeys(benchmark.seeds):
            identity = replace(base_identity, bits=bits, seed=seed)
            yield Job(identity, row, tuple(dict.fromkeys(benchmark.metrics)), inputs, execution, reason, origin)


def _role(name: str, benchmark: Benchmark) -> str:
    if name in benchmark.baselines:
        return "baseline"
    return "control" if name in benchmark.controls else ""


def _refusal(entry: Entry, dataset: Dataset, trunk: Trunk, bits: int, values: Options) -> str:
    return refusal(entry, dataset.data, trunk.network, bits, values, dataset.name, dataset.known)


def refusal(
    entry: Entry,
    data: Splits,
    backbone: Backbone,
    bits: int,
    values: Options,
    dataset: str = "",
    known: Mapping[str, Option] = {},
) -> str:
    """Why a method cannot serve a setting, in one line that names the method; empty if it can.

    The method is built once, and a head and loss see a made-up batch. Any other error than ValueError is left to the
    cell, which reports it. ``dataset`` is the name of the dataset and ``known`` are its options, for the message.
    """
    setting = data.setting(bits)
    check = partial(unlabelled_refusal, setting=setting, found=Unlabelled.of(data, dataset, known))
    reason = unfit(entry, data.multilabel, data.labelled) or trial(entry, setting, backbone, values, check)
    return reason if not reason or entry.name in reason else f"{entry.name}: {reason}"


def unfit(entry: Entry, multilabel: bool, labelled: bool = True) -> str:
    """Why a method cannot serve images with several labels, with one, or without any; empty if it can."""
    name = entry.name
    if not labelled:
        if entry.card.supervision == "none":
            return ""
        return (
            f"{name} learns from labels and this dataset has none; choose a method that hashzoo list methods "
            "--supervision none lists, or give labels"
        )
    if multilabel and not entry.card.multilabel:
        return f"{name} takes one label per image and this dataset has several; use a single-label dataset"
    if not multilabel and not entry.card.single:
        return f"{name} needs several labels per image and this dataset has one; use a multi-label dataset"
    return ""


def training_facts(bits: int, values: Options, budget: Budget, data: Splits, features: int) -> TrainingFacts:
    """The facts that requirements of methods read."""
    return TrainingFacts(
        bits=bits,
        batch=budget.batch,
        options=values,
        images=len(data.train),
        features=features,
        classes=data.train.labels.shape[1],
        unlabelled=unlabelled_images(data),
    )


def unmet(zoo: Zoo, entry: Entry, facts: TrainingFacts) -> str:
    """Why a method cannot train on so many images or with these labels; empty if it can, or too little is known."""
    if entry.card.kind == "deep" and facts.images is not None and facts.images < 2:
        return f"{entry.name} trains on batches of two images or more; the training set has {facts.images}"
    return zoo.unmet(entry.name, facts)


def _settings(
    benchmark: Benchmark, base: Budget | None, entry: Entry, values: Options, dataset: Dataset, trunk: Trunk
) -> Iterator[str]:
    """What differs from the defaults and from the budget of the benchmark file, as ``NAME=VALUE``."""
    for name, value in values.items():
        if value != options(entry.factory)[name].default:
            yield f"{name}={value}"
    for name, value in trunk.recorded.items():
        if name != "weights" and value != options(trunk.entry.factory)[name].default:
            yield f"{name}={value}"
    if trunk.recorded.get("weights", "random") != "random":
        yield f"weights={trunk.recorded['weights']}"
    given = [value for name, value in trunk.options.items() if name.endswith("weights") and isinstance(value, str)]
    if any(value not in ("default", "random") for value in given):
        yield f"trained_on={trunk.network.trained_on or 'unknown'}"  # what a file of the user's own has seen
    if benchmark.truth.neighbours:
        yield f"truth={benchmark.truth.neighbours}"
    for name in benchmark.set.get(dataset.name, {}):
        value = dataset.recorded.get(name)
        if value and value != dataset.data.source:
            yield f"{dataset.name}.{name}={value}"
    budget = nested_budget(own_budget(benchmark.train, entry), entry, benchmark.bits)
    for name, value in budget.model_dump().items() if base is not None else ():
        if base is not None and value != base.model_dump()[name]:
            yield f"{name}={value}"
