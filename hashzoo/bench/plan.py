"""A benchmark file becomes cells: what is asked, checked whole before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hashzoo.backbone import Backbone
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import PROTOCOL, Job, uses_stored_features
from hashzoo.data.integrity import drop_bad_images, fingerprint
from hashzoo.errors import UsageError, unknown_name
from hashzoo.evaluation.code_metrics import code_metrics
from hashzoo.evaluation.metrics import ASKINGS, GROUPS, parse
from hashzoo.method import Deep, options, spreads
from hashzoo.registry.build import (
    build_backbone,
    convert_options,
    image_shape,
    inspect_images,
    load_data,
    without_paths,
)
from hashzoo.registry.source import code_digest, source_files
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.cell import Identity
from hashzoo.results.provenance import asked
from hashzoo.training.budget import Budget
from hashzoo.types import ProgressCallback, Splits


def plan(
    benchmark: Benchmark,
    zoo: Zoo,
    *,
    base: Budget | None = None,
    baselines: bool = True,
    device: str = "cpu",
    devices: int = 1,
    workers: int = 0,
    plugins: Sequence[str] = (),
    skip_bad_images: bool = False,
    keep: bool = False,
    deterministic: bool = False,
    tell: ProgressCallback | None = None,
) -> list[Job]:
    """Every cell of a benchmark on one dataset, each hyperparameter filled in, checked before anything is trained.

    A method that cannot serve the setting gives jobs with a ``refusal``; one that trains in one process only, jobs for
    one, whatever ``devices`` says. ``base`` is the budget of the file, to tell
    what differs.
    """
    (dataset,) = benchmark.datasets
    for amount in benchmark.bits:
        if amount < 1:
            raise UsageError(f"bits must be 1 or more, not {amount}")
    for seed in benchmark.seeds:
        if not 0 <= seed < 2**32:  # what every generator of numpy, scikit-learn and torch takes
            raise UsageError(f"seeds must be from 0 to {2**32 - 1}, not {seed}")
    extra = zoo.metric_functions()
    select = benchmark.train.select
    parts = {parse(name, extra).part for name in [*benchmark.metrics, *filter(None, [select])]}
    if code_metrics([select], extra):
        raise UsageError(f"[train] select = {select!r} does not rank; choose by one such as 'map@all'")
    kinds = {"shallow", "deep"}
    for named in benchmark.backbones.keys() - kinds:
        if named not in zoo.methods and "+" not in named:
            raise UsageError(f"backbones.{named}: {unknown_name('method or kind', named, {*kinds, *zoo.methods})}")
    always = [*benchmark.baselines, *benchmark.controls] if baselines else []
    names = zoo.match_methods([*always, *benchmark.methods])
    chosen = {name: zoo.method(name) for name in names}
    given = _assigned(benchmark.set, zoo, names, benchmark)
    dataset_options = convert_options("dataset", dataset, zoo.dataset(dataset).factory, given.get(dataset, {}))
    data = load_data(zoo, dataset, dataset_options)
    inspection = inspect_images(dataset, data, skip_bad_images, tell)
    data = drop_bad_images(data, inspection)
    if data.multilabel and parts & set(GROUPS):
        raise UsageError(f"{dataset} has several labels an image; /{GROUPS[0]} and its kin need one")
    if select and data.validation is None:
        has = "validation" in options(zoo.dataset(dataset).factory)
        cure = f"give --set {dataset}.validation=0.1" if has else "take a dataset that has the option validation"
        raise UsageError(f"train.select needs validation images, and {dataset} holds none out; {cure}")
    if data.pairs is None and parts & set(ASKINGS):
        raise UsageError(f"{dataset} composes no queries; /{ASKINGS[0]} and its kin need a dataset that does")
    if data.pairs is not None and (single := code_metrics(benchmark.metrics, extra)):
        raise UsageError(f"{dataset} composes its queries; {next(iter(single))} is of codes of single images")
    print_of_data, shape = fingerprint(data, inspection), image_shape(data)
    told = without_paths(zoo.dataset(dataset).factory, dataset_options, data.source, print_of_data)
    backbones: dict[str, tuple[Entry, Backbone, dict[str, Any]]] = {}
    jobs = []
    for name, entry in chosen.items():
        wanted = benchmark.backbone_for(name, entry.card.kind)
        if wanted not in backbones:
            trunk = zoo.backbone(wanted)
            settings = convert_options("backbone", wanted, trunk.factory, given.get(wanted, {}))
            backbone = build_backbone(zoo, wanted, shape, settings, 0)
            if benchmark.train.backbone != "full" and not benchmark.train.maps:
                backbone.map_dims = ()  # they are not kept
            backbones[wanted] = trunk, backbone, settings
        trunk, backbone, settings = backbones[wanted]
        recorded = settings | {name: backbone.weights for name in settings if name.endswith("weights")}
        values = convert_options("method", name, entry.factory, given.get(name, {}))
        code = code_digest(entry.factory, trunk.factory)
        known = asked(source_files(entry.factory))
        for amount in benchmark.bits:
            reason = refusal(name, entry, data, backbone, amount, values)
            jobs += [
                Job(
                    identity=Identity(
                        dataset=dataset,
                        dataset_options=told,
                        backbone=wanted,
                        backbone_options=recorded,
                        method=name,
                        hyperparameters=values,
                        bits=amount,
                        seed=seed,
                        budget=benchmark.train.recorded(),
                        protocol=PROTOCOL,
                        code=code,
                        data=print_of_data,
                    ),
                    benchmark=benchmark.name,
                    role=_role(name, benchmark),
                    budget_kind=benchmark.budget,
                    metrics=tuple(dict.fromkeys(benchmark.metrics)),
                    settings=_differences(entry, values, recorded, trunk, benchmark, base, told, data.source),
                    plugin=entry.plugin,
                    plugin_version=entry.version,
                    contaminated=bool(backbone.trained_on) and backbone.trained_on in data.pretraining,
                    backbone_options=settings,
                    device=device,
                    devices=devices if spreads(entry.factory) else 1,
                    dataset_options=dataset_options,
                    inspection=inspection,
                    stored=uses_stored_features(benchmark.train, entry),
                    workers=workers,
                    plugins=tuple(plugins),
                    keep=keep,
                    refusal=reason,
                    deterministic=deterministic,
                    asked=known,
                )
                for seed in benchmark.seeds
            ]
    return jobs


def require_feasible(jobs: Sequence[Job], names: Sequence[str]) -> None:
    """UsageError with the reason where a method asked for by name is refused on every dataset, at some bits."""
    for name in names:
        mine = [job for job in jobs if job.identity.method == name]
        refused = {job.identity.dataset: job.refusal for job in mine if job.refusal}
        if mine and refused.keys() == {job.identity.dataset for job in mine}:
            raise UsageError(next(iter(refused.values())))


def _role(name: str, benchmark: Benchmark) -> str:
    if name in benchmark.baselines:
        return "baseline"
    return "control" if name in benchmark.controls else ""


def _assigned(
    table: Mapping[str, Mapping[str, Any]], zoo: Zoo, methods: Sequence[str], benchmark: Benchmark
) -> Mapping[str, Mapping[str, Any]]:
    """The options by name, once it is sure that each name stands for something this benchmark uses."""
    used = {*methods, *benchmark.datasets, *benchmark.backbones.values(), *filter(None, [benchmark.backbone])}
    known = {*used, *zoo.methods, *zoo.datasets, *zoo.backbones}
    for name in table:
        if name not in known:
            raise UsageError(f"set {name}: {unknown_name('method, dataset or backbone', name, used)}")
    return table


def refusal(name: str, entry: Entry, data: Splits, backbone: Backbone, bits: int, values: Mapping[str, Any]) -> str:
    """Why a method cannot serve a setting, in one line with its name; empty where it can.

    It is built once, and a composition sees a batch of made-up features; an error that is no ValueError shows in its
    cell.
    """
    if data.multilabel and not entry.card.multilabel:
        return f"{name} takes one label an image and this dataset has several; take a dataset with one"
    if not data.multilabel and not entry.card.single:
        return f"{name} needs images with several labels and this dataset has one; take one with several"
    with torch.random.fork_rng(devices=[]):
        try:
            setting = data.setting(bits)
            method = entry.factory(setting, backbone, **values)
            if isinstance(method, Deep):
                method.rehearse(setting)
        except ValueError as error:
            reason = str(error).split("\n")[0]
            return reason if name in reason else f"{name}: {reason}"
        except (Exception, SystemExit):
            return ""
    return ""


def _differences(
    entry: Entry,
    values: Mapping[str, Any],
    backbone_values: Mapping[str, Any],
    backbone: Entry,
    benchmark: Benchmark,
    base: Budget | None,
    data: Mapping[str, Any],
    source: str,
) -> str:
    """What differs from the defaults and from the benchmark file's budget, for people to read."""
    parts = [f"{n}={v}" for n, v in values.items() if v != options(entry.factory)[n].default]
    parts += [
        f"{n}={v}" for n, v in backbone_values.items() if n != "weights" and v != options(backbone.factory)[n].default
    ]
    if backbone_values.get("weights", "random") != "random":
        parts.append(f"weights={backbone_values['weights']}")
    (dataset,) = benchmark.datasets
    own = {n: data[n] for n in benchmark.set.get(dataset, {})}
    parts += [f"{dataset}.{n}={v}" for n, v in own.items() if v and v != source]
    if base is not None:
        parts += [f"{n}={v}" for n, v in benchmark.train.model_dump().items() if v != base.model_dump()[n]]
    return " ".join(parts)
