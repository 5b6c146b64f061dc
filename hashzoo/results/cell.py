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

#: What can become of a cell, gravest last.
STATUSES = ("ok", "skipped", "nan", "failed", "timeout", "oom", "crashed")


ROLES = ("", "baseline", "control")


BUDGETS = ("equal", "paper")


Count = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what every reader of JSON holds exactly


def now() -> str:
    """The time as ``Cell.created`` wants it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that can change the score, and nothing else.

    ``hyperparameters`` holds every one of them, defaults filled in; ``budget`` what the training may spend;
    ``protocol`` the version of the way scores are taken; ``code`` the digest of the plugin's source; ``data``
    the fingerprint of the images. Raises UsageError for values that JSON cannot hold, NaN among them.
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
        # A copy in JSON's own types: the key cannot change under us, and an identity equals itself read back.
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value, name))

    @property
    def key(self) -> str:
        """16 hexadecimal digits, the same for the same content and no other."""
        return sha256(canonical_json(asdict(self)).encode())[:16]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement: what was asked (``identity``), what became of it, and where it was made.

    ``metrics`` are the scores; ``facts`` what was counted (stored_bits, bytes_per_item,
    queries_without_relevant, ...); ``timings`` in seconds or items per second, no part of what must repeat;
    ``settings`` what differs from the defaults, for people; ``created`` the time in UTC.
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
                raise ValueError(f"a cell's {name} is one of {values}, not {getattr(self, name)!r}")


def plain(value: Any, where: str, null: bool = False) -> Any:
    """The value in JSON's own types; a number that is not finite becomes None if ``null``, else an error."""
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
    raise UsageError(f"{where} holds {value!r}, which a cell cannot keep; use {kinds}")
