"""Rows of boards compared in pairs: whether they follow the same protocol, and whether they differ significantly."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError, printable, unknown_name
from hashzoo.evaluation.metrics import not_measured
from hashzoo.results import leaderboard, render, store
from hashzoo.results.board import BoardRow, StoredBoard
from hashzoo.results.ranking import dataset_of
from hashzoo.results.regressions import stale_mark
from hashzoo.results.significance import (
    FEWEST_SEEDS,
    LEVEL,
    Floats,
    bootstrap_intervals,
    crossed_test,
    holm,
    sign_flip_test,
)
from hashzoo.results.table import Column, Entry, TextTable

#: The reason why rows measured by different protocols are not compared.
UNLIKE = "not the same protocol"
#: The reason why rows with equal scores for every query are not tested.
EQUAL = "the same score for each query"

# The facts that two rows must share before their scores are comparable, with their names in messages.
_PROTOCOL = {
    "protocol": "protocol version",
    "split": "split",
    "data": "fingerprint of the data",
    "source": "source",
    "queries": "number of queries",
    "queries_without_relevant": "number of queries without a relevant item",
    "unlabelled_queries": "number of unlabeled queries",
    "database_size": "size of the database",
    "train": "number of training images",
    "train_in_database": "number of training images in the database",
}


#: The reason why rows are not tested that were stored without arrays, and where these are missing.
NO_SCORES = "no scores of single queries"


@dataclass(frozen=True)
class Pair:
    """Two rows and the tests of their difference.

    Attributes:
        first: The first row.
        second: The second row.
        before: Mean score of the first row, over the seeds that both have, or over all of its seeds without a test.
        after: The same of the second row.
        seeds: Number of seeds that both have.
        queries: Number of queries with a score in both.
        interval: The 95 % interval of the difference, second minus first.
        of_models: The p value of the trained models on other queries, corrected for all pairs.
        of_training: The p value of training them again, corrected for all pairs.
        reason: Why there is no test.
        differences: (S, Q) differences by seed and query.
    """

    first: BoardRow
    second: BoardRow
    before: float
    after: float
    seeds: int = 0
    queries: int = 0
    interval: tuple[float, float] | None = None
    of_models: float | None = None
    of_training: float | None = None
    reason: str = ""
    differences: Floats | None = field(default=None, repr=False)


def pair_boards(first: StoredBoard, second: StoredBoard) -> list[tuple[BoardRow, BoardRow]]:
    """The rows that two boards have in common. UsageError if there is none."""
    ours, theirs = first.by_place, second.by_place
    found = [(row, theirs[place]) for place, row in sorted(ours.items()) if place in theirs]
    if ours and theirs and not found:
        raise UsageError(
            f"{first.path} and {second.path} have no row in common: {_nearest_difference(first, second)}; "
            "name two boards of one benchmark, or put both into one folder and compare with --between"
        )
    return found


def _nearest_difference(first: StoredBoard, second: StoredBoard) -> str:
    """What distinguishes the two most similar rows of two boards."""
    places = itertools.product(*([row.facts for row in board.rows()] for board in (first, second)))
    ours, theirs = min(places, key=lambda two: sum(two[0][name] != two[1][name] for name in leaderboard.PLACE))
    names = [name for name in leaderboard.PLACE if ours[name] != theirs[name]]
    return "; ".join(f"{name} {ours[name] or 'none'} and {theirs[name] or 'none'}" for name in names)


def pair_methods(board: StoredBoard, methods: Sequence[str]) -> list[tuple[BoardRow, BoardRow]]:
    """All pairs of rows of these methods with the same benchmark, dataset and bits, on any backbones.

    A method that was measured with several settings has several rows. UsageError for a method that the board does not
    have, and if there is no pair.
    """
    rows = board.rows()
    known = {row.facts["method"] for row in rows}
    for name in methods:
        if name not in known:
            raise UsageError(f"{board.path}: {unknown_name('method', name, known)}")
    blocks: dict[tuple[Any, ...], list[BoardRow]] = {}
    for row in rows:
        if row.facts["method"] in methods:
            blocks.setdefault((*dataset_of(row.facts), row.facts["bits"]), []).append(row)
    pairs = list[tuple[BoardRow, BoardRow]]()
    for _, block in sorted(blocks.items()):
        block.sort(key=lambda row: list(methods).index(row.facts["method"]))
        pairs += itertools.combinations(block, 2)
    if not pairs:
        raise UsageError("--between takes two methods or more that were measured on the same data at the same bits")
    return pairs


def protocol_differences(first: BoardRow, second: BoardRow) -> list[str]:
    """The facts of the protocol that differ between two rows, as far as both are known."""
    ours, theirs = _protocol(first), _protocol(second)
    known = [name for name in _PROTOCOL if ours.get(name) not in (None, "") and theirs.get(name) not in (None, "")]
    return [f"{_PROTOCOL[name]} {ours[name]} and {theirs[name]}" for name in known if ours[name] != theirs[name]]


def _protocol(row: BoardRow) -> dict[str, Any]:
    inside = {"protocol": row.cells[0].identity.protocol, "data": row.cells[0].identity.data} if row.cells else {}
    return {**row.facts, **inside}


def protocol_mismatches(pairs: Iterable[tuple[BoardRow, BoardRow]]) -> list[str]:
    """A line for each pair of rows whose protocols differ, naming the differences."""
    compared = [(first, second, protocol_differences(first, second)) for first, second in pairs]
    return [f"{_pair_place(a, b)}: {UNLIKE}: {'; '.join(differences)}" for a, b, differences in compared if differences]


def _pair_place(first: BoardRow, second: BoardRow) -> str:
    row = first.facts
    return f"{pair_name(row, second.facts)} at {row['bits']} bits on {row['dataset']} ({row['benchmark']})"


def pair_name(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """A name for two rows, made of what distinguishes them."""
    differing = [name for name in ("settings", "backbone", "budget") if first[name] != second[name]]
    if first["method"] == second["method"] and not differing:
        return " ".join(filter(None, [first["method"], first["settings"]]))
    names = [" ".join(filter(None, (row[name] for name in ("method", *differing)))) for row in (first, second)]
    return " -> ".join(names)


def select_metric(boards: Sequence[StoredBoard], metric: str | None = None) -> str | None:
    """The metric to test: ``metric``, or the main one of those that all boards have; None if no board has any.

    UsageError if a board does not have the metric, or the boards have none in common.
    """
    names = [leaderboard.metrics(board.frame) for board in boards]
    for board, known in zip(boards, names, strict=True):
        if metric and metric not in known:
            raise UsageError(f"{board.path}: {not_measured('metric', metric, known)}")
    shared = [name for name in names[0] if all(name in known for known in names)]
    if not shared and all(names):
        lists = " and ".join(", ".join(known) for known in names)
        raise UsageError(f"the boards share no metric: {lists}; measure both with the same --metrics")
    return metric or leaderboard.main_metric(shared)


def compare_pairs(pairs: Iterable[tuple[BoardRow, BoardRow]], metric: str) -> list[Pair]:
    """Test the pairs of rows that both have the metric; a pair that cannot be tested has a reason.

    Pairs with the same score for each query have nothing to test, and do not count in the correction.
    """
    pairs = [(a, b) for a, b in pairs if None not in (a.facts.get(metric), b.facts.get(metric))]
    rows = {id(row): row for pair in pairs for row in pair}
    values = {key: _scores_by_seed(row, metric) for key, row in rows.items()}
    found = [_pair(a, b, metric, values[id(a)], values[id(b)]) for a, b in pairs]
    tested = [i for i, pair in enumerate(found) if pair.differences is not None]
    p, interval = np.ones(len(found)), np.zeros((len(found), 2))
    by_size: dict[int, list[int]] = {}
    for i in tested:
        by_size.setdefault(found[i].queries, []).append(i)
    for which in by_size.values():
        means = np.stack([_differences(found[i]).mean(0) for i in which])  # (T, Q)
        p[which], interval[which] = sign_flip_test(means), bootstrap_intervals(means)
    with_seeds = [i for i in tested if found[i].seeds >= FEWEST_SEEDS]
    crossed = [crossed_test(_differences(found[i])) for i in with_seeds]
    for i, corrected in zip(tested, holm(p[tested]), strict=True):
        found[i] = replace(found[i], of_models=float(corrected), interval=(interval[i, 0], interval[i, 1]))
    for i, (_, low, high), corrected in zip(with_seeds, crossed, holm([one[0] for one in crossed]), strict=True):
        found[i] = replace(found[i], of_training=float(corrected), interval=(low, high))
    return found


def _scores_by_seed(row: BoardRow, metric: str) -> dict[int, Floats]:
    """The scores (Q,) of single queries by seed, of seeds that are ok and have them. Raises DamagedError."""
    found = {}
    for cell in row.cells:
        if cell.status != "ok":
            continue
        try:
            arrays = store.arrays(row.file(cell))
        except store.DamagedError:
            raise
        except EnvironmentFailure:  # results can be passed on without arrays
            continue
        if metric in arrays and arrays[metric].ndim == 1 and arrays[metric].dtype.kind in "iuf":
            found[cell.identity.seed] = arrays[metric].astype(float)
    return found


def _differences(pair: Pair) -> Floats:
    assert pair.differences is not None  # noqa: S101 # nosec B101 # only tested pairs are passed
    return pair.differences


def _pair(
    first: BoardRow, second: BoardRow, metric: str, ours: Mapping[int, Floats], theirs: Mapping[int, Floats]
) -> Pair:
    """A pair with its differences, or the reason why there are none."""
    pair = Pair(first, second, first.facts[metric], second.facts[metric])
    if protocol_differences(first, second):
        return replace(pair, reason=UNLIKE)
    for row, known in ((first, ours), (second, theirs)):
        if not known:
            return replace(pair, reason=f"{NO_SCORES} {_place_of_scores(row, metric)}")
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return replace(pair, reason="no seed in common")
    if len({known[seed].shape for known in (ours, theirs) for seed in seeds}) > 1:
        return replace(pair, reason=UNLIKE)
    a, b = (np.stack([known[seed] for seed in seeds]) for known in (ours, theirs))  # (S, Q)
    usable = np.isfinite(a).all(0) & np.isfinite(b).all(0)  # NaN: nothing relevant, or outside the part of the metric
    a, b = a[:, usable], b[:, usable]
    if a.shape[1] < 2:
        return replace(pair, reason="fewer than two queries have a value")
    pair = replace(pair, before=float(a.mean()), after=float(b.mean()), seeds=len(seeds), queries=a.shape[1])
    if (a == b).all():
        return replace(pair, reason=EQUAL)
    return replace(pair, differences=b - a)


def _place_of_scores(row: BoardRow, metric: str) -> str:
    return f"in {row.folder / 'cells'}/*.npz for {metric}" if row.cells else "in a CSV file"


_COLUMNS = (
    Column("method", text=True, identifies=True, widest=36),
    Column("bits", identifies=True),
    *(Column("first"), Column("second"), Column("difference", vital=True)),
    *(Column("p models"), Column("p training"), Column("95 % interval"), Column("seeds")),
)


def render_paired(pairs: Sequence[Pair], metric: str) -> list[TextTable]:
    """A table for each benchmark and dataset: differences, second minus first, intervals and corrected p values."""
    tables = []
    for key, members in itertools.groupby(pairs, lambda p: dataset_of(p.first.facts)):
        group = list(members)
        _, sides = render.without_shared([dict(row.facts) for pair in group for row in (pair.first, pair.second)])
        rows = [
            _entries(pair, first, second) for pair, first, second in zip(group, sides[::2], sides[1::2], strict=True)
        ]
        notes = ["difference: second minus first"]
        if any(entry.mark for row in rows for entry in row):
            notes.append(f"*: significant at {100 * LEVEL:.0f} %")
        title = ", ".join(filter(None, (f"{key[0]}: {key[1]}", key[2], metric)))
        tables.append(TextTable(_COLUMNS, rows, printable(title), notes))
    return tables


def _entries(pair: Pair, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Entry]:
    ends = f"{pair.interval[0]:+.4f} {pair.interval[1]:+.4f}" if pair.interval else ""
    mark = stale_mark(first, second)
    return [
        Entry(printable(pair_name(first, second) + (f" ({mark})" if mark else ""))),
        Entry(str(first["bits"])),
        *(Entry(f"{pair.before:.4f}"), Entry(f"{pair.after:.4f}"), Entry(f"{pair.after - pair.before:+.4f}")),
        *(_p(pair.of_models), _p(pair.of_training)),
        *(Entry(ends), Entry(str(pair.seeds or ""))),
    ]


def _p(p: float | None) -> Entry:
    """A p value, marked if it is below the level.

    >>> [str(_p(x)) for x in (None, 1.0, 0.0123, 0.00001)]
    ['', '1.000', '0.012*', '<0.001*']
    """
    if p is None:
        return Entry("")
    return Entry(f"{p:.3f}" if p >= 0.001 else "<0.001", mark="*" if p < LEVEL else "")


def pair_record(pair: Pair, metric: str) -> dict[str, Any]:
    """A pair as a dict of all that is known of it, with all digits."""
    first, second = pair.first.facts, pair.second.facts
    return {
        **{name: first[name] for name in ("benchmark", "dataset", "bits")},
        **{"first": first["method"], "first settings": first["settings"], "first backbone": first["backbone"]},
        **{"second": second["method"], "second settings": second["settings"], "second backbone": second["backbone"]},
        **{"metric": metric, "first score": pair.before, "second score": pair.after},
        **{"difference": pair.after - pair.before, **pair_tests(pair)},
    }


def pair_tests(pair: Pair) -> dict[str, Any]:
    """The interval and the p values of a pair, and why there are none."""
    low, high = pair.interval or (None, None)
    return {
        **{"low": low, "high": high, "p models": pair.of_models, "p training": pair.of_training},
        **{"seeds": pair.seeds, "queries": pair.queries, "reason": pair.reason},
    }


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


def other_test(pairs: Sequence[Pair], board: StoredBoard) -> list[str]:
    """A line about the test that needs no scores of single queries, if it can test a pair of one board that lacks them.

    It compares the scores of seeds.
    """
    for pair in pairs:
        seeds = [sum(cell.status == "ok" for cell in row.cells) for row in (pair.first, pair.second)]
        if pair.reason.startswith(NO_SCORES) and min(seeds) >= FEWEST_SEEDS:
            method = pair.first.facts["method"]
            return [f"hashzoo compare {board.path} --against {method} tests the means of seeds and needs none of them"]
    return []


def notes(pairs: Sequence[Pair]) -> list[str]:
    """Lines that explain the tables: what was tested and what was not."""
    tested = [pair for pair in pairs if pair.of_models is not None]
    lines = []
    if tested:
        with_seeds = sum(pair.of_training is not None for pair in tested)
        correction = f"corrected for {_tests(len(tested))} (Holm)"
        lines.append(f"p models: these trained models on other queries of the same kind, {correction}.")
        if with_seeds:
            lines.append(f"p training: trained with other seeds as well, corrected for {_tests(with_seeds)} (Holm).")
        if with_seeds < len(tested):
            lines.append(
                f"{len(tested) - with_seeds} of {len(tested)} pairs have fewer than {FEWEST_SEEDS} seeds in common: "
                "the variance of training is not covered, and a small p value can be due to the seed."
            )
    if any(stale_mark(pair.first.facts, pair.second.facts) for pair in pairs):
        lines.append(render.STALE)
    reasons = [pair.reason for pair in pairs if pair.reason]
    lines += [f"not tested: {reason} ({reasons.count(reason)} of {len(pairs)} pairs)" for reason in sorted({*reasons})]
    return lines
