"""Queries made of two images of any multi-label dataset: this or that, this and that, this without that."""

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
CANDIDATES = 1 << 20  # pairs looked at, where there are more


def algebra(operation: Operation, a: Tensor, b: Tensor) -> Tensor:
    """Labels (B, C) of a composition; a difference that would leave nothing is its first operand.

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
    """The splits with ``count`` pairs of query images, distinct and drawn by seed.

    ``proper`` pairs are those on which the operation does something: its label set is neither operand's, so neither
    operand alone is the answer. ``any`` takes every pair whose intersection is not empty (for the other operations,
    every pair). ValueError where the query split has too few such pairs.
    """
    if not data.multilabel:
        raise ValueError("queries are composed of images with several labels; this dataset has one each")
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
        raise ValueError(f"only {len(rows)} pairs of the {total} queries make a {operation}; {count} were asked for")
    return replace(data, pairs=Pairs(operation, first[rows], second[rows], made[rows]))


def protocols(
    name: str, files: Callable[[int, Path | None], Splits], *, rooted: bool = True
) -> dict[str, Callable[..., Splits]]:
    """``NAME.union``, ``NAME.intersection`` and ``NAME.difference`` of splits by seed.

    ``rooted`` says that the files lie in a folder, which the option ``root`` names.
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
