"""One cell to measure: its identity and everything that a worker process needs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from hashzoo.data.integrity import Inspection, drop_bad_images, inspect_splits
from hashzoo.registry.build import load_data
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.cell import Cell, Identity
from hashzoo.results.provenance import versions
from hashzoo.training.budget import Budget
from hashzoo.types import Splits

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


def load_job_data(job: Job, house: Zoo) -> tuple[Splits, Inspection]:
    """The sound images of a job's data, and what was found when they were looked at, now or by who made the job."""
    data = load_data(house, job.identity.dataset, job.dataset_options)
    found = job.inspection or inspect_splits(data)
    return drop_bad_images(data, found), found


def uses_stored_features(train: Budget, entry: Entry) -> bool:
    """Whether a method reads stored features: always with a backbone that learns nothing, unless it looks at views."""
    return train.backbone != "full" and not (train.backbone == "frozen" and entry.card.views and not train.draws)


def blank(job: Job, status: str, reason: str = "", cost: dict[str, Any] | None = None) -> Cell:
    """The cell of a job that has a status and a reason, and no numbers; ``cost`` is what is known of its time."""
    return Cell(
        identity=job.identity,
        benchmark=job.benchmark,
        role=job.role,
        budget_kind=job.budget_kind,
        status=status,
        reason=reason,
        settings=job.settings,
        plugin=job.plugin,
        plugin_version=job.plugin_version,
        contaminated=job.contaminated,
        provenance=planned(job) | (cost or {}),
    )


def planned(job: Job) -> dict[str, Any]:
    """What is known of a cell before it is measured, and all that is known of one whose process was lost."""
    budget = job.identity.budget
    return {
        **job.asked,
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": job.device,
        "devices": job.devices,
        "precision": budget.get("precision", "fp32"),
        "threads": budget.get("threads", 1),
        "batch": budget.get("batch"),
        "deterministic": job.deterministic,
    }
