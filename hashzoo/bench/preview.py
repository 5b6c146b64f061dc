"""The cells of a benchmark from what is known before any file is read: nothing is downloaded, decoded or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from hashzoo.backbone import Backbone
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.identity import identify
from hashzoo.bench.nested import nested_refusals
from hashzoo.bench.plan import check_names, unfit, unmet
from hashzoo.bench.suitability import (
    MetricFacts,
    Unlabelled,
    check_metrics,
    leave_out,
    stored_views_refusal,
    trial,
    unlabelled_images,
    unlabelled_refusal,
)
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure
from hashzoo.factory import FactoryInfo
from hashzoo.hookspecs import Outline, TrainingFacts
from hashzoo.method import Method
from hashzoo.registry.build import build_backbone, convert_options, load_data, path_options
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.cell import Cell, Identity
from hashzoo.testing.fixtures import Probe
from hashzoo.types import Setting

Options = Mapping[str, Any]


@dataclass(frozen=True)
class PreviewCell:
    """A cell that would be measured.

    Attributes:
        identity: What is known of its identity; files stand in it with empty texts.
        kind: ``"shallow"`` or ``"deep"``.
        refusal: Why its method cannot serve the setting, as far as that is known; empty if it can.
        found: The cell in the results folder with this identity, if there is one.
        lacks: Whether that cell lacks a metric of the benchmark.
    """

    identity: Identity
    kind: str
    refusal: str = ""
    found: Cell | None = None
    lacks: bool = False


@dataclass(frozen=True)
class Preview:
    """The cells of a benchmark on one dataset, and what is known of its files.

    Attributes:
        dataset: Name of the dataset.
        outline: What is known of it.
        backbones: What is known of each backbone, by name.
        cells: The cells.
    """

    dataset: str
    outline: Outline
    backbones: Mapping[str, Outline]
    cells: Sequence[PreviewCell]


def preview(benchmark: Benchmark, zoo: Zoo, *, baselines: bool = True, measured: Sequence[Cell] = ()) -> Preview:
    """The cells of a benchmark on one dataset.

    Args:
        benchmark: The benchmark; it names one dataset.
        zoo: The plugins.
        baselines: Whether the baselines and controls of the benchmark are included.
        measured: The cells of the results folder.

    Raises:
        UsageError: If a name, an option, a number or a metric of the benchmark is wrong.
    """
    check_names(benchmark, zoo, baselines)
    dataset = _Files(benchmark, zoo, measured)
    benchmark = benchmark.for_data(dataset.labelled, dataset.exact)
    methods = check_names(benchmark, zoo, baselines)
    declared = "validation" in dataset.values and zoo.outlines.get(dataset.name) is not None
    held_out = bool(dataset.values["validation"]) if declared else None
    known_labels = None if dataset.outline.train is None else dataset.labelled
    exact = dataset.exact or bool(benchmark.truth.neighbours) or (None if known_labels is None else False)
    multilabel = dataset.outline.multilabel
    facts = MetricFacts("validation" in dataset.values, multilabel, held_out, None, known_labels, exact)
    check_metrics(benchmark, zoo, facts)
    known = {masked_key(cell.identity, zoo): cell for cell in measured if cell.benchmark == benchmark.name}
    trunks: dict[str, _Trunk] = {}
    cells = list[PreviewCell]()
    for name, entry in methods.items():
        wanted = benchmark.backbone_for(name, entry.card.kind, dataset.vectors)
        if wanted not in trunks:
            trunks[wanted] = _Trunk(benchmark, zoo, wanted, dataset.outline)
        for cell in _cells(benchmark, zoo, entry, dataset, trunks[wanted]):
            found = None if dataset.outline.missing else known.get(masked_key(cell.identity, zoo))
            lacks = found is not None and found.status == "ok" and not set(benchmark.metrics) <= found.metrics.keys()
            cells.append(replace(cell, found=found, lacks=lacks))
    return Preview(dataset.name, dataset.outline, {name: trunk.outline for name, trunk in trunks.items()}, cells)


class _Files:
    """The dataset of a benchmark: its options, and what is known of it."""

    def __init__(self, benchmark: Benchmark, zoo: Zoo, measured: Sequence[Cell]) -> None:
        (self.name,) = benchmark.datasets
        factory = zoo.dataset(self.name).factory
        self.values = convert_options("dataset", self.name, factory, benchmark.set.get(self.name, {}))
        paths = path_options(factory)
        self.recorded = {name: "" if name in paths else value for name, value in self.values.items()}
        self.vectors, self.labelled, self.exact = False, True, False
        self.fingerprint = ""  # of files that are not read
        self.outline = zoo.outline("dataset", self.name, self.values) or self._listed(zoo)
        if self.outline.train is None:
            self.outline = self._measured(measured)

    def _listed(self, zoo: Zoo) -> Outline:
        """The sizes of a dataset in a folder of the user, which is listed; images are not decoded."""
        if self.values.get("root") is None:
            return Outline()
        try:
            data = load_data(zoo, self.name, self.values)
        except EnvironmentFailure as error:
            return Outline(missing=str(error))
        size, images = self.values.get("size"), data.train.images
        self.vectors, self.labelled = isinstance(images, Vectors), data.labelled
        self.exact = self.exact or bool(data.metric)
        shape = (3, size, size) if isinstance(size, int) else None
        return Outline(
            train=len(data.train),
            database=len(data.database),
            query=len(data.query),
            classes=data.train.labels.shape[1],
            multilabel=data.multilabel,
            shape=(images.dim, 1, 1) if isinstance(images, Vectors) else shape,
            unlabelled=unlabelled_images(data),
        )

    def _measured(self, measured: Sequence[Cell]) -> Outline:
        """The sizes in a measured cell of the same dataset."""
        facts = next((one.facts for one in measured if one.identity.dataset == self.name and one.status == "ok"), {})
        sizes = [value if isinstance(value := facts.get(n), int) else None for n in ("train", "database", "queries")]
        return replace(self.outline, train=sizes[0], database=sizes[1], query=sizes[2])

    def setting(self, bits: int) -> Setting | None:
        """The setting of methods, as if all classes had equally many images; None if the classes are not known."""
        one = self.outline
        if one.classes is None or one.multilabel is None:
            return None
        images = one.train or max(1, 2 * one.classes)
        pool = images + (one.database or 0) + (one.query or 0)
        return Setting(
            bits, one.classes, one.multilabel, torch.full((one.classes,), max(1, images // max(1, one.classes))), pool
        )


class _Trunk:
    """A backbone of a benchmark: its options, what is known of its files, and a network with random weights."""

    def __init__(self, benchmark: Benchmark, zoo: Zoo, name: str, data: Outline) -> None:
        self.entry, self.zoo, self.data = zoo.backbone(name), zoo, data
        factory = self.entry.factory
        self.values = convert_options("backbone", name, factory, benchmark.set.get(name, {}))
        self.outline = zoo.outline("backbone", name, self.values) or Outline()
        self.recorded = {key: value for key, value in self.values.items() if key not in FactoryInfo(factory).unrecorded}
        self.maps = benchmark.train.backbone == "full" or benchmark.train.maps

    @cached_property
    def network(self) -> Backbone | None:
        """The network without its weights; None if it depends on a shape that is not known."""
        own = dict(self.recorded)
        own |= {name: "random" for name, value in own.items() if name.endswith("weights") and isinstance(value, str)}
        shape = self.data.shape or ((3, 224, 224) if self.outline.shape else None)
        if shape is None:
            return None
        network = build_backbone(self.zoo, self.entry.name, shape, own, 0)
        if not self.maps:
            network.map_dims = ()
        return network


def _cells(benchmark: Benchmark, zoo: Zoo, entry: Entry, dataset: _Files, trunk: _Trunk) -> Iterator[PreviewCell]:
    values = convert_options("method", entry.name, entry.factory, benchmark.set.get(entry.name, {}))
    base = identify(benchmark, zoo, entry, values, dataset, trunk)
    lengths = benchmark.bits_of(entry.name)
    reasons = {bits: _refusal(benchmark, zoo, entry, dataset, trunk, bits, values) for bits in lengths}
    for bits, reason in nested_refusals(benchmark, entry, reasons).items():
        for seed in dict.fromkeys(benchmark.seeds):
            yield PreviewCell(replace(base, bits=bits, seed=seed), entry.card.kind, reason)


def _refusal(
    benchmark: Benchmark, zoo: Zoo, entry: Entry, dataset: _Files, trunk: _Trunk, bits: int, values: Options
) -> str:
    one, setting = dataset.outline, dataset.setting(bits)
    facts = TrainingFacts(bits, benchmark.train.batch, values, one.train, None, one.classes, one.unlabelled)
    if one.multilabel is not None and (reason := unfit(entry, one.multilabel, dataset.labelled)):
        return reason
    if setting is not None and trunk.network is not None:
        facts = replace(facts, features=trunk.network.dim)
        if reason := trial(entry, setting, trunk.network, values) or stored_views_refusal(
            entry, setting, trunk.network, values, benchmark.train
        ):
            return reason
    if setting is not None and (reason := _unlabelled(entry, dataset, setting, values)):
        return reason
    return unmet(zoo, entry, facts)


def _unlabelled(entry: Entry, dataset: _Files, setting: Setting, values: Options) -> str:
    """Why a method cannot train on images without a label, asked of it with a small backbone; empty if it can."""
    one, said = dataset.outline, list[str]()
    if not one.unlabelled:
        return ""
    found = Unlabelled(one.unlabelled, one.train, leave_out(dataset.name, dataset.values))

    def ask(method: Method) -> str:
        said.append(unlabelled_refusal(method, setting, found))
        return ""

    trial(entry, setting, Probe(), values, ask)
    reason = "".join(said)
    return reason if not reason or entry.name in reason else f"{entry.name}: {reason}"


def masked_key(identity: Identity, zoo: Zoo) -> str:
    """The key of an identity without what only files tell: the fingerprint of data, paths and digests of weights."""
    paths = path_options(zoo.datasets[identity.dataset].factory) if identity.dataset in zoo.datasets else set()
    own = {name: "" if name in paths else value for name, value in identity.dataset_options.items()}
    trunk = {name: "" if name.endswith("weights") else value for name, value in identity.backbone_options.items()}
    return replace(identity, dataset_options=own, backbone_options=trunk, data="").key
