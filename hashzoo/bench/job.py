"""One cell to measure: what it is, and everything that a worker process needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hashzoo.bench.nested import training_identity
from hashzoo.data.integrity import Inspection, drop_bad_images, inspect_splits
from hashzoo.registry.build import load_data
from hashzoo.registry.zoo import Entry, Zoo, load_plugins
from hashzoo.results.cell import Cell, Identity
from hashzoo.results.provenance import versions
from hashzoo.training.budget import Budget
from hashzoo.types import Splits

#: The version of the evaluation protocol. Raise it with any change of the core that can change a score.
PROTOCOL = 1


@dataclass(frozen=True)
class Row:
    """What a row of the board says beside its scores.

    Attributes:
        benchmark: Name of the benchmark.
        role: ``"baseline"``, ``"control"`` or empty.
        budget_kind: ``"equal"`` or ``"paper"``.
        settings: What differs from the defaults.
        plugin: The plugin that offers the method, and ``plugin_version`` its version.
        contaminated: Whether the backbone was trained on images of this dataset.
    """

    benchmark: str
    role: str = ""
    budget_kind: str = "equal"
    settings: str = ""
    plugin: str = ""
    plugin_version: str = ""
    contaminated: bool = False


@dataclass(frozen=True)
class Inputs:
    """How to build the data, the backbone and the method of a cell on this machine.

    The identity of a cell holds no path; the options here are as the user gave them.

    Attributes:
        dataset_options: Options of the dataset, paths included.
        backbone_options: Options of the backbone, paths included.
        plugins: Plugin files and modules to load.
        definitions: Methods given as objects and not by name: name -> factory, pickled by cloudpickle. They travel to
            the worker with the job and are never read from a file.
        inspection: What was found when the images were verified; None verifies them again.
        stored: Whether the method reads stored features of a frozen backbone.
        notes: What the dataset found while its files were read, a line each.
    """

    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    definitions: Mapping[str, bytes] = field(default_factory=dict)
    inspection: Inspection | None = None
    stored: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Execution:
    """How cells run on a machine; not part of their keys.

    Attributes:
        device: The device that trains, as ``resolve_device`` returns it.
        devices: Number of processes, each on a device of its own, that train one cell together.
        workers: Processes that read images.
        deterministic: Whether an operation without a deterministic implementation is an error.
        save_weights: Whether the trained method is saved beside the cell.
    """

    device: str = "cpu"
    devices: int = 1
    workers: int = 0
    deterministic: bool = False
    save_weights: bool = False


@dataclass(frozen=True)
class Job:
    """One cell to measure.

    Attributes:
        identity: Everything that can change the score.
        row: What the board says about the cell beside its scores.
        metrics: Names of the metrics to compute.
        inputs: How to build the data, the backbone and the method.
        execution: Device, processes, determinism.
        refusal: Why the method cannot serve the setting; empty if it can.
        origin: The command and the code revisions that the job comes from, for the provenance of its cell.
    """

    identity: Identity
    row: Row
    metrics: tuple[str, ...]
    inputs: Inputs = field(default_factory=Inputs)
    execution: Execution = field(default_factory=Execution)
    refusal: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return self.row.benchmark

    @property
    def title(self) -> str:
        """Name of the cell on the screen."""
        return f"{self.identity.method} {self.identity.bits} bits seed {self.identity.seed}"

    @property
    def nested(self) -> bool:
        """Whether cells of other code lengths share the training of this one."""
        return bool(self.identity.budget.get("nested"))

    @property
    def training(self) -> Identity:
        """The identity that the training is named after, which is that of the longest of several nested lengths."""
        return training_identity(self.identity)

    @property
    def checkpoint_facts(self) -> dict[str, Any]:
        """What must be the same for a checkpoint of this cell to be used."""
        return {"key": self.training.key, "device": self.execution.device, "devices": self.execution.devices}

    def on(self, device: str) -> Job:
        """The same job on another kind of device."""
        return replace(self, execution=replace(self.execution, device=device))


def load_zoo(inputs: Inputs) -> Zoo:
    """All plugins that a job needs, with the methods that were given as objects."""
    return load_plugins(inputs.plugins, inputs.definitions)


def load_job_data(job: Job, zoo: Zoo) -> tuple[Splits, Inspection]:
    """The images of a job that can be decoded, and the findings of the inspection."""
    data = load_data(zoo, job.identity.dataset, job.inputs.dataset_options)
    inspection = job.inputs.inspection or inspect_splits(data)
    return drop_bad_images(data, inspection), inspection


def uses_stored_features(budget: Budget, entry: Entry) -> bool:
    """Whether a method reads stored features: on a frozen backbone, unless it learns from views of images."""
    if budget.backbone == "full":
        return False
    return budget.backbone == "stored" or not entry.card.views or budget.draws > 0


def blank(job: Job, status: str, reason: str = "", cost: Mapping[str, Any] | None = None) -> Cell:
    """The cell of a job with a status, a reason and no scores; ``cost`` is what is known of its time and memory."""
    return Cell(
        identity=job.identity, **vars(job.row), status=status, reason=reason, provenance=planned(job) | dict(cost or {})
    )


def planned(job: Job) -> dict[str, Any]:
    """The provenance of a cell that is known before it is measured."""
    budget, execution = job.identity.budget, job.execution
    return {
        **job.origin,
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": execution.device,
        "devices": execution.devices,
        "precision": budget.get("precision", "fp32"),
        "threads": budget.get("threads", 1),
        "batch": budget.get("batch"),
        "deterministic": execution.deterministic,
    }
