"""The content of a cell as experiment trackers store it: a name, numbers and parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

from hashzoo import Cell, Job


def run_name(cell: Cell | Job) -> str:
    """The name of a run: benchmark, method, bits, seed and key. It is valid as the name of a folder."""
    identity = cell.identity
    return f"{cell.benchmark}.{identity.method}.{identity.bits}.{identity.seed}.{identity.key}".replace("/", "_")


def numbers(cell: Cell) -> dict[str, float]:
    """Scores, timings and facts that are finite numbers, prefixed by their kind, such as ``scores/map@all``."""
    kinds: dict[str, Mapping[str, object]] = {"scores": cell.metrics, "timings": cell.timings, "facts": cell.facts}
    return {
        f"{kind}/{name}": float(value)
        for kind, values in kinds.items()
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def epoch_numbers(values: Mapping[str, float]) -> dict[str, float]:
    """The values of an epoch, prefixed.

    >>> epoch_numbers({"pair": 0.5})
    {'training/pair': 0.5}
    """
    return {f"training/{name}": value for name, value in values.items()}


def epochs(cell: Cell, after: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """The epochs of a cell after the first ones: the number from 1, and the values as of :func:`epoch_numbers`."""
    for number, epoch in enumerate(cell.curve, 1):
        if number > after:
            held = {f"validation {name}": value for name, value in epoch.get("validation", {}).items()}
            yield number, epoch_numbers({**epoch.get("logged", {}), **epoch.get("loss", {}), **held})


def parameters(cell: Cell) -> dict[str, bool | int | float | str]:
    """The identity of a cell, all hyperparameters included, and its status. Other values than scalars become JSON."""
    identity = cell.identity
    values: dict[str, object] = {
        "benchmark": cell.benchmark,
        "dataset": identity.dataset,
        "backbone": identity.backbone,
        "method": identity.method,
        "bits": identity.bits,
        "seed": identity.seed,
        "key": identity.key,
        "status": cell.status,
        "reason": cell.reason,
        "role": cell.role,
        "created": cell.created,
    }
    tables: dict[str, Mapping[str, object]] = {
        "dataset": identity.dataset_options,
        "backbone": identity.backbone_options,
        "method": identity.hyperparameters,
        "budget": identity.budget,
        "facts": {name: value for name, value in cell.facts.items() if isinstance(value, str)},
    }
    for table, entries in tables.items():
        values |= {f"{table}.{name}": value for name, value in entries.items()}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in values.items()
    }
