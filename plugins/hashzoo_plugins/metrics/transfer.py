"""What can be learned from codes (Sablayrolles, Douze, Usunier & Jegou, ICASSP 2017)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hashzoo import CodeSample

MOST = 10_000  # codes learned from, unless another number is asked for


def transfer(coded: CodeSample, cutoff: int | None) -> float:
    """Accuracy on the queries' codes of a linear classifier that learned from labelled codes of the database.

    The hash is done when this begins: of classes that it never saw, as on ``NAME.unseen``, it says whether the code
    tells more apart than the classes it was made for. Logistic regression on -1 and +1, L2 with C = 1, on ``cutoff``
    images or 10,000 (see :func:`chosen`). NaN for images with several labels or none, or of one class only.
    """
    from sklearn.linear_model import LogisticRegression

    if any((labels.sum(1) != 1).any() for labels in (coded.query_labels, coded.database_labels)):
        return math.nan
    asked, known = (labels.argmax(1) for labels in (coded.query_labels, coded.database_labels))
    rows = chosen(known, MOST if cutoff is None else cutoff)
    if len(np.unique(known[rows])) < 2:
        return math.nan
    model = LogisticRegression(max_iter=1000).fit(2.0 * coded.database[rows] - 1, known[rows])
    return float((model.predict(2.0 * coded.query - 1) == asked).mean())


def chosen(classes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most ``count`` rows: the first of each class, then classes in proportion, each in the order of the rows.

    >>> chosen(np.array([0, 0, 0, 0, 1, 1]), 4)
    array([0, 1, 2, 4])
    """
    nth = np.zeros(len(classes))
    for one in np.unique(classes):
        mine = np.flatnonzero(classes == one)
        nth[mine] = np.arange(len(mine)) / len(mine)
    return np.sort(np.argsort(nth, kind="stable")[:count])
