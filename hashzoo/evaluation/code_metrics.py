"""Metrics computed from codes: one number for all queries, where other metrics score each ranking.

Examples are the use of bits, the distances within a class, and the accuracy of a classifier trained on codes. They
explain why a score is high or low. A plugin offers one as ``CodeMetric(function)`` among its metrics.
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
    """Codes of queries and database with their labels, the argument of a :class:`CodeMetric`.

    The bits are those that the index stores, concatenated if it stores several codes.

    Attributes:
        query: (Q, K) bool, bits of the queries.
        database: (N, K) bool, bits of the database.
        query_labels: (Q, C) multi-hot labels of the queries.
        database_labels: (N, C) multi-hot labels of the database.
        relaxed: (Q, K) codes of the queries before binarization; None if the method has none.
    """

    query: NDArray[np.bool_]
    database: NDArray[np.bool_]
    query_labels: NDArray[Any]
    database_labels: NDArray[Any]
    relaxed: NDArray[Any] | None = None


@dataclass(frozen=True)
class CodeMetric:
    """A metric computed from codes; a plugin returns it from the hook ``hashzoo_metrics``.

    It is not computed for methods whose codes are not bits.

    Attributes:
        function: ``function(sample)``, or ``function(sample, cutoff)`` with ``cutoff``, returns one number for a
            :class:`CodeSample`; NaN if the metric does not apply.
        higher_is_better: Whether boards mark the highest value as the best.
        cutoff: Whether the metric takes a cut-off: it is requested as ``name`` (None) or ``name@N``.
    """

    function: Callable[..., float]
    higher_is_better: bool = False
    cutoff: bool = False

    @property
    def doc(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.function) or ""

    def __call__(self, sample: CodeSample, cutoff: int | None = None) -> float:
        """Compute the metric.

        Args:
            sample: The codes.
            cutoff: The number in the name of the metric.

        Returns:
            One number, or NaN.

        Raises:
            ValueError: If the function returns anything else.
        """
        result = self.function(sample, cutoff) if self.cutoff else self.function(sample)
        if np.ndim(result) or math.isinf(value := float(result)):
            raise ValueError(f"a metric of codes must return one number or NaN, not {result!r}")
        return value


def code_metrics(names: Iterable[str], extra: Mapping[str, Any]) -> dict[str, CodeMetric]:
    """The metrics computed from codes among these names, by name.

    >>> list(code_metrics(["map@all", "ones@5"], {"ones": CodeMetric(lambda sample: 1.0)}))
    ['ones@5']
    """
    found = {name: extra.get(name.partition("@")[0]) for name in names}
    return {name: metric for name, metric in found.items() if isinstance(metric, CodeMetric)}


def evaluate_codes(sample: CodeSample | None, metrics: Mapping[str, CodeMetric]) -> dict[str, float]:
    """The value of each metric; NaN without a sample. Raises ValueError with the name of a metric that fails."""
    values = {}
    for name, metric in metrics.items():
        cutoff = name.partition("@")[2]
        try:
            values[name] = math.nan if sample is None else metric(sample, int(cutoff) if cutoff else None)
        except ValueError as error:
            raise ValueError(f"metric {name!r}: {error}") from error
    return values


def code_use(bits: NDArray[np.bool_]) -> tuple[int, float]:
    """The number of different codes of the items (N, K), and the share of the items that have the most frequent one.

    >>> code_use(np.array([[1, 0], [1, 0], [0, 0], [1, 0]], bool))
    (2, 0.75)
    """
    packed = np.ascontiguousarray(np.packbits(bits, axis=1))
    _, counts = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_counts=True)
    return len(counts), float(counts.max() / len(bits))
