"""Codes to choose from: a method at a length, its bytes, the candidates that it needs; and advice in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.results import store
from hashzoo.results.cell import Cell

FACTORS = (1, 2, 3, 5, 10)  # of candidates, in the table
HIGH = 0.99  # a recall whose factor is in the table beside that of the target
MOST = 10.0  # the largest factor that is advised
NAMED = 3  # codes in the advice
ASYMMETRIC = "asym"


@dataclass(frozen=True)
class Choice:
    """One code: a method at a length, with queries as codes or, ``asymmetric``, as real values.

    Attributes:
        method: The method.
        bits: Bits requested.
        size: Bytes per item.
        asymmetric: Whether queries stay real.
        recall: Mean recall of the k neighbors among F k candidates, by F.
        interval: Half the width of the 95 % interval of the recall at F = 1, over queries.
        factor: The F that the target needs.
        factor_high: The F that a recall of .99 needs.
        timings: ``fit_seconds``, ``encode_per_second``, ``search_per_second``.
        front: Whether no other code takes as few bytes and as few candidates for the target.
        cell: The JSON file of its cell.
        curve: Factors F (G,) and the mean recall (G,) among F k candidates.
    """

    method: str
    bits: int
    size: float
    asymmetric: bool
    recall: Mapping[int, float]
    interval: float
    factor: float
    factor_high: float
    timings: Mapping[str, float]
    front: bool = False
    cell: Path = Path()
    curve: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    @property
    def name(self) -> str:
        """The method, and whether queries stay real."""
        return f"{self.method}/{ASYMMETRIC}" if self.asymmetric else self.method


def metrics_of(k: int, target: float) -> list[str]:
    """The metrics that are measured.

    >>> metrics_of(10, 0.95)[:3]
    ['recall@10', 'recall@10:f2', 'recall@10:f3']
    """
    names = [_recall(k, factor) for factor in FACTORS] + [f"factor@{k}:{one}" for one in (target, HIGH)]
    return [*names, *(f"{name}/{ASYMMETRIC}" for name in names)]


def _recall(k: int, factor: int) -> str:
    return f"recall@{k}" + (f":f{factor}" if factor > 1 else "")


def choices_of(cells: Iterable[Cell], folder: Path, k: int, target: float) -> list[Choice]:
    """The measured codes of the cells in a results folder, sorted by bytes, with the front marked."""
    found = []
    for cell in cells:
        for part in ("", f"/{ASYMMETRIC}"):
            first = cell.metrics.get(_recall(k, 1) + part)
            if cell.status == "ok" and first is not None and math.isfinite(first):
                found.append(_choice(cell, store.path(folder, cell.identity, cell.benchmark), part, k, target))
    marked = [replace(one, front=not any(_beats(other, one) for other in found)) for one in found]
    return sorted(marked, key=lambda one: (one.size, one.factor, one.name))


def _choice(cell: Cell, file: Path, part: str, k: int, target: float) -> Choice:
    """The code of a cell; ``part`` is empty, or ``/asym`` for real queries."""
    arrays = store.arrays(file)
    scores = arrays.get(_recall(k, 1) + part, np.zeros(0))
    curve = [arrays.get(f"recall_{name}@{k}{part}", np.zeros(0)).tolist() for name in ("factors", "curve")]
    return Choice(
        method=cell.identity.method,
        bits=cell.identity.bits,
        size=float(cell.facts["bytes_per_item"]),
        asymmetric=bool(part),
        recall={factor: cell.metrics[_recall(k, factor) + part] for factor in FACTORS},
        interval=1.96 * float(scores.std()) / math.sqrt(len(scores)) if len(scores) else math.nan,
        factor=cell.metrics[f"factor@{k}:{target}{part}"],
        factor_high=cell.metrics[f"factor@{k}:{HIGH}{part}"],
        timings={n: value for n, value in cell.timings.items() if not part or not n.startswith("search")},
        cell=file,
        curve=(tuple(curve[0]), tuple(curve[1])),
    )


def _beats(other: Choice, one: Choice) -> bool:
    less = other.size <= one.size and other.factor <= one.factor
    return less and (other.size, other.factor) != (one.size, one.factor)


def within(choices: Sequence[Choice], budget: int | None) -> list[Choice]:
    """The codes of at most ``budget`` bytes."""
    return [one for one in choices if budget is None or one.size <= budget]


def winner(choices: Sequence[Choice], budget: int | None = None) -> Choice | None:
    """The code of the fewest bytes that reaches the target with at most ``MOST`` k candidates.

    If none reaches it, the one that needs the fewest candidates; None if no code is within the budget. Codes that are
    measured with the same bytes and candidates are in the order of their names.
    """
    allowed = within(choices, budget)
    good = [one for one in allowed if one.factor <= MOST]
    if good:
        return min(good, key=lambda one: (one.size, one.factor, one.name))
    return min(allowed, key=lambda one: (one.factor, one.size, one.name), default=None)


def advise(choices: Sequence[Choice], cells: Sequence[Cell], target: float, budget: int | None) -> str:
    """One sentence: the smallest codes that reach the target, and what it rests on."""
    size = "" if budget is None else f" of at most {budget} B"
    goal = f"{target:g}".lstrip("0")
    first = winner(choices, budget)
    if first is None:
        return f"no code{size} was measured; give a larger budget or fewer bits"
    basis = _basis(cells)
    if first.factor > MOST:
        return (
            f"no code{size} reaches {goal} with {MOST:g} times k candidates; {first.name} of {first.size:g} B is "
            f"nearest, at {first.factor:g} times; give more bits ({basis})"
        )
    good = [first]
    for one in sorted(within(choices, budget), key=lambda one: (one.size, one.factor, one.name)):
        if one.size > good[-1].size and one.factor < good[-1].factor:  # more bytes buy fewer candidates
            good.append(one)
    told = [f"{first.name} of {first.size:g} B reaches {goal} at {first.factor:g} times k candidates"]
    told += [f"{one.name} of {one.size:g} B at {one.factor:g} times" for one in good[1:NAMED]]
    width = max(one.interval for one in good[:NAMED])
    return f"{'; '.join(told)} ({basis}; the recall of one code is known to ±{width:.3f})"


def _basis(cells: Sequence[Cell]) -> str:
    """What the figures are measured on, in words."""
    facts = next((cell.facts for cell in cells if cell.status == "ok"), {})
    words = f"{facts.get('queries', 0):,} queries among {facts.get('database', 0):,} vectors"
    if 0 < (learned := int(facts.get("train", 0))) < int(facts.get("database", 0)):
        words += f", of which {learned:,} were learned from"
    return words


def records_of(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """The codes as plain dicts, for JSON and for tables."""
    return [
        {
            "method": one.name,
            "bits": one.bits,
            "bytes": one.size,
            **{f"{factor}x": one.recall[factor] for factor in FACTORS},
            "interval": one.interval,
            "factor": one.factor,
            "factor_0.99": one.factor_high,
            **{name: one.timings.get(name) for name in ("fit_seconds", "encode_per_second", "search_per_second")},
            "bytes_1e6": one.size * 1e6,
            "bytes_1e8": one.size * 1e8,
            "front": one.front,
        }
        for one in choices
    ]
