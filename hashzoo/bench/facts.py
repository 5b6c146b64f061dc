"""What a row says about its data and its method beside its scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hashzoo.data.split_file import split_digest
from hashzoo.method import Method
from hashzoo.types import Splits

IDS = 1 << 18  # ids looked up at a time


def split_facts(data: Splits) -> dict[str, int | str]:
    """What a row says about its data: sizes, overlaps, and the digest of the split."""
    found: dict[str, int | str] = {part: len(split) for part, split in data.parts().items()}
    found["queries"] = found.pop("query") if data.pairs is None else len(data.pairs)
    unlabelled = int((data.query.labels.sum(1) == 0).sum())
    inside = int(among(data.train.ids.numpy(), data.database.ids.numpy()).sum())
    return {
        **found,
        "train_in_database": inside,
        "unlabelled_queries": unlabelled,
        "split": split_digest(data),
        "source": data.source,
    }


def among(few: NDArray[np.int64], many: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which of a few ids are among many, in blocks, so that no large copy is made.

    >>> among(np.array([3, 1, 3]), np.array([5, 3, 2])).tolist()
    [True, False, True]
    """
    known, which = np.unique(few, return_inverse=True)
    found = np.zeros(len(known), bool)
    for start in range(0, len(many) if len(known) else 0, IDS):
        ids = many[start : start + IDS]
        at = np.searchsorted(known, ids).clip(max=len(known) - 1)
        found[at[known[at] == ids]] = True
    return found[which]


def marks(method: Method, saw_database: bool, data: Splits) -> str:
    """The marks of a row: the method's own, and whether it learned the codes of database images from their labels."""
    learned = saw_database and bool(among(data.train.ids.numpy(), data.database.ids.numpy()).any())
    return ", ".join(filter(None, [method.mark, "learned database codes" if learned else ""]))
