"""The report of a study as tables: default and tuned settings, and the ranking by the number of trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

from hashzoo.errors import UsageError
from hashzoo.results import store
from hashzoo.results.board import Filter
from hashzoo.results.cell import Cell
from hashzoo.results.significance import holm
from hashzoo.results.study import budgets, crossings, expected_best, luck_test, ranks_by_budget, selection_spread
from hashzoo.results.table import Column, Entry, TextTable
from hashzoo.results.tuned import Tuned, TunedMethod
from hashzoo.storage.files import canonical_json

NOT_ENOUGH = "every trial failed"


@dataclass(frozen=True)
class Row:
    """One method of a study at one dataset and code length.

    Attributes:
        study: Its trials.
        spread: The standard deviation of the chosen validation score if the trials are drawn again.
        failed: Number of trials that failed.
        luck: The p value that the chosen score differs from the best one of its dataset and bits by the luck of the
            trials, corrected for all methods; None for the best one, and with too few trials.
        test_default: The mean test score of the default over its seeds; None if no board has it.
        test_tuned: The same of the chosen settings.
        seeds: Number of seeds of the chosen settings.
    """

    study: TunedMethod
    spread: float | None
    failed: int
    luck: float | None = None
    test_default: float | None = None
    test_tuned: float | None = None
    seeds: int = 0

    @property
    def gain(self) -> float | None:
        """The validation score of the chosen settings minus that of the default."""
        return _minus(self.study.score, self.study.default)

    @property
    def test_gain(self) -> float | None:
        """The test score of the chosen settings minus that of the default."""
        return _minus(self.test_tuned, self.test_default)

    @property
    def optimism(self) -> float | None:
        """The validation score of the chosen settings minus their test score."""
        return _minus(self.study.score, self.test_tuned)


def selected(tuned: Tuned, wanted: Filter) -> Tuned:
    """The study of the methods, code lengths and datasets that are wanted. UsageError if it has none of these."""
    kept = [one for one in tuned.methods if _matches(one, wanted)]
    if tuned.methods and not kept:
        raise UsageError(f"the study of {tuned.benchmark} has no such method, bits and dataset; ask for others")
    return tuned.model_copy(update={"methods": kept})


def _matches(one: TunedMethod, wanted: Filter) -> bool:
    given = ((one.method, wanted.methods), (one.dataset, wanted.datasets))
    fits = all(not several or any(fnmatchcase(name, each) for each in several) for name, several in given)
    return fits and (not wanted.bits or one.bits in wanted.bits)


def rows(tuned: Tuned, boards: Sequence[Path] = ()) -> list[Row]:
    """The rows of a study. UsageError if results folders are given and none has a test score of the study."""
    cells = [cell for folder in boards for cell in store.peek_all(folder) if cell.status == "ok"]
    found = [_row(tuned, study, cells) for study in tuned.methods]
    if boards and all(row.test_tuned is None and row.test_default is None for row in found):
        raise UsageError(
            f"{', '.join(map(str, boards))} has no test score of this study; run hashzoo bench {tuned.benchmark} "
            "--tuned FILE with --results of that folder"
        )
    return _with_luck(tuned, found)


def _row(tuned: Tuned, study: TunedMethod, cells: Iterable[Cell]) -> Row:
    scores = study.scores(tuned.higher)
    plain, chosen = list[Cell](), list[Cell]()
    own = [cell for cell in cells if _place(cell) == study.place and tuned.metric in cell.metrics]
    for cell in own:
        if cell.settings.startswith(tuned.mark):
            chosen.append(cell)
    groups: dict[str, list[Cell]] = {}
    for cell in own:
        if not cell.settings.startswith("tuned("):
            groups.setdefault(_without_seed(cell), []).append(cell)
    if groups:  # the row with the fewest settings is the default
        plain = min(groups.values(), key=lambda group: (len(group[0].settings), group[0].settings))
    if not study.settings:  # the default was chosen: one row is both
        plain = chosen = chosen or plain
    return Row(
        study,
        selection_spread(scores) if len(scores) > 1 else None,
        sum(one.score is None and one.status != "pruned" for one in study.trials),
        test_default=_mean([cell.metrics[tuned.metric] for cell in plain]),
        test_tuned=_mean([cell.metrics[tuned.metric] for cell in chosen]),
        seeds=len(chosen),
    )


def _with_luck(tuned: Tuned, found: Sequence[Row]) -> list[Row]:
    """The rows with the tests of the chosen scores against the best one of the same dataset and bits."""
    blocks: dict[tuple[str, int], list[Row]] = {}
    for row in found:
        if row.study.chosen >= 0:
            blocks.setdefault((row.study.dataset, row.study.bits), []).append(row)
    known: dict[tuple[str, str, int], float] = {}
    for rows_of in blocks.values():
        best, *others = sorted(rows_of, key=lambda row: -_rank(row, tuned.higher))
        scores = best.study.scores(tuned.higher)
        tests = [(row, luck_test(scores, row.study.scores(tuned.higher))) for row in others]
        tested = [(row, p) for row, p in tests if p is not None]
        found_p = holm([p for _, p in tested])
        known |= {row.study.place: float(p) for (row, _), p in zip(tested, found_p, strict=True)}
    return [replace(row, luck=known.get(row.study.place)) for row in found]


def _place(cell: Cell) -> tuple[str, str, int]:
    return cell.identity.dataset, cell.identity.method, cell.identity.bits


def _without_seed(cell: Cell) -> str:
    return canonical_json({**asdict(cell.identity), "seed": 0})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def records(found: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with all digits, for programs."""
    return [
        {
            **{"dataset": row.study.dataset, "bits": row.study.bits, "method": row.study.method},
            **{"default": row.study.default, "tuned": row.study.score, "gain": row.gain, "spread": row.spread},
            "p luck": row.luck,
            **{"trials": len(row.study.trials), "failed": row.failed, "chosen": row.study.chosen},
            **{"test default": row.test_default, "test tuned": row.test_tuned, "test gain": row.test_gain},
            **{"optimism": row.optimism, "seeds": row.seeds, "edges": ", ".join(row.study.edges)},
            "settings": " ".join(f"{name}={value}" for name, value in row.study.settings.items()),
        }
        for row in found
    ]


def tables(tuned: Tuned, found: Sequence[Row]) -> list[TextTable]:
    """The tables of a study: one of settings, and one of scores and ranks by the number of trials."""
    return [_settings_table(tuned, found), *_budget_tables(tuned)]


_SIGNED = ("gain", "test gain", "optimism")


def _settings_table(tuned: Tuned, found: Sequence[Row]) -> TextTable:
    order = sorted(found, key=lambda row: (row.study.dataset, row.study.bits, -_rank(row, tuned.higher)))
    lines = records(order)
    tested = any(row.test_tuned is not None or row.test_default is not None for row in order)
    names = [
        "method",
        "bits",
        "default",
        "tuned",
        "gain",
        "spread",
        *(["p luck"] if any(row.luck is not None for row in order) else []),
        "chosen",
    ]
    names += ["test default", "test tuned", "test gain", "optimism"] if tested else []
    names += ["failed"] if any(row.failed for row in order) else []
    several = len({row.study.dataset for row in order}) > 1
    names = ["method", *(["dataset"] if several else []), *names[1:]]
    names += ["edges"] if any(row.study.edges for row in order) else []
    names.append("settings")
    columns = [
        Column(name, text=name in ("method", "dataset", "edges", "settings"), identifies=name in ("method", "bits"))
        for name in names
    ]
    entries = [[_entry(name, line[name]) for name in names] for line in lines]
    ends = {n for n, (a, b) in enumerate(pairwise(lines)) if a["bits"] != b["bits"]}
    datasets = ", ".join(sorted({row.study.dataset for row in order}))
    title = f"{tuned.benchmark} tuned: {datasets}, {tuned.metric}"
    return TextTable(columns, entries, title, _notes(tuned, order, tested), frozenset(ends))


def _rank(row: Row, higher: bool) -> float:
    value = row.study.score
    return float("-inf") if value is None else value if higher else -value


def _entry(name: str, value: Any) -> Entry:
    if value is None or (name == "chosen" and value == -1):
        return Entry("")
    if not isinstance(value, float):
        return Entry(str(value))
    if name == "p luck":
        return Entry("<.001" if value < 0.001 else f"{value:.3f}")
    return Entry(f"{value:+.4f}" if name in _SIGNED else f"{value:.4f}")


def _notes(tuned: Tuned, found: Sequence[Row], tested: bool) -> list[str]:
    held = f"{len(tuned.held_out)} folds" if len(tuned.held_out) > 1 else tuned.held_out[0]
    notes = [
        f"default, tuned: {tuned.metric} of training images held out ({held}), the best of {tuned.trials} trials "
        f"({tuned.sampler}); the test split was not used",
        "spread: standard deviation of the chosen score if the trials are drawn again",
        "chosen: the number of the trial; 0 is the default",
    ]
    if any(row.luck is not None for row in found):
        notes.append("p luck: of a difference to the best method by the luck of the trials alone; Holm for all methods")
    if tested:
        notes.append("optimism: tuned minus test tuned; the two search different databases")
    if any(row.study.edges for row in found):
        notes.append("edges: values at an end of their range; widen the range, and tune again")
    if broken := [row.study.method for row in found if row.study.chosen < 0]:
        notes.append(f"{NOT_ENOUGH}: {', '.join(dict.fromkeys(broken))}")
    return notes


def blocks(tuned: Tuned) -> dict[str, list[list[float]]]:
    """The scores of the trials of each method in every block, those of methods that every block has."""
    by_method: dict[str, dict[tuple[str, int], list[float]]] = {}
    for one in tuned.methods:
        if scores := one.scores(tuned.higher):
            by_method.setdefault(one.method, {})[one.dataset, one.bits] = scores
    every = set().union(*by_method.values()) if by_method else set()
    return {name: [of[block] for block in sorted(every)] for name, of in by_method.items() if of.keys() == every}


def _budget_tables(tuned: Tuned) -> list[TextTable]:
    """The mean expected best score of each method by the number of trials, and its mean rank."""
    studies = blocks(tuned)
    if len(studies) < 2:
        return []
    counts = budgets(max(len(scores) for several in studies.values() for scores in several))
    sign = 1 if tuned.higher else -1
    ranks = ranks_by_budget(studies, counts)
    columns = [Column("method", text=True, identifies=True), *(Column(str(count)) for count in counts)]
    lines: list[list[Entry]] = []
    for name in sorted(studies, key=lambda name: (ranks[name][-1], name)):
        best = [_mean([expected_best(one, min(n, len(one))) for one in studies[name]]) or 0.0 for n in counts]
        texts = [f"{sign * score:.4f} ({rank:.1f})" for score, rank in zip(best, ranks[name], strict=True)]
        lines.append([Entry(name), *map(Entry, texts)])
    notes = ["expected best validation score of so many trials, the default included; mean rank in brackets"]
    if crossed := crossings(ranks):
        pairs = "; ".join(f"{first} leads {second}" for first, second in crossed[:5])
        more = f" and {len(crossed) - 5} more pairs" if len(crossed) > 5 else ""
        notes.append(f"the ranking depends on tuning: untuned {pairs}{more}; with all trials it is the other way round")
    return [TextTable(columns, lines, f"{tuned.benchmark} by number of trials, {tuned.metric}", notes)]


def curves(tuned: Tuned) -> Mapping[tuple[str, int], Mapping[str, list[float]]]:
    """The expected best validation score of 1, 2, ... trials by dataset and bits, and by method."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    sign = 1 if tuned.higher else -1
    for one in tuned.methods:
        if scores := one.scores(tuned.higher):
            line = [sign * expected_best(scores, n) for n in range(1, len(scores) + 1)]
            found.setdefault((one.dataset, one.bits), {})[one.method] = line
    return found
