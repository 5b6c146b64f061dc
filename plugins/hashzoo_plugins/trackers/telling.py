"""What there is to tell of a cell: numbers, and what was asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hashzoo import Cell


def title(cell: Cell) -> str:
    """What a run is called: benchmark, method, bits, seed and key; it may name a folder."""
    identity = cell.identity
    return f"{cell.benchmark}.{identity.method}.{identity.bits}.{identity.seed}.{identity.key}".replace("/", "_")


def numbers(cell: Cell) -> dict[str, float]:
    """Scores, timings and facts that are finite numbers, each after its kind, as ``scores/map@all``."""
    kinds: dict[str, Mapping[str, object]] = {"scores": cell.metrics, "timings": cell.timings, "facts": cell.facts}
    return {
        f"{kind}/{name}": float(value)
        for kind, values in kinds.items()
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def asked(cell: Cell) -> dict[str, bool | int | float | str]:
    """What was asked, every hyperparameter included, and what became of it; tables in it are spelled out."""
    identity = cell.identity
    told: dict[str, Any] = {
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
    tables = {
        "dataset": identity.dataset_options,
        "backbone": identity.backbone_options,
        "method": identity.hyperparameters,
        "budget": identity.budget,
        "facts": {name: value for name, value in cell.facts.items() if isinstance(value, str)},
    }
    for table, values in tables.items():
        told |= {f"{table}.{name}": value for name, value in values.items()}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in told.items()
    }
