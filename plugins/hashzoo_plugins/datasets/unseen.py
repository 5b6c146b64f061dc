"""Classes that were never learned, of any single-label dataset: does a code say more than the training classes?

The protocols of Sablayrolles, Douze, Usunier & Jegou (ICASSP 2017): learn on some classes, then ask and search among
images of the others, or of all. On the classes learned from, a classifier whose class is the code is hard to beat; on
others it says little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hashzoo import Split, Splits
from hashzoo_plugins.datasets.carve import Shuffle, hold_out, stratified
from hashzoo_plugins.datasets.longtail import TITLES

Asked = Literal["unseen", "unseen-all", "seen-all"]


def unseen_classes(name: str, count: int, classes: int, seed: int) -> list[int]:
    """Which classes are not learned from, drawn by seed.

    >>> unseen_classes("cifar10", 2, 10, 0)
    [1, 7]
    """
    return sorted(Shuffle(f"{name} unseen", seed).permutation(np.arange(classes))[:count].tolist())


def draw(data: Splits, name: str, asked: Asked, unseen: int, train: int, queries: int, seed: int) -> Splits:
    """The splits of data whose training split is also its database, learned without the classes left out.

    ``train`` images of seen classes are learned from and are not in the database; ``queries`` ask, of the unseen
    classes or, for "seen-all", of the others; the database is of unseen classes ("unseen") or of all. The classes
    are in the order seen, unseen. ValueError for data with several labels, or too few images.
    """
    if data.multilabel:
        raise ValueError("unseen classes need images with one label each; this dataset has several")
    total = data.train.labels.shape[1]
    if not 0 < unseen < total - 1:
        raise ValueError(f"of {total} classes 1 to {total - 2} can be left out, not {unseen}")
    out = unseen_classes(name, unseen, total, seed)
    order = torch.tensor([c for c in range(total) if c not in out] + out)
    shuffle = Shuffle(f"{name} {asked}", seed)

    def of(split: Split, new: bool) -> Tensor:
        return torch.nonzero(split.labels[:, out].sum(1).bool() == new)[:, 0]

    def some(split: Split, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` rows, classes in proportion, and the others."""
        classes = split.labels[rows].argmax(1).numpy()
        chosen, rest = stratified(classes, [count, len(rows) - count], shuffle)
        return rows[torch.from_numpy(chosen)], rows[torch.from_numpy(rest)]

    def ordered(split: Split, rows: Tensor, known: int = total) -> Split:
        taken = split.take(rows)
        return replace(taken, labels=taken.labels[:, order[:known]])

    learned, spare = some(data.train, of(data.train, new=False), train)
    asking, _ = some(data.query, of(data.query, new=asked != "seen-all"), queries)
    strange = of(data.train, new=True)
    found = strange if asked == "unseen" else torch.cat([spare, strange])
    database = torch.from_numpy(shuffle.permutation(found.numpy()))
    names = tuple(data.class_names[c] for c in order.tolist())
    return replace(
        data,
        train=ordered(data.train, learned, total - unseen),
        database=ordered(data.train, database),
        query=ordered(data.query, asking),
        class_names=names,
        notes={"unseen classes": ", ".join(names[-unseen:])},
    )


def protocols(
    name: str,
    files: Callable[[int, Path | None], Splits],
    *,
    unseen: int,
    train: int,
    queries: int,
    rooted: bool = True,
) -> dict[str, Callable[..., Splits]]:
    """``NAME.unseen``, ``NAME.unseen-all`` and ``NAME.seen-all`` of splits by seed, with these defaults.

    ``rooted`` says that the files lie in a folder, which the option ``root`` names.
    """
    by_default = unseen, train, queries

    def of_files(
        asked: Asked,
        *,
        root: Path | None = None,
        seed: int = 0,
        unseen: int = by_default[0],
        train: int = by_default[1],
        queries: int = by_default[2],
        validation: float = 0.0,
    ) -> Splits:
        data = draw(files(seed, root), name, asked, unseen, train, queries, seed)
        return hold_out(data, validation, Shuffle(f"{name} validation", seed))

    def embedded(
        asked: Asked,
        *,
        seed: int = 0,
        unseen: int = by_default[0],
        train: int = by_default[1],
        queries: int = by_default[2],
        validation: float = 0.0,
    ) -> Splits:
        return of_files(asked, seed=seed, unseen=unseen, train=train, queries=queries, validation=validation)

    says: dict[Asked, str] = {
        "unseen": "queries and database are of classes that were not learned from",
        "unseen-all": "queries are of classes that were not learned from, the database is of all",
        "seen-all": "queries are of classes that were learned from, the database is of all",
    }
    made: dict[str, Callable[..., Splits]] = {}
    for asked, text in says.items():
        protocol = partial(of_files if rooted else embedded, asked)
        title = TITLES.get(name, name.capitalize())
        protocol.__doc__ = f"{title}, {unseen} of the classes left out of training: {text}."
        made[f"{name}.{asked}"] = protocol
    return made
