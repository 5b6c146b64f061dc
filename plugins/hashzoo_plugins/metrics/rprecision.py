"""R-precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hashzoo import Counts


def rprecision(counts: Counts, cutoff: int | None) -> NDArray[np.float64]:
    """Precision among the first N+ items, where N+ is the number of relevant items of the query; ties in expectation.

    ``cutoff`` is not used, since each query has its own. Returns (Q,) values, NaN for a query without relevant items.

    >>> counts = Counts(np.array([[1, 2, 2]]), np.array([[1, 1, 0]]), None, True)
    >>> rprecision(counts, None)
    array([0.75])
    """
    positives = counts.positives  # (Q,)
    before = counts.items.cumsum(1) - counts.items  # (Q, G) items nearer than the group
    taken = np.clip(positives[:, None] - before, 0, counts.items)  # (Q, G) items of the group within the first N+
    share = np.divide(counts.relevant, counts.items, out=np.zeros(taken.shape), where=counts.items > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((taken * share).sum(1) / positives)
