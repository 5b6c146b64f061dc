"""Metrics of the other kind: of the codes themselves, one number for all, where the usual kind scores each ranking.

How the bits are used, how far images of a class lie from each other, what can be learned from codes: such numbers
say why a score is what it is. A plugin offers one as ``OfCodes(function)`` beside its functions of counts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CodeSample:
    """Codes of both sides with their labels, as a metric of codes gets them.

    The bits are those that the index stores, side by side where it stores several codes. ``relaxed`` are the queries'
    codes before they became bits; None for a method that has none.
    """

    query: NDArray[np.bool_]  # (Q, K)
    database: NDArray[np.bool_]  # (N, K)
    query_labels: NDArray[Any]  # (Q, C) multi-hot
    database_labels: NDArray[Any]  # (N, C)
    relaxed: NDArray[Any] | None = None  # (Q, K)


@dataclass(frozen=True)
class CodeMetric:
    """A metric of codes: ``function(coded)``, or ``function(coded, cutoff)`` with ``cutoff``, gives one number.

    NaN where it does not apply; it is not called for a method whose codes are not bits. ``higher_is_better`` says that
    the highest may be starred as best on a board. With ``cutoff`` it is asked for as ``name`` (None) or ``name@N``.
    """

    function: Callable[..., float]
    higher_is_better: bool = False
    cutoff: bool = False

    @property
    def doc(self) -> str:
        """What the function says of itself."""
        return inspect.getdoc(self.function) or ""

    def __call__(self, coded: CodeSample, cutoff: int | None = None) -> float:
        """The number of these codes. ValueError where the function gives something else."""
        given = self.function(coded, cutoff) if self.cutoff else self.function(coded)
        if np.ndim(given) or math.isinf(value := float(given)):
            raise ValueError(f"a metric of codes gives one number or NaN, not {given!r}")
        return value


def code_metrics(names: Iterable[str], extra: Mapping[str, Any]) -> dict[str, CodeMetric]:
    """Those of the metrics that are of codes, by the name asked for.

    >>> list(code_metrics(["map@all", "ones@5"], {"ones": CodeMetric(lambda sample: 1.0)}))
    ['ones@5']
    """
    found = {name: extra.get(name.partition("@")[0]) for name in names}
    return {name: metric for name, metric in found.items() if isinstance(metric, CodeMetric)}


def evaluate_codes(coded: CodeSample | None, asked: Mapping[str, CodeMetric]) -> dict[str, float]:
    """Each metric of these codes; NaN where there are no bits to look at. ValueError names the metric at fault."""
    values = {}
    for name, metric in asked.items():
        cutoff = name.partition("@")[2]
        try:
            values[name] = math.nan if coded is None else metric(coded, int(cutoff) if cutoff else None)
        except ValueError as error:
            raise ValueError(f"metric {name!r}: {error}") from error
    return values
