"""The identity of a cell that a benchmark names, for the plan and for a dry run alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import PROTOCOL
from hashzoo.bench.nested import nested_budget
from hashzoo.bench.quantization import own_budget, record_quantization
from hashzoo.bench.truth import recorded_truth
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.cell import Identity


class RecordedDataset(Protocol):
    """A dataset: its name, its options as keys record them, and the fingerprint of its files."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def recorded(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102


class RecordedBackbone(Protocol):
    """A backbone: its entry, and its options as keys record them."""

    @property
    def entry(self) -> Entry: ...  # noqa: D102
    @property
    def recorded(self) -> Mapping[str, Any]: ...  # noqa: D102


def identify(
    benchmark: Benchmark,
    zoo: Zoo,
    entry: Entry,
    values: Mapping[str, Any],
    dataset: RecordedDataset,
    backbone: RecordedBackbone,
) -> Identity:
    """The identity of the cells of a method, with 0 bits and seed 0.

    Args:
        benchmark: The benchmark.
        zoo: The plugins.
        entry: The method.
        values: All of its hyperparameters.
        dataset: The dataset.
        backbone: The backbone.
    """
    budget = nested_budget(own_budget(benchmark.train, entry), entry, benchmark.bits)
    return Identity(
        dataset=dataset.name,
        dataset_options=recorded_truth(dataset.recorded, benchmark.truth.neighbours),
        backbone=backbone.entry.name,
        backbone_options=dict(backbone.recorded),
        method=entry.name,
        hyperparameters=dict(values),
        bits=0,
        seed=0,
        budget=record_quantization(budget, zoo).recorded(),
        protocol=PROTOCOL,
        code=code_digest(entry.factory, backbone.entry.factory),
        data=dataset.fingerprint,
    )
