"""Which code for vectors of the user: every method of the benchmark ``quantize`` at several lengths, and advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from hashzoo.api.bench import Request, observer_of, prepare, run
from hashzoo.api.board import Board
from hashzoo.api.watch import Callback, Screen
from hashzoo.bench.benchmark_file import read
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import store
from hashzoo.results.cell import Cell

FACTORS = (1, 2, 3, 5, 10)  # of candidates, in the table
HIGH = 0.99  # a recall whose factor is in the table beside that of the target
MOST = 10.0  # the largest factor that is advised
NAMED = 3  # codes in the advice
ASYMMETRIC = "asym"


class QuantizeOptions(TypedDict, total=False):
    """Further options of :func:`quantize`."""

    queries: str | Path
    metric: str  # "cosine", "ip" or "l2"
    methods: Sequence[str]
    bits: Sequence[int]
    results: str | Path
    plugins: Sequence[str]
    jobs: int
    device: str


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

    @property
    def name(self) -> str:
        """The method, and whether queries stay real."""
        return f"{self.method}/{ASYMMETRIC}" if self.asymmetric else self.method


@dataclass(frozen=True)
class Quantization:
    """What :func:`quantize` found: the board, the codes by size, and one sentence of advice."""

    board: Board
    choices: Sequence[Choice]
    advice: str


def quantize(
    root: str | Path,
    *,
    k: int = 10,
    target: float = 0.95,
    budget: int | None = None,
    progress: Callback | bool | Screen = True,
    **options: Unpack[QuantizeOptions],
) -> Quantization:
    """Measure which code keeps the exact neighbors of your vectors.

    Args:
        root: A file of vectors; see the dataset that the benchmark ``quantize`` names.
        k: Neighbors per query.
        target: Mean recall of these that is wanted after the candidates are compared again exactly.
        budget: Bytes per item at most, in the advice.
        progress: As for :func:`hashzoo.benchmark`.
        **options: See :class:`hashzoo.api.quantization.QuantizeOptions`.

    Returns:
        The codes, sorted by bytes, and the advice.

    Raises:
        UsageError: If an option or the file is wrong.
        EnvironmentFailure: If the file is damaged, or every cell failed.
    """
    if k < 1 or not 0 < target < 1:
        raise UsageError(f"k must be 1 or more and the target between 0 and 1, not k = {k} and target = {target}")
    metrics = metrics_of(k, target)
    given = {name: str(value) for name, value in options.items() if name in ("queries", "metric")}
    kept = {name: value for name, value in options.items() if name in ("methods", "bits", "results", "plugins", "jobs")}
    observer = observer_of(progress)
    (dataset,) = read("quantize").datasets
    settings = {dataset: given} if given else {}
    request = Request(
        "quantize",
        **kept,  # type: ignore[arg-type]
        root=Path(root),
        metrics=metrics,
        settings=settings,
        device=options.get("device", "auto"),
    )
    board = run(prepare(request, observer), observer)
    found = choices_of(board, k, target)
    if not found:
        reasons = [cell.reason for cell in board.cells if cell.reason] or ["there are no cells"]
        raise EnvironmentFailure(f"no method was measured: {reasons[0]}")
    return Quantization(board, found, advise(found, board.cells, target, budget))


def metrics_of(k: int, target: float) -> list[str]:
    """The metrics that are measured.

    >>> metrics_of(10, 0.95)[:3]
    ['recall@10', 'recall@10:f2', 'recall@10:f3']
    """
    names = [_recall(k, factor) for factor in FACTORS] + [f"factor@{k}:{one}" for one in (target, HIGH)]
    return [*names, *(f"{name}/{ASYMMETRIC}" for name in names)]


def _recall(k: int, factor: int) -> str:
    return f"recall@{k}" + (f":f{factor}" if factor > 1 else "")


def choices_of(board: Board, k: int, target: float) -> list[Choice]:
    """The measured codes, sorted by bytes, with the front marked."""
    found = []
    for cell in board.cells:
        for part in ("", f"/{ASYMMETRIC}"):
            first = cell.metrics.get(_recall(k, 1) + part)
            if cell.status != "ok" or first is None or not math.isfinite(first):
                continue
            arrays = store.arrays(store.path(board.folder, cell.identity, cell.benchmark))
            scores = arrays.get(_recall(k, 1) + part, np.zeros(0))
            timings = {n: value for n, value in cell.timings.items() if not part or not n.startswith("search")}
            found.append(
                Choice(
                    method=cell.identity.method,
                    bits=cell.identity.bits,
                    size=float(cell.facts["bytes_per_item"]),
                    asymmetric=bool(part),
                    recall={factor: cell.metrics[_recall(k, factor) + part] for factor in FACTORS},
                    interval=1.96 * float(scores.std()) / math.sqrt(max(1, len(scores))) if len(scores) else math.nan,
                    factor=cell.metrics[f"factor@{k}:{target}{part}"],
                    factor_high=cell.metrics[f"factor@{k}:{HIGH}{part}"],
                    timings=timings,
                )
            )
    return sorted((_marked(one, found) for one in found), key=lambda one: (one.size, one.factor))


def _marked(one: Choice, others: Sequence[Choice]) -> Choice:
    beaten = any(
        other.size <= one.size and other.factor <= one.factor and (other.size, other.factor) != (one.size, one.factor)
        for other in others
    )
    return Choice(**{**vars(one), "front": not beaten})


def advise(choices: Sequence[Choice], cells: Sequence[Cell], target: float, budget: int | None) -> str:
    """One sentence: the smallest codes that reach the target, and what it rests on."""
    within = [one for one in choices if budget is None or one.size <= budget]
    size = "" if budget is None else f" of at most {budget} B"
    goal = f"{target:g}".lstrip("0")
    facts = next((cell.facts for cell in cells if cell.status == "ok"), {})
    basis = f"{facts.get('queries', 0):,} queries among {facts.get('database', 0):,} vectors"
    if not within:
        return f"no code{size} was measured; give a larger budget or fewer bits"
    good = [one for one in within if one.front and one.factor <= MOST]
    if not good:
        best = min(within, key=lambda one: one.factor)
        return (
            f"no code{size} reaches {goal} with {MOST:g} times k candidates; {best.name} of {best.size:g} B is "
            f"nearest, at {best.factor:g} times; give more bits ({basis})"
        )
    told = [f"{one.name} of {one.size:g} B reaches {goal} at {one.factor:g} times k candidates" for one in good[:1]]
    told += [f"{one.name} of {one.size:g} B at {one.factor:g} times" for one in good[1:NAMED]]
    width = max(one.interval for one in good[:NAMED])
    return f"{'; '.join(told)} ({basis}; the recall of one code is known to ±{width:.3f})"


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
