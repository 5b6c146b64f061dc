"""Synthetic scenes of several digits, as a multi-label dataset that is the same on every machine.

Each scene has 1 to 4 of scikit-learn's scanned digits at random positions and sizes, without overlap. Its labels are
the digits present, and the box of each digit is stored. A scanned digit is used in one split only (train, database or
query), so that no split contains the handwriting of another.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo import Split, Splits
from hashzoo_plugins.datasets.digits import CLASSES, load
from hashzoo_plugins.datasets.pool import stratify

SIDE = 32
SCALES = (8, 10, 12, 14)  # side of a digit in pixels


def resize(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize a square image (s, s) to (side, side) by bilinear sampling at pixel centers, in integer arithmetic.

    Integers make the scenes identical to the last bit on every machine.

    >>> resize(np.array([[0, 100], [0, 100]], np.uint8), 4)[0].tolist()
    [0, 25, 75, 100]
    """
    before = len(digit)
    # the center of target pixel t is at ((2t + 1) * before - side) / (2 * side) in source pixels
    at = np.clip((2 * np.arange(side) + 1) * before - side, 0, 2 * side * (before - 1))
    low, part = np.divmod(at, 2 * side)
    high = np.minimum(low + 1, before - 1)
    values = digit.astype(np.int64)
    rows = values[low] * (2 * side - part)[:, None] + values[high] * part[:, None]
    both = rows[:, low] * (2 * side - part) + rows[:, high] * part
    return np.asarray(both // (2 * side) ** 2, dtype=np.uint8)


def draw_scene(
    digits: NDArray[np.uint8], classes: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.uint8], set[int], list[list[int]]]:
    """A scene (SIDE, SIDE), its digits, and their boxes x0 y0 x1 y1 with exclusive ends."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[list[int]] = []
    present: set[int] = set()
    for _ in range(int(generator.integers(1, 5))):
        for _attempt in range(20):
            side = int(generator.choice(SCALES))
            x, y = (int(v) for v in generator.integers(0, SIDE - side + 1, 2))
            if all(x >= b[2] or b[0] >= x + side or y >= b[3] or b[1] >= y + side for b in boxes):
                which = int(generator.integers(len(digits)))
                canvas[y : y + side, x : x + side] = resize(digits[which], side)
                boxes.append([x, y, x + side, y + side])
                present.add(int(classes[which]))
                break
    return canvas, present, boxes


def draw(sizes: dict[str, int], seed: int) -> Splits:
    """Splits of ``sizes`` scenes, each with scanned digits of its own."""
    images, classes = load()
    generator = np.random.default_rng(seed)
    pools = stratify(classes, [297, 700, 800], generator)
    parts, start = {}, 0
    for (name, size), pool in zip(sizes.items(), pools, strict=True):
        canvases = np.zeros((size, 1, SIDE, SIDE), np.uint8)
        labels = torch.zeros(size, 10)
        boxes = []
        for i in range(size):
            canvas, present, placed = draw_scene(images[pool], classes[pool], generator)
            canvases[i, 0] = canvas
            labels[i, sorted(present)] = 1
            boxes.append(torch.tensor(placed))
        ids = torch.arange(start, start + size)
        parts[name] = Split(torch.from_numpy(canvases), labels, ids, boxes)
        start += size
    return Splits(
        train=parts["train"],
        database=parts["database"],
        query=parts["query"],
        multilabel=True,
        class_names=CLASSES,
    )


def standard(*, seed: int = 0) -> Splits:
    """Scenes of 1 to 4 digits, which are the labels: 500 queries, 2,000 training images, a database of 4,000."""
    return draw({"query": 500, "train": 2000, "database": 4000}, seed)


def small(*, seed: int = 0) -> Splits:
    """Scenes, a small part for quick runs: 100 queries, 400 training images, a database of 600."""
    return draw({"query": 100, "train": 400, "database": 600}, seed)
