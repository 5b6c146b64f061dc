"""The record of one measurement: its identity, scores, facts and provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hashzoo.errors import UsageError
from hashzoo.storage.files import canonical_json, sha256

#: The statuses of a cell, the worst one last.
STATUSES = ("ok", "skipped", "nan", "failed", "timeout", "oom", "crashed")


ROLES = ("", "baseline", "control")

BUDGETS = ("equal", "paper")

Count = Annotated[int, Field(ge=-(2**53), le=2**53)]  # integers that every reader of JSON represents exactly


def now() -> str:
    """The current time in UTC as ISO 8601 text, as in ``Cell.created``."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that can change the scores of a cell, and nothing else.

    Attributes:
        dataset: Name of the dataset.
        dataset_options: Its options, without paths.
        backbone: Name of the backbone.
        backbone_options: Its options; of weights their digest, not their path.
        method: Name of the method.
        hyperparameters: All of its hyperparameters, including defaults.
        bits: Number of bits requested.
        seed: Random seed of training.
        budget: The training budget, as :class:`hashzoo.Budget` records it.
        protocol: Version of the evaluation protocol.
        code: Digest of the source code of the method and the backbone.
        data: Fingerprint of the images and splits.

    Raises:
        UsageError: If a value cannot be stored as JSON, such as NaN.
    """

    dataset: str
    dataset_options: dict[str, Any]
    backbone: str
    backbone_options: dict[str, Any]
    method: str
    hyperparameters: dict[str, Any]
    bits: Count
    seed: Count
    budget: dict[str, Any]
    protocol: int
    code: str
    data: str

    def __post_init__(self) -> None:
        # a copy in JSON types: later changes of the values do not change the key, and it equals one read from disk
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value, name))

    @property
    def key(self) -> str:
        """The digest of the identity, 16 hexadecimal digits. It is part of the name of the cell's file."""
        return sha256(canonical_json(asdict(self)).encode())[:16]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement: a method trained and evaluated once.

    Attributes:
        identity: What was measured.
        benchmark: Name of the benchmark.
        role: ``"baseline"``, ``"control"`` or empty.
        budget_kind: ``"equal"`` for the budget of the benchmark, ``"paper"`` for that of the method's paper.
        status: One of ``STATUSES``.
        reason: Why the status is not ``"ok"``.
        metrics: Scores by name.
        facts: Counts and other facts of the measurement: ``stored_bits``, ``bytes_per_item``, ``queries``, ...
        timings: Seconds, or items per second. They do not have to repeat.
        settings: The options that differ from the defaults, as text.
        plugin: The plugin that offers the method.
        plugin_version: Its version.
        contaminated: Whether the backbone was trained with labels on images or classes of the dataset.
        provenance: The machine, versions, command, cost and training curve of the measurement.
        created: When the cell was created, in UTC as ISO 8601 text.

    Raises:
        ValueError: If the status, role or budget kind is unknown.
    """

    identity: Identity
    benchmark: str
    role: str = ""
    budget_kind: str = "equal"
    status: str
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, bool | Count | float | str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    settings: str = ""
    plugin: str = ""
    plugin_version: str = ""
    contaminated: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)

    def __post_init__(self) -> None:
        allowed = {"status": STATUSES, "role": ROLES, "budget_kind": BUDGETS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"the {name} of a cell is one of {values}, not {getattr(self, name)!r}")

    @property
    def curve(self) -> list[dict[str, dict[str, float]]]:
        """The training by epoch, means of loss terms (``loss``) and of logged quantities (``logged``) by name, and
        validation scores (``validation``) by metric. Empty if no epoch was recorded.
        """
        known = self.provenance.get("curve")
        return [_epoch(one) for one in known] if isinstance(known, list) else []


def _epoch(recorded: Any) -> dict[str, dict[str, float]]:
    """The finite numbers of an epoch; a cell can come from anywhere."""
    kinds = recorded if isinstance(recorded, Mapping) else {}
    return {
        kind: {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for kind in ("loss", "logged", "validation")
        if isinstance(values := kinds.get(kind), Mapping)
    }


def plain(value: Any, where: str, null: bool = False) -> Any:
    """The value in JSON types. A number that is not finite becomes None if ``null``; otherwise UsageError is raised."""
    if value is None or isinstance(value, bool | str | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and (null or math.isfinite(value)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(item, where, null) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, where, null) for key, item in value.items()}
    kinds = "text, finite numbers, true, false, lists or tables"
    raise UsageError(f"{where} holds {value!r}, which cannot be stored in a cell; use {kinds}")
