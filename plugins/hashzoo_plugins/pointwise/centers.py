"""Binary class centers, the target of a label set, and label weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hashzoo import signs

DRAWS = 100  # random candidates for each separated center


def hadamard_rows(classes: int, bits: int) -> Tensor:
    """(C, K) rows of the Hadamard matrix, then of its negative: any two differ in half of the bits or in all.

    Raises ValueError unless ``bits`` is a power of two and there are enough rows.

    >>> hadamard_rows(3, 2).tolist()
    [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
    """
    from scipy.linalg import hadamard

    if bits & (bits - 1) or classes > 2 * bits:
        raise ValueError(
            f"Hadamard centers: the bits must be a power of two, and {bits} bits give at most {2 * bits} classes"
        )
    rows = torch.from_numpy(hadamard(bits).astype(np.float32))
    return torch.cat([rows, -rows])[:classes]


def random_rows(classes: int, bits: int) -> Tensor:
    """(C, K) random signs, by the global generator of torch."""
    return torch.randint(0, 2, (classes, bits)).float() * 2 - 1


def separated_rows(classes: int, bits: int) -> Tensor:
    """(C, K) random signs; each row is the one of ``DRAWS`` candidates that is farthest from the previous rows."""
    rows = random_rows(1, bits)
    while len(rows) < classes:
        drawn = random_rows(DRAWS, bits)
        nearest = ((bits - drawn @ rows.T) / 2).amin(1)  # (DRAWS,)
        rows = torch.cat([rows, drawn[nearest.argmax()][None]])
    return rows


Kind = Literal["hadamard", "random", "separated", "auto"]


def centers(kind: Kind, classes: int, bits: int) -> Tensor:
    """(C, K) centers of -1 and 1; "auto" takes Hadamard rows if they exist, else separated random rows."""
    if kind == "auto":
        kind = "hadamard" if bits & (bits - 1) == 0 and classes <= 2 * bits else "separated"
    make = {"hadamard": hadamard_rows, "random": random_rows, "separated": separated_rows}[kind]
    return make(classes, bits)


def vote(labels: Tensor, rows: Tensor, ties: Tensor) -> Tensor:
    """(B, K) the sign of the sum of the centers (C, K) of the labels (B, C) of each image; ``ties`` (K,) decides at 0.

    >>> rows, ties = torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([1.0, -1])
    >>> vote(torch.tensor([[1.0, 1], [0, 1]]), rows, ties).tolist()
    [[1.0, -1.0], [1.0, -1.0]]
    """
    total = labels @ rows.to(labels)  # integers, so a sum of 0 is exact
    return torch.where(total == 0, ties.to(labels), signs(total))


def require_labels(method: str, labels: Tensor) -> None:
    """Raise ValueError if an image has no label (B, C), and so no center."""
    if not (labels.sum(1) > 0).all():
        raise ValueError(
            f"{method} needs at least one label per image; remove images without labels from the training split"
        )


def shares(method: str, labels: Tensor) -> Tensor:
    """(B, C) labels divided by their number per image. Raises ValueError if an image has no label.

    >>> shares("csq", torch.tensor([[1.0, 1, 0]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    require_labels(method, labels)
    return labels / labels.sum(1, keepdim=True)
