"""The board of a benchmark, as Python objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas import DataFrame

from hashzoo.errors import UsageError
from hashzoo.registry.zoo import Zoo
from hashzoo.results.board import Filter, read_board
from hashzoo.results.cell import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hashzoo.report.style import Style
    from hashzoo.results import paired


@dataclass(frozen=True)
class Board:
    """The board of a benchmark.

    Attributes:
        folder: The results folder.
        cells: The cells of this benchmark, those that were there already included.
        leaderboard: One row for each method, setting and code length of the folder, with the columns of its
            ``leaderboard.csv``.
        zoo: The plugins that the benchmark was run with.
    """

    folder: Path
    cells: list[Cell]
    leaderboard: DataFrame
    zoo: Zoo

    @cached_property
    def failed(self) -> list[Cell]:
        """The cells that are neither ok nor skipped; all of them if every cell was skipped."""
        failed = [cell for cell in self.cells if cell.status not in ("ok", "skipped")]
        return self.cells if all(cell.status == "skipped" for cell in self.cells) else failed

    def compare(self, *methods: str | type, metric: str | None = None) -> DataFrame:
        """Compare methods pair by pair with paired tests over queries and seeds.

        Args:
            methods: Names of two methods or more, or classes that were given to :func:`hashzoo.benchmark`.
            metric: The score to test; by default the main one of the board.

        Returns:
            One row for each pair at the same dataset and bits, with both methods, their means, the difference, its 95 %
            interval, and p values corrected by Holm for all pairs: ``p models`` of the models as they were trained,
            ``p training`` of training them again. ``reason`` says why a pair was not tested.

        Raises:
            UsageError: If the board does not have a method or a metric.
        """
        from hashzoo.results import paired

        board = read_board(self.folder)
        pairs = paired.pair_methods(board, [one if isinstance(one, str) else method_name(one) for one in methods])
        name = paired.select_metric([board], metric)
        return _frame(paired.compare_pairs(pairs, name) if name else [], name or "")

    def plot(
        self,
        kind: str = "pr",
        *,
        methods: Sequence[str] = (),
        bits: int | Sequence[int] | None = None,
        dataset: str | Sequence[str] = (),
        highlight: Sequence[str] = (),
        style: Style | None = None,
    ) -> Figure:
        """Draw a figure of the board; needs ``pip install 'hashzoo[plots]'``.

        Args:
            kind: ``"pr"``, ``"bits"``, ``"cost"``, ``"distances"``, ``"balance"``, ``"classes"`` or ``"ranks"``.
            methods: Only these methods, by name or pattern.
            bits: Only this code length, or these. Of several, most figures show the middle one.
            dataset: Only this dataset, or these, by name or pattern.
            highlight: Methods or rows to bring to the front; by default the selected ones if they are few, or the
                best ones.
            style: Size and fonts, as :class:`hashzoo.report.style.Style`.

        Returns:
            A matplotlib figure.

        Raises:
            UsageError: If the results do not hold what the figure needs.
            EnvironmentFailure: If matplotlib is not installed.
        """
        from hashzoo.report import plots
        from hashzoo.report.style import Style
        from hashzoo.results.by_dataset import read as read_results

        extra = self.zoo.metric_functions()
        lengths = () if bits is None else (bits,) if isinstance(bits, int) else tuple(bits)
        wanted = Filter(methods, lengths, (dataset,) if isinstance(dataset, str) else tuple(dataset))
        results = read_results(self.folder, None, extra, wanted=wanted)
        choice = plots.select(results, extra, highlight=highlight, few=bool(methods), plugins=self.zoo.extra)
        return plots.plot(kind, choice, style or Style())

    def _repr_html_(self) -> str:
        """The leaderboard, as notebooks show it."""
        return str(self.leaderboard._repr_html_())  # type: ignore[operator]


def method_name(factory: Callable[..., Any]) -> str:
    """The name of a method that is given as a class or factory.

    >>> class MyMethod: ...
    >>> method_name(MyMethod)
    'my-method'
    """
    name = getattr(factory, "__name__", "")
    if not name or name == "<lambda>":
        raise UsageError("a method without a name was given; give a table such as {'mine': factory}")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", name).strip("-").lower()


def _frame(pairs: Sequence[paired.Pair], metric: str) -> DataFrame:
    rows = [
        {
            **{name: pair.first.facts[name] for name in ("benchmark", "dataset", "bits")},
            **{"first": pair.first.facts["method"], "second": pair.second.facts["method"], "metric": metric},
            **{"first score": pair.before, "second score": pair.after, "difference": pair.after - pair.before},
            "low": pair.interval[0] if pair.interval else None,
            "high": pair.interval[1] if pair.interval else None,
            **{"p models": pair.of_models, "p training": pair.of_training},
            **{"seeds": pair.seeds, "queries": pair.queries, "reason": pair.reason},
        }
        for pair in pairs
    ]
    return DataFrame(rows)
