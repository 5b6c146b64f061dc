"""Composed queries: the union, intersection or difference of the labels of two images of a multi-label dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hashzoo import Operation, Pairs, Splits

OPERATIONS: tuple[Operation, ...] = ("union", "intersection", "difference")
CANDIDATES = 1 << 20  # the largest number of pairs that are examined


def algebra(operation: Operation, a: Tensor, b: Tensor) -> Tensor:
    """Labels (B, C) of a composition; an empty difference is replaced by its first operand.

    >>> a, b = torch.tensor([[1.0, 1, 0]]), torch.tensor([[0.0, 1, 1]])
    >>> [algebra(o, a, b).int().tolist() for o in ("union", "intersection", "difference")]
    [[[1, 1, 1]], [[0, 1, 0]], [[1, 0, 0]]]
    >>> algebra("difference", b, b).int().tolist()
    [[0, 1, 1]]
    """
    if operation == "union":
        return torch.maximum(a, b)
    if operation == "intersection":
        return a * b
    left = a * (1 - b)
    return torch.where(left.sum(1, keepdim=True) > 0, left, a)


def draw(data: Splits, operation: Operation, count: int, seed: int, pairs: Literal["proper", "any"]) -> Splits:
    """The splits with ``count`` distinct pairs of query images, drawn by seed.

    A pair is ``proper`` if the label set of the composition differs from both operands, so that neither operand alone
    is the answer. ``any`` allows all pairs with a nonempty composition. Raises ValueError if the query split has too
    few pairs.
    """
    if not data.multilabel:
        raise ValueError("composed queries need images with several labels; this dataset has one label per image")
    labels = data.query.labels
    total = len(labels)
    generator = torch.Generator().manual_seed(seed)
    if total * total <= CANDIDATES:
        order = torch.randperm(total * total, generator=generator)
    else:
        order = torch.tensor(
            list(dict.fromkeys(torch.randint(total * total, (CANDIDATES,), generator=generator).tolist()))
        )
    first, second = order // total, order % total
    a, b = labels[first], labels[second]
    made = algebra(operation, a, b)
    good = (first != second) & (made.sum(1) > 0)
    if pairs == "proper":
        good &= (made != a).any(1) & (made != b).any(1)
    rows = torch.nonzero(good)[:count, 0]
    if len(rows) < count:
        raise ValueError(
            f"only {len(rows)} pairs of the {total} queries have a {operation}, but {count} were requested"
        )
    return replace(data, pairs=Pairs(operation, first[rows], second[rows], made[rows]))


def protocols(
    name: str, files: Callable[[int, Path | None], Splits], *, rooted: bool = True
) -> dict[str, Callable[..., Splits]]:
    """The protocols ``NAME.union``, ``NAME.intersection`` and ``NAME.difference`` of splits by seed.

    With ``rooted`` they have the option ``root``, the folder of the files.
    """

    def of_files(
        operation: Operation,
        *,
        root: Path | None = None,
        seed: int = 0,
        queries: int = 500,
        pairs: Literal["proper", "any"] = "proper",
    ) -> Splits:
        return draw(files(seed, root), operation, queries, seed, pairs)

    def embedded(
        operation: Operation, *, seed: int = 0, queries: int = 500, pairs: Literal["proper", "any"] = "proper"
    ) -> Splits:
        return of_files(operation, seed=seed, queries=queries, pairs=pairs)

    made: dict[str, Callable[..., Splits]] = {}
    for operation in OPERATIONS:
        one = partial(of_files if rooted else embedded, operation)
        one.__doc__ = f"{name.capitalize()} asked by the {operation} of the labels of two images."
        made[f"{name}.{operation}"] = one
    return made
