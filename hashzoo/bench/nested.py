"""Nested code lengths in a benchmark: which cells share one training, and which methods cannot take part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.factory import FactoryInfo
from hashzoo.method import Deep
from hashzoo.registry.nested import cannot_nest
from hashzoo.registry.zoo import Entry
from hashzoo.results.cell import Identity
from hashzoo.training.budget import Budget
from hashzoo.training.nested import join_lengths, split_lengths


def _has_codes(entry: Entry) -> bool:
    """Whether a method can have a loss of codes: a deep method that is not known to be something else."""
    kind = FactoryInfo(entry.factory).function
    return entry.card.kind == "deep" and not (isinstance(kind, type) and not issubclass(kind, Deep))


def nested_budget(budget: Budget, entry: Entry, bits: Iterable[int]) -> Budget:
    """The budget of a method as keys of cells record it: with the lengths; unchanged training with a single one."""
    lengths = set(bits)
    used = budget.nested if _has_codes(entry) and len(lengths) > 1 else ""
    return budget.model_copy(update={"nested": join_lengths(used, lengths) if used else ""})


def nested_refusals(benchmark: Benchmark, entry: Entry, reasons: Mapping[int, str]) -> Mapping[int, str]:
    """Why each length of a method cannot be measured, from why it cannot be measured alone; empty texts if it can.

    One training serves all lengths, so a method that cannot serve one of them is refused at all of them.
    """
    if not benchmark.train.nested or entry.card.kind != "deep" or len(reasons) < 2:
        return reasons
    if not _has_codes(entry) and entry.name in (*benchmark.baselines, *benchmark.controls):
        return reasons
    refused = [(bits, reason) for bits, reason in sorted(reasons.items()) if reason]
    one = f"{refused[0][1]} (nested with {refused[0][0]} bits)" if refused and len(refused) < len(reasons) else ""
    why = cannot_nest(entry.name, entry.factory)
    return {bits: why or reason or one for bits, reason in reasons.items()}


def training_identity(identity: Identity) -> Identity:
    """The identity that a training is named after: that of the cell, or of the longest of its nested lengths."""
    _, lengths = split_lengths(str(identity.budget.get("nested", "")))
    return replace(identity, bits=max(lengths)) if lengths else identity


def weighs_gradients(identity: Identity) -> bool:
    """Whether a training reads the gradients of single lengths, of which each of several processes has a part."""
    return str(identity.budget.get("nested", "")).startswith("conflict")
