"""The hooks of plugins. Each hook returns factories by name; nothing is registered by importing it.

Names match ``[a-z0-9][a-z0-9_.-]*``. The first line of a factory's docstring is what ``hashzoo list`` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pluggy

hookspec = pluggy.HookspecMarker("hashzoo")
hookimpl = pluggy.HookimplMarker("hashzoo")


@dataclass(frozen=True)
class Family:
    """Many factories under one prefix, as ``torchvision/*``.

    Listing a plugin does not import the library behind a family.

    Attributes:
        build: Factory of one member: ``build(name, shape, *, options)`` for a backbone.
        names: Function that returns the names of all members, without the prefix.
        doc: Description in one line.
    """

    build: Callable[..., Any]
    names: Callable[[], list[str]]
    doc: str


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a training set and a setting before a method trains; None for what is not known.

    Attributes:
        bits: Code length.
        batch: Images per batch.
        options: The hyperparameters of the method.
        images: Number of training images.
        features: Number of features of the backbone.
        classes: Number of classes in the training labels.
        unlabelled: Number of training images without a label.
    """

    bits: int
    batch: int
    options: Mapping[str, Any]
    images: int | None = None
    features: int | None = None
    classes: int | None = None
    unlabelled: int | None = None


@dataclass(frozen=True)
class Download:
    """A file that a dataset or a backbone downloads.

    Attributes:
        name: Its name or address.
        size: Its size in bytes, if that is known.
    """

    name: str
    size: int | None = None


@dataclass(frozen=True)
class Outline:
    """What is known of a dataset or a backbone before its files are read; None for what is not known.

    Attributes:
        train: Number of training images.
        database: Number of images in the database.
        query: Number of queries.
        classes: Number of classes.
        multilabel: Whether an image can have several labels.
        shape: Channels, height and width of its images.
        downloads: The files that would be downloaded now.
        missing: What is missing and cannot be downloaded, in one line; empty if nothing is.
        unlabelled: Number of training images without a label.
        libraries: Modules that building it imports; a sweep imports them once for all of its cells.
    """

    train: int | None = None
    database: int | None = None
    query: int | None = None
    classes: int | None = None
    multilabel: bool | None = None
    shape: tuple[int, int, int] | None = None
    downloads: tuple[Download, ...] = ()
    missing: str = ""
    unlabelled: int | None = None
    libraries: tuple[str, ...] = ()


class Tracker(Protocol):
    """Receives each finished cell, in a thread of the sweep. If it raises, only the tracker stops.

    A tracker that also has a method ``epoch(job, number, values)`` receives each epoch of a cell while it is trained,
    before the cell itself: its :class:`hashzoo.Job`, the number of the epoch from 1, and the means of loss terms and
    logged quantities by name, with validation scores as ``validation <metric>``. Launchers that do not pass on the
    progress of cells leave these calls out, so ``finished`` should record ``cell.curve`` too.
    """

    def finished(self, cell: Any) -> None:
        """Record a finished cell, a :class:`hashzoo.Cell` of any status."""
        ...

    def close(self) -> None:
        """Close the tracker at the end of the sweep."""
        ...


@hookspec
def hashzoo_backbones() -> Mapping[str, Callable[..., Any] | Family]:  # type: ignore[empty-body]
    r"""Networks: factory(shape, \*, options) -> Backbone, with the shape (channels, height, width) of the images."""


@hookspec
def hashzoo_heads() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Hash heads: factory(setting, backbone, \*, options) -> module from Features to Output."""


@hookspec
def hashzoo_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Losses: factory(setting, \*, options) -> module from (Output, Batch) to named scalar terms."""


@hookspec
def hashzoo_methods() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Methods: factory(setting, backbone, \*, hyperparameters) -> Method: a class, or what ``deep`` returns."""


@hookspec
def hashzoo_datasets() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Datasets, each named DATA.PROTOCOL: factory(\*, options) -> Splits."""


@hookspec
def hashzoo_metrics() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Metrics: function(counts, cutoff) -> one value per query (Q,), requested as ``name`` or ``name@cutoff``.

    Or ``CodeMetric(function)``, with function(sample) -> one number for all queries.
    """


@hookspec
def hashzoo_launchers() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Launchers: factory(limits, \*, options) -> Launcher, selected with ``--launcher NAME``."""


@hookspec
def hashzoo_finished() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Trackers of finished cells: factory(folder, \*, options) -> Tracker, selected with ``--track NAME``."""


@hookspec
def hashzoo_requirements() -> Mapping[str, Callable[[TrainingFacts], str]]:  # type: ignore[empty-body]
    """What methods, heads and losses need of a training set: function(facts) -> the reason why one cannot train.

    The reason is empty if it can, and if too little is known. It is asked by name before anything is trained.
    """


@hookspec
def hashzoo_outlines() -> Mapping[str, Callable[..., Outline]]:  # type: ignore[empty-body]
    """What is known of datasets and backbones before their files are read: function(name, options) -> Outline.

    The names are those of datasets, backbones and families of backbones. It is asked by ``hashzoo bench --dry-run``.
    """
