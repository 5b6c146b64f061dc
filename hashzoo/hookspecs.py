"""Every hook a plugin can answer, on one screen. Each returns names with their factories; nothing registers itself.

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
    """Many factories under one prefix, as ``torchvision/*``: ``build(name, ...)`` makes one, ``names()`` lists all.

    It exists so that a library of a thousand networks is not imported to list a plugin.
    """

    build: Callable[..., Any]  # (name, shape, *, options)
    names: Callable[[], list[str]]
    doc: str


class Tracker(Protocol):
    """Hears of each cell that is finished, in a thread of the sweep. What it raises ends the tracker alone."""

    def finished(self, cell: Any) -> None:
        """A :class:`hashzoo.results.cell.Cell`, whatever became of it."""
        ...

    def close(self) -> None:
        """The sweep is over."""
        ...


@hookspec
def hashzoo_backbones() -> Mapping[str, Callable[..., Any] | Family]:  # type: ignore[empty-body]
    r"""Networks: factory(shape, \*, options) -> Backbone, with shape the dataset's (channels, height, width)."""


@hookspec
def hashzoo_heads() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Hash heads: factory(setting, backbone, \*, options) -> module from Features to Output."""


@hookspec
def hashzoo_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Losses: factory(setting, \*, options) -> module from (Output, Batch) to named scalar terms."""


@hookspec
def hashzoo_methods() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Methods: factory(setting, backbone, \*, hyperparameters) -> Method; a class, or what ``deep`` makes."""


@hookspec
def hashzoo_datasets() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Datasets, named data.protocol: factory(\*, options) -> Splits."""


@hookspec
def hashzoo_metrics() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Metrics: function(counts, cutoff) -> one value a query (Q,), asked for as ``name`` or ``name@cutoff``.

    Or ``CodeMetric(function)``, with function(sample) -> one number for all queries.
    """


@hookspec
def hashzoo_launchers() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Where cells run: factory(limits, \*, options) -> Launcher, asked for with ``--launcher NAME``."""


@hookspec
def hashzoo_finished() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    r"""Who hears of finished cells: factory(folder, \*, options) -> Tracker, asked for with ``--track NAME``."""
