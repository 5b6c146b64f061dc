"""Retrieval of classes that were not in the training set, for any single-label dataset.

The protocols of Sablayrolles, Douze, Usunier & Jegou (ICASSP 2017): train on some classes, then query and search images
of the other classes, or of all. For the training classes, a classifier whose class is the code is hard to beat; for
other classes it has little information.
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
from hashzoo_plugins.datasets.longtail import TITLES
from hashzoo_plugins.datasets.pool import Shuffle, hold_out, stratify

Variant = Literal["unseen", "unseen-all", "seen-all"]

DESCRIPTIONS: dict[Variant, str] = {
    "unseen": "queries and database are of classes outside the training set",
    "unseen-all": "queries are of classes outside the training set, the database is of all classes",
    "seen-all": "queries are of classes in the training set, the database is of all classes",
}


def unseen_classes(name: str, count: int, classes: int, seed: int, group: int = 0) -> list[int]:
    """The classes that are excluded from the training set, drawn by seed; groups of one seed share no class.

    >>> [unseen_classes("cifar10", 2, 10, 0, pair) for pair in range(5)]
    [[1, 7], [2, 4], [0, 3], [5, 8], [6, 9]]
    """
    order = Shuffle(f"{name} unseen", seed).permutation(np.arange(classes))
    return sorted(order[group * count : (group + 1) * count].tolist())


def draw(
    data: Splits, name: str, variant: Variant, unseen: int | list[int], train: int, queries: int, seed: int
) -> Splits:
    """Draw the splits of a variant.

    Args:
        data: Splits of a single-label dataset whose training split is also its database.
        name: The name of the dataset; the draw depends on it and on ``seed``.
        variant: "unseen", "unseen-all" or "seen-all", see ``DESCRIPTIONS``.
        unseen: The number of classes that are excluded from the training set, or these classes.
        train: The number of training images, which are not in the database.
        queries: The number of queries.
        seed: The seed of the draw.

    Returns:
        Splits with the classes in the order seen, unseen.

    Raises:
        ValueError: If images have several labels, or there are too few images.
    """
    if data.multilabel:
        raise ValueError("unseen classes need images with one label each; this dataset has several labels per image")
    total = data.train.labels.shape[1]
    count = unseen if isinstance(unseen, int) else len(unseen)
    if not 0 < count < total - 1:
        raise ValueError(f"of {total} classes 1 to {total - 2} can be left out, not {count}")
    out = unseen_classes(name, unseen, total, seed) if isinstance(unseen, int) else unseen
    order = torch.tensor([c for c in range(total) if c not in out] + out)
    shuffle = Shuffle(f"{name} {variant}", seed)

    def rows_of(split: Split, new: bool) -> Tensor:
        """The rows whose class is unseen if ``new``, else seen."""
        return torch.nonzero(split.labels[:, out].sum(1).bool() == new)[:, 0]

    def sample(split: Split, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` of the rows, with the classes in proportion, and the other rows."""
        classes = split.labels[rows].argmax(1).numpy()
        chosen, rest = stratify(classes, [count, len(rows) - count], shuffle)
        return rows[torch.from_numpy(chosen)], rows[torch.from_numpy(rest)]

    def reordered(split: Split, rows: Tensor, known: int = total) -> Split:
        """The images in these rows, with the first ``known`` classes in the new order."""
        taken = split.take(rows)
        return replace(taken, labels=taken.labels[:, order[:known]])

    train_rows, spare = sample(data.train, rows_of(data.train, new=False), train)
    query_rows, _ = sample(data.query, rows_of(data.query, new=variant != "seen-all"), queries)
    of_unseen = rows_of(data.train, new=True)
    database = of_unseen if variant == "unseen" else torch.cat([spare, of_unseen])
    database = torch.from_numpy(shuffle.permutation(database.numpy()))
    names = tuple(data.class_names[c] for c in order.tolist())
    return replace(
        data,
        train=reordered(data.train, train_rows, total - count),
        database=reordered(data.train, database),
        query=reordered(data.query, query_rows),
        class_names=names,
        notes={"unseen classes": ", ".join(names[-count:])},
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
    """The protocols ``NAME.unseen``, ``NAME.unseen-all`` and ``NAME.seen-all`` of splits by seed, with these defaults.

    With ``rooted`` they have the option ``root``, the folder of the files.
    """
    defaults = unseen, train, queries

    def of_files(
        variant: Variant,
        *,
        root: Path | None = None,
        seed: int = 0,
        unseen: int = defaults[0],
        train: int = defaults[1],
        queries: int = defaults[2],
        validation: float = 0.0,
    ) -> Splits:
        data = draw(files(seed, root), name, variant, unseen, train, queries, seed)
        return hold_out(data, validation, Shuffle(f"{name} validation", seed))

    def of_embedded(
        variant: Variant,
        *,
        seed: int = 0,
        unseen: int = defaults[0],
        train: int = defaults[1],
        queries: int = defaults[2],
        validation: float = 0.0,
    ) -> Splits:
        return of_files(variant, seed=seed, unseen=unseen, train=train, queries=queries, validation=validation)

    found: dict[str, Callable[..., Splits]] = {}
    for variant, text in DESCRIPTIONS.items():
        protocol = partial(of_files if rooted else of_embedded, variant)
        title = TITLES.get(name, name.capitalize())
        protocol.__doc__ = f"{title}, {unseen} of the classes left out of training: {text}."
        found[f"{name}.{variant}"] = protocol
    return found


def pairs(
    name: str, files: Callable[[int, Path | None], Splits], *, count: int, train: int, queries: int
) -> dict[str, Callable[..., Splits]]:
    """The protocols ``NAME.unseen-pair2`` to ``NAME.unseen-pairN``, N = ``count``, with these defaults.

    The classes of the dataset, in an order drawn by seed, are shared out in pairs; ``NAME.unseen`` leaves out the
    first pair, and each of these protocols leaves out another.
    """
    defaults = train, queries

    def of_pair(
        group: int,
        *,
        root: Path | None = None,
        seed: int = 0,
        train: int = defaults[0],
        queries: int = defaults[1],
        validation: float = 0.0,
    ) -> Splits:
        data = files(seed, root)
        out = unseen_classes(name, 2, data.train.labels.shape[1], seed, group)
        data = draw(data, name, "unseen", out, train, queries, seed)
        return hold_out(data, validation, Shuffle(f"{name} validation", seed))

    found: dict[str, Callable[..., Splits]] = {}
    for group in range(1, count):
        protocol = partial(of_pair, group)
        title = TITLES.get(name, name.capitalize())
        protocol.__doc__ = f"{title}, pair {group + 1} of {count} of the classes left out: {DESCRIPTIONS['unseen']}."
        found[f"{name}.unseen-pair{group + 1}"] = protocol
    return found
