"""The sentences of the page: metrics, protocol, warnings and provenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hashzoo.evaluation.metrics import ExtraMetrics, Metric, by_neighbours, parse
from hashzoo.factory import without_markup
from hashzoo.results.against import FEW_SEEDS, TESTS, Gap
from hashzoo.results.by_dataset import BoardEntry, DatasetBoard, Results
from hashzoo.results.cell import Cell
from hashzoo.results.paired import UNLIKE
from hashzoo.results.provenance import origins
from hashzoo.results.ranking import FOLDER, VALIDATION, folder_of, queries_warning
from hashzoo.results.warnings import MEANINGS

_FAMILIES = {
    "map": "mean average precision",
    "p": "precision",
    "r": "recall",
    "empty": "share of queries without a result",
    "ndcg": "normalized discounted cumulative gain, graded by the number of shared labels,",
    "acg": "mean number of shared labels",
    "wap": "average precision weighted by the number of shared labels",
}
_PARTS = {
    "head": "for queries of the third of classes with the most training images",
    "medium": "for queries of the middle third of classes by training images",
    "tail": "for queries of the third of classes with the fewest training images",
    "first": "with the first of the two images alone as the query",
    "second": "with the second of the two images alone as the query",
    "bitwise": "with the bitwise or, and, or and-not of the two codes as the query",
    "strict": "with grade 0 for an item that holds a label which the difference removes",
    "jaccard": "with the Jaccard index of the labels of query and item as gain",
    "selected": "of the epoch that was best on validation images",
}
_VARIANTS = {
    "hits": ", divided by the number of relevant items among them (only for comparison with published tables)",
    "best": ", with ties in the best order",
    "worst": ", with ties in the worst order",
}
_RADIUS_NOTES = {"p": "; a query without results counts as 0", "empty": "; lower is better"}
_MAX_LISTED = 12


def describe_metric(name: str, extra: ExtraMetrics | None = None) -> str:
    """The definition of a metric.

    >>> describe_metric("map@100:hits/tail")
    'mean average precision of the first 100 results, divided by the number of relevant items among them (only for \
comparison with published tables), for queries of the third of classes with the fewest training images'
    >>> describe_metric("p@1")
    'precision of the first result'
    >>> describe_metric("p@h2"), describe_metric("map@all")
    ('precision within Hamming distance 2; a query without results counts as 0', 'mean average precision of the whole \
ranking')
    >>> describe_metric("empty@h2")
    'share of queries without a result within Hamming distance 2; lower is better'
    >>> describe_metric("map@all/first/strict").partition(", ")[2]
    'with the first of the two images alone as the query, with grade 0 for an item that holds a label which the \
difference removes'
    >>> describe_metric("validation map@all")
    'mean average precision of the whole ranking, of the validation images as queries'
    """
    if name.startswith(VALIDATION):
        return describe_metric(name.removeprefix(VALIDATION), extra) + ", of the validation images as queries"
    if by_neighbours(name):
        return _describe_neighbours(parse(name.removesuffix("/selected")))
    base, *parts = name.split("/")
    family, _, cutoff = base.partition("@")
    cutoff, _, variant = cutoff.partition(":")
    if family in _FAMILIES:
        text = _FAMILIES[family]
    else:
        metric = (extra or {}).get(family)
        doc = getattr(metric, "doc", "") or getattr(metric, "__doc__", "") or name
        text = without_markup(doc.strip().split("\n")[0]).rstrip(".")
    if re.fullmatch(r"h\d+", cutoff):
        text += f" within Hamming distance {cutoff[1:]}" + _RADIUS_NOTES.get(family, "")
    elif cutoff:
        names = {"all": "whole ranking", "1": "first result"}
        text += f" of the {names.get(cutoff, f'first {cutoff} results')}"
    text += _VARIANTS.get(variant, "")
    return text + "".join(f", {_PARTS.get(part, part)}" for part in parts)


def _describe_neighbours(metric: Metric) -> str:
    """The definition of a metric of exact neighbors.

    >>> _describe_neighbours(parse("recall@10:f2/asym"))
    'share of the 10 exact neighbors among the first 20 results, with real queries against bits'
    """
    suffix = ", with real queries against bits" if metric.part else ""
    if metric.target is not None:
        return (
            f"multiple of {metric.cut} results at which the mean share of the {metric.cut} exact neighbors among them "
            f"is {metric.target:g}; lower is better{suffix}"
        )
    return f"share of the {metric.cut} exact neighbors among the first {metric.places} results{suffix}"


def protocol_terms(board: DatasetBoard) -> list[tuple[str, str]]:
    """Terms of the protocol and their values; all values if rows differ."""
    rows = [entry.facts for entry in board.entries]
    cells = [cell for entry in board.entries for cell in entry.row.cells]
    terms = [
        ("Images", _distinct(row["source"] for row in rows)),
        ("Folder", _distinct(f"{folder} ({FOLDER})" for row in rows if (folder := folder_of(row)))),
        ("Training set", _numbers(rows, "train", "images")),
        ("Database", _numbers(rows, "database_size", "images")),
        ("Queries", _numbers(rows, "queries", "queries")),
        ("Training images in the database", _numbers(rows, "train_in_database", "images")),
        (
            "Queries without relevant images",
            _numbers(rows, "queries_without_relevant", "queries, excluded from all means"),
        ),
        ("Unlabeled queries", _numbers(rows, "unlabelled_queries", "")),
        ("Split", _distinct(row["split"] for row in rows)),
        ("Backbone", _distinct(row["backbone"] for row in rows)),
        ("Settings of all rows", board.shared_settings),
        ("Budget", _distinct(describe_budget(cell.identity.budget) for cell in cells)),
        ("Seeds", _distinct(str(cell.identity.seed) for cell in cells)),
    ]
    omitted = ("", "none", "0 queries, excluded from all means", "0")
    return [(term, value) for term, value in terms if value not in omitted]


def describe_budget(values: Mapping[str, Any]) -> str:
    """The budget of each method.

    >>> budget = {"backbone": "stored", "epochs": 3, "batch": 32, "optimizer": "adam", "lr": 0.003}
    >>> describe_budget(budget | {"schedule": "cosine"})
    '3 epochs in batches of 32, adam at 0.003 (cosine); backbone stored'
    """
    if not {"epochs", "batch", "optimizer", "lr"} <= values.keys():
        return ""
    text = f"{values['epochs']} epochs in batches of {values['batch']}, {values['optimizer']} at {values['lr']}"
    text += f" ({values['schedule']})" if values.get("schedule") else ""
    text += f"; backbone {values['backbone']}" if values.get("backbone") else ""
    augment = values.get("augment", "none")
    return text + (f"; augmentation {augment}" if augment != "none" else "")


def _distinct(values: Iterable[Any]) -> str:
    known = list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
    rest = len(known) - _MAX_LISTED
    return "; ".join(known[:_MAX_LISTED]) + (f"; and {rest} others" if rest > 0 else "")


def _numbers(rows: Sequence[Mapping[str, Any]], column: str, unit: str) -> str:
    known = sorted({row[column] for row in rows if row.get(column) is not None})
    text = " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in known)
    return f"{text} {unit}" if known and unit else text


def list_warnings(results: Results, gaps: Sequence[Gap]) -> list[str]:
    """What limits the meaning of the numbers on the page, most important first."""
    entries = [entry for board in results.boards for entry in board.entries]
    warnings = [*results.faults, *_row_warnings(entries)]
    warnings += [queries_warning(b.title, bits) + "." for b in results.boards if (bits := b.bits_chosen_by_queries)]
    if results.superseded:
        cells = "1 cell is" if results.superseded == 1 else f"{results.superseded} cells are"
        warnings.append(f"{cells} left out because newer code, data or definitions replace them.")
    if len(machines(results.cells)) > 1:
        warnings.append(
            "The cells were measured on different machines or with different versions, so their times are not "
            "comparable. “Provenance” lists the machines."
        )
    warnings += _test_warnings(entries, gaps)
    if titles := [board.title for board in results.boards if has_strong_control(board)]:
        warnings.append(
            f"On {', '.join(titles)}, a control that stores fewer bits than the code length scores higher than at "
            "least half of the methods."
        )
    return warnings


def _row_warnings(entries: Sequence[BoardEntry]) -> list[str]:
    warnings = []
    if incomplete := [e for e in entries if e.facts["status"] not in ("ok", "skipped")]:
        warnings.append(
            f"{len(incomplete)} of {len(entries)} rows are incomplete: their scores are means over the seeds that are "
            "ok, or missing. “Skipped and failed rows” lists the reasons."
        )
    for what, named in sorted(_rows_by_warning(entries).items()):
        rest = f" and {len(named) - _MAX_LISTED} others" if len(named) > _MAX_LISTED else ""
        meaning = f" ({MEANINGS[what]})" if what in MEANINGS else ""
        names = ", ".join(named[:_MAX_LISTED])
        warnings.append(f"Rows that are ok, with the warning “{what}”{meaning}: {names}{rest}.")
    if backbones := sorted({entry.facts["backbone"] for entry in entries if entry.facts["contaminated"]}):
        warnings.append(
            f"Contaminated: {', '.join(backbones)} was trained with labels of images or classes of this dataset, so "
            "its scores say little about images that it has not seen."
        )
    if stale := sorted({entry.name for entry in entries if entry.facts["stale"]}):
        rest = f" and {len(stale) - _MAX_LISTED} others" if len(stale) > _MAX_LISTED else ""
        warnings.append(
            f"Stale: {', '.join(stale[:_MAX_LISTED])}{rest}. These rows were measured with code other than the "
            "installed code; run hashzoo bench again to update them."
        )
    return warnings


def _rows_by_warning(entries: Sequence[BoardEntry]) -> dict[str, list[str]]:
    """The names of the rows that have a warning, by the warning without its number of seeds."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for warning in (entry.facts.get("warnings") or "").split("; "):
            if what := warning.partition(" (")[0]:
                found.setdefault(what, {})[entry.name] = None
    return {what: list(names) for what, names in found.items()}


def _test_warnings(entries: Sequence[BoardEntry], gaps: Sequence[Gap]) -> list[str]:
    warnings, tests = [], {gap.test for gap in gaps}
    if any(gap.reason == UNLIKE for gap in gaps):
        warnings.append(
            "Some rows were measured on other data or splits, or by another protocol, than the best row of their code "
            "length. Their scores are not comparable with it and are not tested."
        )
    if any(not entry.row.cells for entry in entries):
        warnings.append(
            "These results come from a CSV file of means, without intervals, tests, curves and images; name the "
            "results folder instead."
        )
    elif "seeds" in tests:
        warnings.append(
            "Some cells lack scores of single queries for the same seeds (cells/*.npz). Their tests account for the "
            "variation over seeds but not over queries, and they have no curves by radius."
        )
    if "models" in tests:
        warnings.append(
            f"Some rows have {FEW_SEEDS} with the best row. Whether the methods differ is not tested; the intervals of "
            "their differences are of the trained models, on other queries."
        )
    return warnings


def has_strong_control(board: DatasetBoard) -> bool:
    """Whether, at some code length, a control with fewer stored bits scores above at least half of the methods."""
    for bits in board.bits:
        entries = [e for e in board.entries_at(bits) if e.score(board.metric) is not None and e.facts["status"] == "ok"]
        controls = [
            e.score(board.metric)
            for e in entries
            if e.facts["role"] == "control" and e.facts.get("stored_bits") and e.facts["stored_bits"] < bits
        ]
        if controls and board.metric in board.higher_better:
            methods = [e for e in entries if e.competes]
            below = [e for e in methods if (e.score(board.metric) or 0) < max(score or 0 for score in controls)]
            if methods and 2 * len(below) >= len(methods):
                return True
    return False


def failures(results: Results) -> list[dict[str, Any]]:
    """The rows that are not ok: name, dataset, bits, status, reason. Code lengths with the same reason are merged."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for board in results.boards:
        for entry in board.entries:
            if (status := entry.facts["status"]) == "ok":
                continue
            key = (entry.name, board.benchmark, board.dataset, status, entry.facts["reason"])
            row = {"name": entry.name, "dataset": board.dataset, "bits": [], "status": status, "reason": key[-1]}
            merged.setdefault(key, row)["bits"].append(entry.facts["bits"])
    return sorted(merged.values(), key=lambda row: row["status"] == "skipped")


def source(board: DatasetBoard) -> str:
    """What the images of a dataset are, such as "CIFAR-10 (JPEG)"; all of them if rows differ."""
    return _distinct(entry.facts["source"] for entry in board.entries)


def row_origins(results: Results) -> list[dict[str, Any]]:
    """The rows by the git revisions and commands that measured them: revisions, commands and names of rows."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for board in results.boards:
        for entry in board.entries:
            found = origins(cell.provenance for cell in entry.row.cells)
            if not any(found.values()):
                continue
            revisions = [one.replace(one[:40], one[:12]) for one in found["revisions"]]
            revisions += [f"plugin {one.replace(one[:40], one[:12])}" for one in found["plugin revisions"]]
            key = (*revisions, "", *found["commands"])
            row = merged.setdefault(key, {"revisions": revisions, "commands": found["commands"], "rows": {}})
            row["rows"].setdefault(f"{entry.name} on {board.title}", []).append(entry.facts["bits"])
    for row in merged.values():
        row["rows"] = [f"{name} at {', '.join(map(str, sorted(bits)))}" for name, bits in row["rows"].items()]
    return list(merged.values())


def machines(cells: Iterable[Cell]) -> dict[str, int]:
    """Descriptions of the machines, with the number of cells that each measured."""
    counts: dict[str, int] = {}
    for cell in cells:
        facts = cell.provenance
        if not facts:
            continue
        versions = facts.get("versions")
        details = [
            str(facts.get("device", "")),
            str(facts.get("cpu_capability", "")),
            f"{facts['cpus']} cores" if facts.get("cpus") else "",
            str(facts.get("platform", "")),
            f"Python {facts['python']}" if facts.get("python") else "",
            ", ".join(f"{n} {v}" for n, v in versions.items()) if isinstance(versions, Mapping) else "",
        ]
        machine = "; ".join(filter(None, details))
        counts[machine] = counts.get(machine, 0) + 1
    return counts


def commands(cells: Iterable[Cell]) -> list[str]:
    """The distinct commands that measured the cells."""
    return list(dict.fromkeys(str(c.provenance["command"]) for c in cells if c.provenance.get("command")))


def revisions(cells: Iterable[Cell]) -> list[str]:
    """The distributions that measured the cells with their versions, and git revisions if known."""
    known: dict[str, None] = {}
    for cell in cells:
        known[f"{cell.plugin} {cell.plugin_version}".strip()] = None
        for key in ("checkout", "plugin_checkout"):
            checkout = cell.provenance.get(key)
            if isinstance(checkout, Mapping) and checkout.get("revision"):
                changed = ", with changes" if checkout.get("dirty") else ""
                prefix = "plugin " if key != "checkout" else ""
                known[f"{prefix}revision {str(checkout['revision'])[:12]}{changed}"] = None
    return [one for one in known if one]


def date_range(cells: Sequence[Cell]) -> str:
    """The first and last day on which cells were written."""
    days = sorted(cell.created[:10] for cell in cells)
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def tested_variation(tests: Iterable[str]) -> list[str]:
    """The variation that statements about methods account for, by the tests that were used."""
    used = set(tests) - {"models"}
    return [TESTS[name] for name in TESTS if name in used]
