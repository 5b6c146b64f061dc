"""Tables and findings of docs/evidence/reality-check.md, read from the committed cells; nothing is measured.

    python benchmarks/reality_check.py            # prints them
    python benchmarks/reality_check.py --write    # writes them between the marks of the page

A study NAME has its trials in results/NAME/tuning (``hashzoo tune``), and its test scores in results/NAME
(``hashzoo bench``, without and with ``--tuned``).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean, median

from scipy.stats import kendalltau, rankdata

from hashzoo.registry.zoo import load_plugins
from hashzoo.results import store, study_tables, tuned
from hashzoo.results.cell import Cell

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evidence" / "reality-check.md"
STUDIES = ("miml", "cifar10-study", "imagenette-study")
REFERENCE = "classifier"
BLOCK = re.compile(r"(<!-- study: (\S+) -->\n).*?(<!-- end of study -->)", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One method of a study: means over its datasets and code lengths.

    Attributes:
        method: Its name.
        default: Test score of the default settings.
        tuned: Test score of the chosen settings.
        spread: Standard deviation of the chosen validation score if the trials are drawn again.
        optimism: Validation score minus test score of the chosen settings.
        kept: In how many blocks the default was chosen.
        edges: Chosen values at an end of their range.
        codes: Distinct codes of the database for each of its images, with the chosen settings.
    """

    method: str
    default: float
    tuned: float
    spread: float
    optimism: float
    kept: int
    edges: tuple[str, ...]
    codes: float


def study(name: str) -> tuple[tuned.Tuned, list[study_tables.Row], list[Cell]]:
    """The trials of a study, its rows with test scores, and the cells of its board."""
    board, result = ROOT / "results" / name, tuned.read(ROOT / "results" / name / "tuning" / tuned.FILE)
    return result, study_tables.rows(result, [board]), [cell for cell in store.peek_all(board) if cell.status == "ok"]


def lines(rows: Sequence[study_tables.Row], cells: Sequence[Cell], mark: str) -> list[Line]:
    """The methods that every block has, the best tuned one first."""
    blocks = {(row.study.dataset, row.study.bits) for row in rows}
    by_method: dict[str, list[study_tables.Row]] = {}
    for row in rows:
        if row.test_default is not None and row.test_tuned is not None:
            by_method.setdefault(row.study.method, []).append(row)
    found = [_line(name, of, cells, mark) for name, of in by_method.items() if len(of) == len(blocks)]
    return sorted(found, key=lambda line: -line.tuned)


def _line(name: str, rows: Sequence[study_tables.Row], cells: Sequence[Cell], mark: str) -> Line:
    own = [cell for cell in cells if cell.identity.method == name]
    chosen = [cell for cell in own if cell.settings.startswith(mark)] or own
    codes = [
        float(c.facts["distinct_codes"]) / float(c.facts["database"]) for c in chosen if "distinct_codes" in c.facts
    ]
    return Line(
        name,
        mean(row.test_default or 0.0 for row in rows),
        mean(row.test_tuned or 0.0 for row in rows),
        mean(row.spread or 0.0 for row in rows),
        mean(row.optimism or 0.0 for row in rows),
        sum(row.study.chosen == 0 for row in rows),
        tuple(edge for row in rows for edge in row.study.edges),
        mean(codes) if codes else math.nan,
    )


def table(found: Sequence[Line], blocks: int) -> list[str]:
    """The methods with their scores and ranks before and after."""
    before, after = (rankdata([-value for value in values]) for values in _scores(found))
    text = [
        "| method | default | tuned | gain | rank | spread | optimism | default kept | codes per image |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line, first, second in zip(found, before, after, strict=True):
        text.append(
            f"| `{line.method}` | {score(line.default)} | {score(line.tuned)} | {signed(line.tuned - line.default)} | "
            f"{first:g} → {second:g} | {score(line.spread)} | {signed(line.optimism)} | {line.kept} of {blocks} | "
            f"{'' if math.isnan(line.codes) else f'{line.codes:.2f}'} |"
        )
    return text


def _scores(found: Sequence[Line]) -> tuple[list[float], list[float]]:
    return [line.default for line in found], [line.tuned for line in found]


def findings(result: tuned.Tuned, found: Sequence[Line], rows: Sequence[study_tables.Row]) -> list[str]:
    """What the numbers say, a sentence each."""
    gains = {line.method: line.tuned - line.default for line in found if line.kept < len(_blocks(rows))}
    most = max(gains, key=lambda name: gains[name])
    pairs = list(combinations(found, 2))
    turned = sum((a.default - b.default) * (a.tuned - b.tuned) < 0 for a, b in pairs)
    tau = kendalltau(*_scores(found)).statistic
    lost = [name for name, gain in gains.items() if gain < 0]
    edges = [edge for line in found for edge in line.edges]
    blocks = _blocks(rows)
    said = [
        f"{len(found)} methods, {result.trials} trials each, {len(blocks)} block{'s' * (len(blocks) > 1)}: "
        + ", ".join(f"`{dataset}` at {bits} bits" for dataset, bits in blocks)
        + ".",
        f"Tuning changes the mean test score of the methods whose default did not win everywhere by "
        f"{signed(median(gains.values()))} in the median, and by {signed(gains[most])} at most (`{most}`). "
        + (f"It lowers that of {names(lost)}." if lost else "It lowers that of none."),
        f"The order of {turned} of {len(pairs)} pairs of methods is another one with tuned settings "
        f"(Kendall's tau {tau:.2f}).",
        f"Drawing the trials again would change a chosen validation score by {score(median(o.spread for o in found))} "
        f"in the median (one standard deviation); methods that follow each other in the table differ by "
        f"{score(median(a.tuned - b.tuned for a, b in pairwise(found)))} in the median.",
        f"{len(edges)} chosen values lie at an end of their range"
        + (f", most often {most_frequent(edges)}." if edges else "."),
    ]
    return said + _against_reference(found) + _by_supervision(found)


def _against_reference(found: Sequence[Line]) -> list[str]:
    reference = next((line for line in found if line.method == REFERENCE), None)
    if reference is None:
        return []
    below = [line.method for line in found if line.tuned < reference.tuned and line.method in _supervised()]
    said = f"The tuned `{REFERENCE}`, which stores the predicted classes, reaches {score(reference.tuned)}"
    gain = f" ({signed(reference.tuned - reference.default)} by tuning)"
    return [f"{said}{gain}. Methods with labels below it: {names(below) if below else 'none'}."]


def _by_supervision(found: Sequence[Line]) -> list[str]:
    ranks = dict(zip((line.method for line in found), rankdata([-line.tuned for line in found]), strict=True))
    cards = _supervised()
    groups: dict[str, list[float]] = {}
    for name, rank in ranks.items():
        if name in cards and name != REFERENCE:
            groups.setdefault(cards[name], []).append(float(rank))
    text = ", ".join(f"{mean(of):.1f} of {len(of)} methods with {kind}" for kind, of in sorted(groups.items()))
    return [f"Mean rank by what a method learns from: {text}."] if groups else []


def _supervised() -> Mapping[str, str]:
    """The supervision of methods that learn from labels: pairs or classes."""
    zoo = load_plugins()
    cards = {name: entry.card for name, entry in zoo.methods.items()}
    return {name: card.supervision for name, card in cards.items() if card.supervision != "none"}


def _blocks(rows: Sequence[study_tables.Row]) -> list[tuple[str, int]]:
    return sorted({(row.study.dataset, row.study.bits) for row in rows})


def most_frequent(edges: Sequence[str]) -> str:
    """The value that is named most often, as code.

    >>> most_frequent(["train.lr high", "weight low", "train.lr high"])
    '`train.lr high` (2)'
    """
    name = max(sorted(set(edges)), key=edges.count)
    return f"`{name}` ({edges.count(name)})"


def names(several: Sequence[str]) -> str:
    """A list in words.

    >>> names(["a", "b", "c"])
    '`a`, `b` and `c`'
    """
    quoted = [f"`{name}`" for name in several]
    return " and ".join([*([", ".join(quoted[:-1])] if quoted[1:] else []), quoted[-1]])


def score(value: float) -> str:
    """Three digits without the zero.

    >>> score(0.5), score(1.0)
    ('.500', '1.000')
    """
    return f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """The same with a sign.

    >>> signed(-0.0312), signed(0.5)
    ('-.031', '+.500')
    """
    return ("-" if value < 0 else "+") + score(abs(value))


def text(name: str) -> str:
    """The block of a study on the page."""
    result, rows, cells = study(name)
    found = lines(rows, cells, result.mark)
    out = [*table(found, len(_blocks(rows))), "", *(f"- {one}" for one in findings(result, found, rows))]
    return "\n".join(out) + "\n"


def page() -> str:
    """The page with what the cells say today."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{text(match[2])}\n{match[3]}", PAGE.read_text())


def main() -> None:
    """Print the blocks, or write the page."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
        return
    for name in STUDIES:
        print(f"## {name}\n\n{text(name)}")


if __name__ == "__main__":
    main()
