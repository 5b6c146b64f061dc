"""The page of ``hashzoo report``: its content, and the HTML made of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hashzoo._version import __version__
from hashzoo.errors import HashzooError, UsageError
from hashzoo.evaluation.metrics import ExtraMetrics
from hashzoo.registry.zoo import Zoo, load_plugins
from hashzoo.report import charts, texts
from hashzoo.report.charts import ChartText, Colours
from hashzoo.report.dataset_images import ImageOptions, build_images, list_missing
from hashzoo.report.series import COSTS, bit_means, pr_curves, scores_by_bits, scores_by_cost
from hashzoo.report.thumbnails import Album
from hashzoo.report.training import training_chart, training_of
from hashzoo.results.against import ALIKE, DIFFERENT, FEW_SEEDS, UNCLEAR, UNTESTED, Gap
from hashzoo.results.board import Filter
from hashzoo.results.by_dataset import BoardEntry, DatasetBoard, Results, highlighted_names, read, resolve_names
from hashzoo.results.gaps import gaps_to_best
from hashzoo.results.mean_ranks import notes, rank
from hashzoo.results.ranking import VALIDATION
from hashzoo.results.render import compact, duration
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.offline import offline

THUMBNAIL_BYTES = 1_500_000  # largest size of all thumbnails
EXPLAINED_COUNT = 3  # methods explained by default
_OTHER_METRICS = 3  # columns after the main metric
_MAX_NAMED = 6  # methods named in a card

#: A dataset's number and a code length.
Block = tuple[int, int]


@dataclass(frozen=True)
class PageOptions:
    """The options of a page.

    Attributes:
        metric: The metric to rank by; None for the main one of each dataset.
        highlight: The methods to highlight; empty for the default.
        gallery: The number of queries of a gallery.
        explained: The methods whose weights are loaded; None for the first three that are highlighted.
        root: The folder of the datasets' files, if they were moved.
        wanted: The rows to show.
        device: The device of the methods that are explained.
    """

    metric: str | None = None
    highlight: Sequence[str] = ()
    gallery: int = 8
    explained: Sequence[str] | None = None
    root: Path | None = None
    wanted: Filter = Filter()  # noqa: RUF009 - it is immutable
    device: str = "cpu"


@dataclass(frozen=True)
class LeaderboardRow:
    """A row of the leaderboard.

    Attributes:
        entry: The row of the board.
        place: Its place among the rows with a score, from 1.
        gap: Its difference from the best row.
        best: Whether it is the best row.
        kind: The kind of its method.
        supervision: The supervision of its method.
        meter: A bar of its score.
    """

    entry: BoardEntry
    place: int | None
    gap: Gap | None
    best: bool
    kind: str
    supervision: str
    meter: Markup


def write(
    results: Path | Sequence[Path],
    output: Path,
    options: PageOptions,
    plugins: Sequence[str] = (),
    log: Callable[[str], object] = str,
) -> int:
    """Write the page of results atomically.

    Args:
        results: A results folder, several of one benchmark, or a CSV file of means.
        output: The HTML file.
        options: The options of the page.
        plugins: Plugin files or modules to load.
        log: Called with a line before each method is explained, which takes a while, and with one about everything
            that is not included.

    Returns:
        The size of the page in bytes.

    Raises:
        UsageError: If the results do not have a metric or method that the options name.
        EnvironmentFailure: If there are no results, or the disk refuses the file.
    """
    data = render_page(results, options, plugins, log).encode("utf-8", "backslashreplace")
    replace_bytes(output, data)
    return len(data)


def render_page(
    path: Path | Sequence[Path], options: PageOptions, plugins: Sequence[str] = (), log: Callable[[str], object] = str
) -> str:
    """The HTML of results; arguments as for :func:`write`. It uses no network: what is not on this disk is left out."""
    with offline():
        return _page(path, options, plugins, log)


def _page(
    path: Path | Sequence[Path], options: PageOptions, plugins: Sequence[str], log: Callable[[str], object]
) -> str:
    zoo = load_plugins(plugins)
    extra = zoo.metric_functions()
    results = read(path, options.metric, extra, zoo.code_digests, options.wanted)
    names = highlighted_names(results, options.highlight, few=bool(options.wanted.methods))
    explained = names[:EXPLAINED_COUNT]
    if options.explained is not None:
        explained = resolve_names(results, set(options.explained) - {"none"})
    images = ImageOptions(names, explained, options.gallery, plugins, options.root, log, options.device)
    album = Album(THUMBNAIL_BYTES)
    parts = [build_images(results, board, images, album) for board in results.boards]
    if missing := list_missing(parts):
        log(f"not included: {missing}")
    return _render(
        _leaderboard(results, zoo)
        | _figures(results, names, extra)
        | _provenance(results, extra)
        | {
            "title": f"{', '.join(results.benchmarks)}: hashing methods compared",
            "version": __version__,
            "results": results,
            "names": names,
            "options": options,
            "start": results.boards[0].middle_bits if results.boards[0].bits else 0,
            "images": parts,
            "missing": missing,
            "album": album,
        }
    )


def _render(content: Mapping[str, Any]) -> str:
    return environment().get_template("report.html").render(content, **style_and_policy("page.js"))


def environment() -> Environment:
    """The environment of the templates of pages."""
    made = Environment(
        loader=PackageLoader("hashzoo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(compact=compact, duration=duration)
    return made


def style_and_policy(script: str = "") -> dict[str, Markup]:
    """Style and script of a page, and a content security policy that allows only these."""
    css, js = _static_text("page.css"), _static_text(script) if script else ""
    scripts = f"'sha256-{_base64_sha256(js)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src 'sha256-{_base64_sha256(css)}'; script-src {scripts}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {name: Markup(text) for name, text in (("policy", policy), ("css", css), ("js", js))}  # nosec B704 # ours


def _static_text(name: str) -> str:
    return "\n" + files("hashzoo.report").joinpath("static", name).read_text("utf-8")


def _base64_sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _leaderboard(results: Results, zoo: Zoo) -> dict[str, Any]:
    """The rows of the leaderboard, and what the tests say."""
    blocks = {(board.number, bits): board for board in results.boards for bits in board.bits}
    gaps = {(number, bits): gaps_to_best(board, bits) for (number, bits), board in blocks.items()}
    rows = {block: _rows(board, block[1], gaps[block], zoo) for block, board in blocks.items()}
    all_gaps = [gap for found in gaps.values() for gap in found.values()]
    return {
        "rows": rows,
        "summaries": {block: summarize_gaps(found) for block, found in rows.items()},
        "columns": {board.number: _other_metrics(board) for board in results.boards},
        "warnings": texts.list_warnings(results, all_gaps),
        "alike": ALIKE,
        "tested": texts.tested_variation(gap.test for gap in all_gaps),
    }


def _other_metrics(board: DatasetBoard) -> list[str]:
    """The columns shown after the main metric: its validation scores, and metrics, those better when higher first."""
    others = [name for name in board.metrics if name != board.metric and ":" not in name]
    others.sort(key=lambda name: name not in board.higher_better)
    return [*(name for name in board.validation if name == VALIDATION + board.metric), *others[:_OTHER_METRICS]]


def _rows(board: DatasetBoard, bits: int, gaps: Mapping[int, Gap], zoo: Zoo) -> list[LeaderboardRow]:
    best = board.best(bits)
    scores = [score for entry in board.entries if (score := entry.score(board.metric)) is not None]
    low, high = min([0.0, *scores]), max([1.0, *scores])
    rows = []
    for place, entry in enumerate(board.entries_at(bits), 1):
        score = entry.score(board.metric)
        deviation = entry.facts.get(f"{board.metric}_std")
        rows.append(
            LeaderboardRow(
                entry,
                None if score is None or board.metric not in board.higher_better else place,
                gaps.get(id(entry)),
                entry is best,
                *_kind_and_supervision(entry.facts["method"], zoo),
                Markup("") if score is None else charts.meter(score, deviation, low, high),
            )
        )
    return rows


def _kind_and_supervision(method: str, zoo: Zoo) -> tuple[str, str]:
    """From the method's card; empty if its plugin is not installed."""
    try:
        card = zoo.method(method).card
    except HashzooError:
        return "", ""
    return card.kind, card.supervision


def summarize_gaps(rows: Sequence[LeaderboardRow]) -> str:
    """Sentences about how the other methods of a block compare with its best row."""
    others = [x for x in rows if x.place and not x.best and x.entry.facts["role"] != "control"]
    verdicts = {id(x): x.gap.verdict if x.gap else UNTESTED for x in others}
    names = {verdict: [x.entry.name for x in others if verdicts[id(x)] == verdict] for verdict in verdicts.values()}
    alike, different, unclear = (names.get(verdict, []) for verdict in (ALIKE, DIFFERENT, UNCLEAR))
    if not others:
        return "No other method was measured."
    sentences = []
    if alike:
        sentences.append(f"{_count_methods(len(alike))} cannot be told from it (5 %): {_method_list(alike)}.")
    if different and len(different) == len(others):
        sentences.append("Every other method differs significantly from it (5 %).")
    elif different:
        verb = "differs" if len(different) == 1 else "differ"
        sentences.append(f"{_count_methods(len(different))} {verb} significantly from it (5 %).")
    if unclear:
        verb = "differs" if len(unclear) == 1 else "differ"
        sentences.append(
            f"{_count_methods(len(unclear))} {verb} from it only before the correction for several tests: "
            f"{_method_list(unclear)}."
        )
    return " ".join([*sentences, *_untested([x.gap for x in others if verdicts[id(x)] == UNTESTED], len(others))])


def _untested(gaps: Sequence[Gap | None], total: int) -> list[str]:
    """A sentence about the methods that were not tested, if there are any."""
    few = sum(gap is not None and gap.reason == FEW_SEEDS for gap in gaps)
    if not gaps:
        return []
    reason = f", since {'all' if few == len(gaps) else few} have {FEW_SEEDS} with it" if few else ""
    if len(gaps) == total:
        return [f"No test was possible{reason}."]
    return [f"{_count_methods(len(gaps))} could not be tested{reason}."]


def _method_list(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _count_methods(count: int) -> str:
    return f"{count} other method{'s' * (count != 1)}"


def _figures(results: Results, names: Sequence[str], extra: ExtraMetrics) -> dict[str, Any]:
    colours = {results.names.index(name): place for place, name in enumerate(names)}
    return {
        "colours": colours,
        "charts": _charts(results, colours),
        "ranking": _ranking(results, colours, extra),
    }


def _charts(results: Results, colours: Colours) -> dict[str, Any]:
    """The charts by kind: over code lengths for each dataset, the others for each dataset and code length."""
    found: dict[str, Any] = {"bits": {}, "cost": {}, "pr": {}, "distances": {}, "balance": {}, "training": {}}
    for board in results.boards:
        if len(board.bits) > 1 and board.metric:
            text = ChartText(f"Score by code length on {board.dataset}, {board.metric}", "bits", board.metric)
            found["bits"][board.number] = charts.line_chart(scores_by_bits(board), colours, text, x_ticks=board.bits)
        for bits in board.bits:
            block = (board.number, bits)
            found["cost"][block] = _cost_charts(board, bits, colours)
            if curves := pr_curves(results, board, bits):
                label = f"Precision over recall by Hamming radius on {board.dataset} at {bits} bits"
                text = ChartText(label, "recall", "precision")
                found["pr"][block] = charts.line_chart(curves, colours, text, unit_square=True, dots=False)
            for kind, drawn in _code_charts(results, board, bits, colours).items():
                found[kind][block] = drawn
    return found


def _cost_charts(board: DatasetBoard, bits: int, colours: Colours) -> list[Markup]:
    drawn = []
    for column, (name, _) in COSTS.items():
        if series := scores_by_cost(board, bits, column):
            label = f"{board.metric} over {name} on {board.dataset} at {bits} bits"
            drawn.append(charts.scatter_chart(series, colours, ChartText(label, name, board.metric)))
    return drawn


def _code_charts(
    results: Results, board: DatasetBoard, bits: int, colours: Colours
) -> dict[str, list[tuple[BoardEntry, Markup]]]:
    """Histograms of distances, balance of bits and training of the highlighted methods."""
    drawn: dict[str, list[tuple[BoardEntry, Markup]]] = {}
    rows = {e.number: e for e in board.entries_at(bits)}
    for number, place in colours.items():
        entry = rows.get(number)
        if entry is None:
            continue
        if histograms := results.mean_arrays(entry, "distances_relevant", "distances_other"):
            label = f"Distances of {entry.name} at {bits} bits on {board.dataset}"
            chart = charts.distance_chart(histograms[0], histograms[1], place, label)
            drawn.setdefault("distances", []).append((entry, chart))
        if (means := bit_means(results, entry)) is not None:
            label = f"Share of ones of each bit of {entry.name} at {bits} bits on {board.dataset}"
            drawn.setdefault("balance", []).append((entry, charts.balance_chart(means, place, label)))
        if training := training_of(entry):
            label = f"Loss of {entry.name} by epoch at {bits} bits on {board.dataset}"
            drawn.setdefault("training", []).append((entry, training_chart(training, place, label)))
    return drawn


def _ranking(results: Results, colours: Colours, extra: ExtraMetrics) -> dict[str, Any]:
    """Mean ranks over datasets and code lengths, or the reason why there are none."""
    ranked = [board for board in results.boards if board.metric]
    metrics = {board.metric for board in ranked}
    reason = "" if ranked else "no row has a score"
    if len(metrics) > 1:
        reason = "the datasets are ranked by different metrics"
    elif ranked and ranked[0].metric not in ranked[0].higher_better:
        reason = f"{ranked[0].metric} is not better when higher"
    if reason:
        return {"reason": reason, "chart": None, "notes": []}
    try:
        ranking = rank([results.frame], min(metrics), None, extra)
    except UsageError:
        reason = "they need three methods, without controls, in two blocks of dataset, backbone and bits"
        return {"reason": reason, "chart": None, "notes": []}
    numbers = {e.name: e.number for board in results.boards for e in board.entries if e.name == e.facts["method"]}
    label = f"Mean ranks by {ranking.metric}, best first"
    chart = charts.rank_chart(ranking, numbers, colours, label)
    return {"reason": "", "chart": chart, "notes": notes(ranking), "bars": bool(ranking.groups), "test": ranking.test}


def _provenance(results: Results, extra: ExtraMetrics) -> dict[str, Any]:
    return {
        "protocols": {board.number: texts.protocol_terms(board) for board in results.boards},
        "metrics": {
            name: texts.describe_metric(name, extra)
            for board in results.boards
            for name in (*board.metrics, *board.validation)
        },
        "sources": {board.number: texts.source(board) for board in results.boards},
        "origins": texts.row_origins(results),
        "machines": texts.machines(results.cells),
        "commands": texts.commands(results.cells),
        "revisions": texts.revisions(results.cells),
        "dates": texts.date_range(results.cells),
        "failures": texts.failures(results),
        "marked": [e for board in results.boards for e in board.entries if e.facts.get("marks")],
    }
