"""The page: what is on it, made ready for the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hashzoo._version import __version__
from hashzoo.errors import HashzooError, UsageError
from hashzoo.evaluation.metrics import GROUPS, ExtraMetrics
from hashzoo.registry import zoo
from hashzoo.registry.open_dataset import reload_data
from hashzoo.report import charts, seen, words
from hashzoo.report.gallery import Gallery, gallery
from hashzoo.report.results import DatasetBoard, Entry, Results, looked_at, named, read
from hashzoo.report.series import COSTS, against_bits, against_cost, bit_means, pr_curves
from hashzoo.report.standing import Standing, standings
from hashzoo.report.thumbnails import Album
from hashzoo.results.mean_ranks import notes, rank
from hashzoo.results.render import compact, duration
from hashzoo.storage.files import replace_bytes
from hashzoo.types import Splits

ROOM = 1_500_000  # bytes of thumbnails
EXPLAINED = 3  # methods whose weights are looked into
_OTHERS = 3  # scores beside the main one
_ALIKE = 6  # names of those that are as good as the best


@dataclass(frozen=True)
class Asked:
    """What a person may say of a page; ``explained`` is None where nothing was said of it."""

    metric: str | None = None
    methods: Sequence[str] = ()
    gallery: int = 8
    explained: Sequence[str] | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Line:
    """A row of the leaderboard as it is shown; ``place`` is among all that have a score, from 1."""

    entry: Entry
    place: int | None
    standing: Standing | None
    best: bool
    kind: str
    supervision: str
    meter: Markup


@dataclass
class Images:
    """What of a dataset can only be shown with its images, and why it is not."""

    board: DatasetBoard
    data: Splits | None = None
    reason: str = ""
    galleries: list[Gallery] = field(default_factory=list)
    looks: list[seen.Look] = field(default_factory=list)
    taken: list[seen.Taken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: Markup | None = None


def write(
    results: Path, output: Path, asked: Asked, plugins: Sequence[str] = (), say: Callable[[str], object] = str
) -> int:
    """Write the page of the results, in one step; its size in bytes. UsageError and EnvironmentFailure as :func:`read`.

    ``say`` is given a line for each method whose weights are looked into, since each takes a while.
    """
    data = page(results, asked, plugins, say).encode("utf-8", "backslashreplace")
    replace_bytes(output, data)
    return len(data)


def page(path: Path, asked: Asked, plugins: Sequence[str] = (), say: Callable[[str], object] = str) -> str:
    """The HTML of a results folder; ``say`` as for :func:`write`."""
    house = zoo.load_plugins(plugins)
    extra = house.metric_functions()
    results = read(path, asked.metric, extra, house.code_digests)
    names = looked_at(results, asked.methods)
    colours = {results.names.index(name): place for place, name in enumerate(names)}
    explained = names[:EXPLAINED] if asked.explained is None else named(results, set(asked.explained) - {"none"})
    stands = {(board.number, bits): standings(board, bits) for board in results.boards for bits in board.bits}
    told = [one for found in stands.values() for one in found.values()]
    tests = [one.test for one in told if one.test]
    album = Album(ROOM)
    lines = {
        (board.number, bits): _lines(board, bits, stands[board.number, bits], house)
        for board in results.boards
        for bits in board.bits
    }
    context = {
        "title": f"{', '.join(results.benchmarks)}: hashing methods compared",
        "version": __version__,
        "results": results,
        "names": names,
        "colours": colours,
        "lines": lines,
        "briefs": {at: brief(rows) for at, rows in lines.items()},
        "columns": {board.number: _columns(board) for board in results.boards},
        "start": results.boards[0].bits[len(results.boards[0].bits) // 2] if results.boards[0].bits else 0,
        "charts": _charts(results, colours),
        "ranking": _ranking(results, colours, extra),
        "images": [_images(results, board, names, explained, asked, plugins, album, say) for board in results.boards],
        "album": album,
        "asked": asked,
        "protocols": {board.number: words.protocol(board) for board in results.boards},
        "metrics": {name: words.metric(name, extra) for board in results.boards for name in board.scores},
        "warnings": words.warnings(results, told),
        "tested": words.tested(tests),
        "machines": words.machines(results.cells),
        "commands": words.commands(results.cells),
        "revisions": words.revisions(results.cells),
        "dates": words.dates(results.cells),
        "failed": words.failures(results),
        "marked": [e for board in results.boards for e in board.entries if e.facts.get("marks")],
    }
    return _rendered(context)


def _rendered(context: Mapping[str, Any]) -> str:
    """The page with its style and script inside, which are all that its policy lets a browser run."""
    environment = Environment(
        loader=PackageLoader("hashzoo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(compact=compact, duration=duration)
    inside = {name: _static(name) for name in ("page.css", "page.js")}
    allowed = {name: f"'sha256-{_sha(text)}'" for name, text in inside.items()}
    policy = (
        f"default-src 'none'; style-src {allowed['page.css']}; script-src {allowed['page.js']}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html").render(
        context,
        policy=Markup(policy),  # nosec B704 # ours
        css=Markup(inside["page.css"]),  # nosec B704 # ours
        js=Markup(inside["page.js"]),  # nosec B704 # ours
    )


def _static(name: str) -> str:
    return "\n" + files("hashzoo.report").joinpath("static", name).read_text("utf-8")


def _sha(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _columns(board: DatasetBoard) -> list[str]:
    """The scores beside the main one, those that are better when higher first."""
    others = [name for name in board.scores if name != board.metric and ":" not in name]
    return sorted(others, key=lambda name: name not in board.praised)[:_OTHERS]


def _lines(board: DatasetBoard, bits: int, found: Mapping[int, Standing], house: zoo.Zoo) -> list[Line]:
    best = board.best(bits)
    scores = [score for entry in board.entries if (score := entry.score(board.metric)) is not None]
    low, high = min([0.0, *scores]), max([1.0, *scores])
    lines = []
    for place, entry in enumerate(board.at(bits), 1):
        score = entry.score(board.metric)
        kind, supervision = _card(entry.facts["method"], house)
        lines.append(
            Line(
                entry,
                None if score is None or board.metric not in board.praised else place,
                found.get(id(entry)),
                entry is best,
                kind,
                supervision,
                Markup("") if score is None else charts.meter(score, entry.facts.get(f"{board.metric}_std"), low, high),
            )
        )
    return lines


def brief(lines: Sequence[Line]) -> str:
    """What the tests say of the others of a block, after its best was named."""
    others = [x for x in lines if x.place and not x.best and x.entry.facts["role"] != "control"]
    tested = [x.standing for x in others if x.standing and x.standing.p is not None]
    alike = [x.entry.name for x in others if x.standing and x.standing.alike]
    rest = len(others) - len(tested)
    untested = f" {rest} more could not be tested." if tested and rest else ""
    if not others:
        return "No other method was measured."
    if not tested:
        return "No test was possible, so nothing is said of who is as good."
    if not alike:
        told = "Every other method" if not rest else f"{len(tested)} {'other' if len(tested) == 1 else 'others'}"
        return f"{told} can be told from it at 5 %.{untested}"
    first = ", ".join(alike[:_ALIKE]) + (f" and {len(alike) - _ALIKE} more" if len(alike) > _ALIKE else "")
    return f"{len(alike)} {'other' if len(alike) == 1 else 'others'} cannot be told from it at 5 %: {first}.{untested}"


def _card(method: str, house: zoo.Zoo) -> tuple[str, str]:
    """Of what kind a method is and what it learns from; empty for one whose plugin is not here."""
    try:
        card = house.method(method).card
    except HashzooError:
        return "", ""
    return card.kind, card.supervision


def _charts(results: Results, colours: charts.Colours) -> dict[str, Any]:
    """The charts by kind: against bits a dataset, the others a dataset and bits."""
    found: dict[str, Any] = {"bits": {}, "cost": {}, "pr": {}, "distances": {}, "balance": {}}
    for board in results.boards:
        where = f"{board.dataset}, {board.metric}"
        if len(board.bits) > 1 and board.metric:
            series = against_bits(board)
            found["bits"][board.number] = charts.lines(
                series,
                colours,
                f"Score by code length on {where}",
                x_name="bits asked for",
                y_name=board.metric,
                x_ticks=board.bits,
            )
        for bits in board.bits:
            at = (board.number, bits)
            found["cost"][at] = _costs(board, bits, colours)
            if curves := pr_curves(results, board, bits):
                found["pr"][at] = charts.lines(
                    curves,
                    colours,
                    f"Precision over recall by Hamming radius on {board.dataset} at {bits} bits",
                    x_name="recall",
                    y_name="precision",
                    whole=True,
                    dots=False,
                )
            for kind, drawn in _close(results, board, bits, colours).items():
                found[kind][at] = drawn
    return found


def _costs(board: DatasetBoard, bits: int, colours: charts.Colours) -> list[Markup]:
    made = []
    for column, (name, _) in COSTS.items():
        if series := against_cost(board, bits, column):
            said = f"{board.metric} on {board.dataset} at {bits} bits against {name}"
            made.append(charts.scatter(series, colours, said, x_name=name, y_name=board.metric))
    return made


def _close(
    results: Results, board: DatasetBoard, bits: int, colours: charts.Colours
) -> dict[str, list[tuple[Entry, Markup]]]:
    """Histograms of distances and balance of bits of the methods that are looked at closely."""
    found: dict[str, list[tuple[Entry, Markup]]] = {}
    rows = {e.number: e for e in board.at(bits)}
    for number, place in colours.items():
        entry = rows.get(number)
        if entry is None:
            continue
        if sides := results.mean(entry, "distances_relevant", "distances_other"):
            said = f"Distances of {entry.name} at {bits} bits on {board.dataset}"
            found.setdefault("distances", []).append((entry, charts.distances(sides[0], sides[1], place, said)))
        if (means := bit_means(results, entry)) is not None:
            said = f"Share of ones of each bit of {entry.name} at {bits} bits on {board.dataset}"
            found.setdefault("balance", []).append((entry, charts.balance(means, place, said)))
    return found


def _ranking(results: Results, colours: charts.Colours, extra: ExtraMetrics) -> dict[str, Any]:
    """Mean ranks over datasets and bits, or why there are none."""
    ranked = [board for board in results.boards if board.metric]
    metrics = {board.metric for board in ranked}
    reason = "" if ranked else "no row has a score"
    if len(metrics) > 1:
        reason = "the datasets are ranked by different scores"
    elif ranked and ranked[0].metric not in ranked[0].praised:
        reason = f"{ranked[0].metric} is not better when higher"
    if reason:
        return {"reason": reason, "chart": None, "notes": []}
    try:
        ranking = rank([results.frame], min(metrics), None, extra)
    except UsageError:
        reason = "they need three methods, controls apart, in two blocks of the same dataset, backbone and bits"
        return {"reason": reason, "chart": None, "notes": []}
    numbers = {e.name: e.number for board in results.boards for e in board.entries if e.name == e.facts["method"]}
    said = f"Mean ranks by {ranking.metric}, best first"
    return {"reason": "", "chart": charts.ranks(ranking, numbers, colours, said), "notes": notes(ranking)}


def _images(
    results: Results,
    board: DatasetBoard,
    names: Sequence[str],
    explained: Sequence[str],
    asked: Asked,
    plugins: Sequence[str],
    album: Album,
    say: Callable[[str], object],
) -> Images:
    """What can be shown of one dataset: nothing where it cannot be loaded, for the reason that is kept."""
    made = Images(board)
    cell = next((cell for entry in board.entries for cell in entry.ok), None)
    if cell is None:
        made.reason = "there are no cells that went well, or only a CSV of them"
        return made
    try:
        made.data = reload_data(cell, plugins, asked.root)
    except HashzooError as error:
        made.reason = str(error)
        return made
    counts = made.data.setting(1).class_counts.numpy()
    thirds = GROUPS if any("/tail" in name for name in board.scores) and not made.data.multilabel else ()
    made.classes = charts.bars(counts, made.data.class_names, thirds, f"Training images of each class, {board.dataset}")
    middle = len(board.bits) // 2
    for bits in [*board.bits[middle:], *reversed(board.bits[:middle])] if asked.gallery else ():
        found = gallery(results, board, bits, names, made.data, cell.identity.data, asked.gallery, album)
        if found.asked:
            made.galleries.append(found)
    if made.data.pairs is None:
        _look_into(made, made.data, cell.identity.data, results, explained, plugins, say)
    return made


def _look_into(
    made: Images,
    data: Splits,
    digest: str,
    results: Results,
    names: Sequence[str],
    plugins: Sequence[str],
    say: Callable[[str], object],
) -> None:
    """Add what weights can show, at the longest codes that kept any."""
    for bits in reversed(made.board.bits):
        kept = seen.with_weights(results, made.board, bits, names, digest)
        for entry, file in kept:
            say(f"looking into {entry.name}: {made.board.dataset}, {bits} bits")
            opened = seen.opened(file, plugins)
            if isinstance(opened, str):
                made.notes.append(opened)
                continue
            try:
                made.taken.append(seen.taken(entry, opened, data))
                made.looks.append(seen.look(entry, opened, data))
            except HashzooError as error:
                made.notes.append(str(error))
        if kept:
            return
