"""A benchmark file becomes cells: what is asked, checked whole before anything is trained."""

from __future__ import annotations

import hashlib
import inspect as signatures
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from hashzoo.bench_file import Benchmark
from hashzoo.cells import Identity
from hashzoo.diagnostics import of_codes
from hashzoo.errors import HashzooError, TroubleError, UsageError, first_line, unknown
from hashzoo.inspection import Inspection, inspect, kept
from hashzoo.method import Backbone, Deep, options, spreads
from hashzoo.metrics import ASKINGS, GROUPS, parse
from hashzoo.pictures import as_tensor
from hashzoo.provenance import asked
from hashzoo.run import Train
from hashzoo.types import Splits, Tell
from hashzoo.zoo import Entry, Zoo, code_digest, source_files

#: The version of the way scores are taken. Raise it with any change of the core that can change a score.
PROTOCOL = 1


@dataclass(frozen=True)
class Job:
    """One cell to measure, with all that a process of its own needs to know. ``refusal`` says why it cannot be."""

    identity: Identity
    benchmark: str
    role: str
    budget_kind: str
    metrics: tuple[str, ...]
    settings: str
    plugin: str
    plugin_version: str
    contaminated: bool
    backbone_options: dict[str, Any]  # as given; the identity has the digest of a weights file, not its path
    device: str = "cpu"
    devices: int = 1  # processes that train it together
    dataset_options: dict[str, Any] = field(default_factory=dict)  # as given; the identity has no path
    inspection: Inspection | None = None
    stored: bool = False  # whether it reads stored features
    workers: int = 0
    plugins: tuple[str, ...] = ()
    keep: bool = False
    refusal: str = ""
    deterministic: bool = False  # whether an operation without a deterministic form is an error
    asked: dict[str, Any] = field(default_factory=dict)  # provenance that only who makes the job knows

    @property
    def title(self) -> str:
        """How the cell is called on the screen."""
        return f"{self.identity.method} {self.identity.bits} bits seed {self.identity.seed}"


def convert(kind: str, name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a factory, defaults filled in, with the given values in the declared types."""
    known = options(factory)
    for key in given:
        if key not in known:
            where = f"{kind} {name} has "
            raise UsageError(where + (unknown("option", key, known) if known else f"no options; {key!r} was given"))
    values = {}
    for key, option in known.items():
        if key not in given:
            if option.default is signatures.Parameter.empty:
                short = "--root FOLDER or " if key == "root" else ""
                raise UsageError(f"{kind} {name} needs its option {key}; give {short}--set {name}.{key}=VALUE")
            values[key] = option.default
            continue
        try:
            values[key] = TypeAdapter(option.annotation).validate_python(given[key])
        except ValidationError as error:
            text = error.errors()[0]["msg"]
            raise UsageError(f"{name}.{key} = {given[key]!r}: {text[0].lower() + text[1:]}") from error
    return values


def load_data(zoo: Zoo, name: str, given: Mapping[str, Any]) -> Splits:
    """The splits of a data set. UsageError for options that it cannot serve, and for an empty part."""
    try:
        data: Splits = zoo.dataset(name).factory(**given)
    except ValueError as error:
        raise UsageError(f"dataset {name}: {error}") from error
    for part, split in data.parts().items():
        if not len(split):
            raise UsageError(f"the {part} split of {name} is empty")
    return data


def examined(name: str, data: Splits, skip_bad: bool, tell: Tell | None = None) -> Inspection:
    """What a look at every picture found. TroubleError naming the first that does not decode, unless to be skipped."""
    found = inspect(data, tell)
    for part, bad in found.bad.items():
        if bad and not skip_bad:
            row, reason = next(iter(bad.items()))
            raise TroubleError(
                f"picture {int(data.parts()[part].ids[row])} of the {part} split of {name} does not decode: {reason}; "
                f"mend or remove it, or use --on-bad-image skip ({found.left_out} in all)"
            )
    return found


def data_of(job: Job, house: Zoo) -> tuple[Splits, Inspection]:
    """The sound pictures of a job's data, and what was found when they were looked at, now or by who made the job."""
    data = load_data(house, job.identity.dataset, job.dataset_options)
    found = job.inspection or inspect(data)
    return kept(data, found), found


def fingerprint(data: Splits, inspection: Inspection | None = None) -> str:
    """A digest of everything in the splits."""
    text = " ".join((inspection or inspect(data)).digests.values())
    if data.pairs is not None:
        rows = torch.stack([data.pairs.first, data.pairs.second])
        text += f" {data.pairs.operation} {rows.tolist()} {data.pairs.labels.tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places(factory: Callable[..., Any]) -> set[str]:
    """The options of a data set that say where files lie.

    >>> from pathlib import Path
    >>> def source(*, root: Path | None = None, seed: int = 0): ...
    >>> places(source)
    {'root'}
    """
    return {name for name, option in options(factory).items() if name == "root" or "Path" in str(option.annotation)}


def paths_left_out(
    factory: Callable[..., Any], values: Mapping[str, Any], source: str, fingerprint: str
) -> dict[str, Any]:
    """The options of a data set as a key holds them: where its files lie is nobody's business, what they are is.

    A folder that has to be given is the data set: its fingerprint takes its place, so that two folders are two.

    >>> from pathlib import Path
    >>> def official(*, root: Path | None = None, seed: int = 0): ...
    >>> paths_left_out(official, {"root": Path("/home/me"), "seed": 1}, "Digits (JPEG)", "f00d")
    {'root': 'Digits (JPEG)', 'seed': 1}
    >>> def own(*, root: Path): ...
    >>> paths_left_out(own, {"root": Path("/home/me")}, "a folder", "f00d")
    {'root': 'f00d'}
    """
    known, found = options(factory), dict(values)
    for name in places(factory) & values.keys():
        found[name] = fingerprint if known[name].default is signatures.Parameter.empty else source
    return found


def paths_put_back(factory: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`paths_left_out` left out, as given here or by default. UsageError for a path that has to be given."""
    found = dict(values)
    for name in places(factory):
        found[name] = given.get(name, options(factory)[name].default)
        if found[name] is signatures.Parameter.empty:
            raise UsageError(f"this cell was measured on files in a folder ({values[name]}); name it with --{name}")
    return found


def picture_shape(data: Splits) -> tuple[int, int, int]:
    """(channels, height, width) of the first training picture."""
    images = data.train.images
    first = images[0] if isinstance(images, Tensor) else as_tensor(images[0])
    channels, height, width = first.shape
    return channels, height, width


def build_backbone(zoo: Zoo, name: str, shape: tuple[int, int, int], given: Mapping[str, Any], seed: int) -> Backbone:
    """A backbone whose random weights, if it has any, are drawn from ``seed``; the global generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone: Backbone = zoo.backbone(name).factory(shape, **given)
        except ValueError as error:
            raise UsageError(f"backbone {name}: {error}") from error
        except (HashzooError, MemoryError):
            raise
        except Exception as error:  # the readers of damaged weights raise many kinds
            raise TroubleError(f"backbone {name}: {type(error).__name__}: {first_line(error)}") from error
        return backbone


def plan(
    benchmark: Benchmark,
    zoo: Zoo,
    *,
    base: Train | None = None,
    baselines: bool = True,
    device: str = "cpu",
    devices: int = 1,
    workers: int = 0,
    plugins: Sequence[str] = (),
    skip_bad_pictures: bool = False,
    keep: bool = False,
    deterministic: bool = False,
    tell: Tell | None = None,
) -> list[Job]:
    """Every cell of a benchmark on one data set, each hyperparameter filled in, checked before anything is trained.

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
    if of_codes([select], extra):
        raise UsageError(f"[train] select = {select!r} does not rank; choose by one such as 'map@all'")
    kinds = {"shallow", "deep"}
    for named in benchmark.backbones.keys() - kinds:
        if named not in zoo.methods and "+" not in named:
            raise UsageError(f"backbones.{named}: {unknown('method or kind', named, {*kinds, *zoo.methods})}")
    always = [*benchmark.baselines, *benchmark.controls] if baselines else []
    names = zoo.matching([*always, *benchmark.methods])
    chosen = {name: zoo.method(name) for name in names}
    given = _assigned(benchmark.set, zoo, names, benchmark)
    dataset_options = convert("dataset", dataset, zoo.dataset(dataset).factory, given.get(dataset, {}))
    data = load_data(zoo, dataset, dataset_options)
    inspection = examined(dataset, data, skip_bad_pictures, tell)
    data = kept(data, inspection)
    if data.multilabel and parts & set(GROUPS):
        raise UsageError(f"{dataset} has several labels a picture; /{GROUPS[0]} and its kin need one")
    if select and data.validation is None:
        has = "validation" in options(zoo.dataset(dataset).factory)
        cure = f"give --set {dataset}.validation=0.1" if has else "take a data set that has the option validation"
        raise UsageError(f"train.select needs validation pictures, and {dataset} holds none out; {cure}")
    if data.pairs is None and parts & set(ASKINGS):
        raise UsageError(f"{dataset} composes no queries; /{ASKINGS[0]} and its kin need a data set that does")
    if data.pairs is not None and (single := of_codes(benchmark.metrics, extra)):
        raise UsageError(f"{dataset} composes its queries; {next(iter(single))} is of codes of single pictures")
    print_of_data, shape = fingerprint(data, inspection), picture_shape(data)
    told = paths_left_out(zoo.dataset(dataset).factory, dataset_options, data.source, print_of_data)
    backbones: dict[str, tuple[Entry, Backbone, dict[str, Any]]] = {}
    jobs = []
    for name, entry in chosen.items():
        wanted = benchmark.backbone_for(name, entry.card.kind)
        if wanted not in backbones:
            trunk = zoo.backbone(wanted)
            settings = convert("backbone", wanted, trunk.factory, given.get(wanted, {}))
            backbone = build_backbone(zoo, wanted, shape, settings, 0)
            if benchmark.train.backbone != "full" and not benchmark.train.maps:
                backbone.map_dims = ()  # they are not kept
            backbones[wanted] = trunk, backbone, settings
        trunk, backbone, settings = backbones[wanted]
        recorded = settings | {name: backbone.weights for name in settings if name.endswith("weights")}
        values = convert("method", name, entry.factory, given.get(name, {}))
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
                    stored=stores(benchmark.train, entry),
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


def stores(train: Train, entry: Entry) -> bool:
    """Whether a method reads stored features: always with a backbone that learns nothing, unless it looks at views."""
    return train.backbone != "full" and not (train.backbone == "frozen" and entry.card.views and not train.draws)


def insist(jobs: Sequence[Job], names: Sequence[str]) -> None:
    """UsageError with the reason where a method asked for by name is refused on every data set, at some bits."""
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
            raise UsageError(f"set {name}: {unknown('method, dataset or backbone', name, used)}")
    return table


def refusal(name: str, entry: Entry, data: Splits, backbone: Backbone, bits: int, values: Mapping[str, Any]) -> str:
    """Why a method cannot serve a setting, in one line with its name; empty where it can.

    It is built once, and a composition sees a batch of made-up features; an error that is no ValueError shows in its
    cell.
    """
    if data.multilabel and not entry.card.multilabel:
        return f"{name} takes one label a picture and this data set has several; take a data set with one"
    if not data.multilabel and not entry.card.single:
        return f"{name} needs pictures with several labels and this data set has one; take one with several"
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
    base: Train | None,
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
