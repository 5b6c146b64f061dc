"""What a reader must know before believing a number, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hashzoo.evaluation.metrics import ExtraMetrics
from hashzoo.report.results import DatasetBoard, Results
from hashzoo.report.standing import TESTS, Standing
from hashzoo.results.cell import Cell
from hashzoo.results.paired import UNLIKE

_FAMILIES = {
    "map": "mean average precision",
    "p": "precision",
    "r": "recall",
    "empty": "the share of queries that find nothing",
    "ndcg": "normalised discounted cumulative gain, graded by the number of shared labels,",
    "acg": "the mean number of shared labels",
    "wap": "average precision weighted by the number of shared labels",
}
_PARTS = {
    "head": "queries of the third of the classes with most training images",
    "medium": "queries of the middle third of the classes by training images",
    "tail": "queries of the third of the classes with fewest training images",
    "first": "asked with the first of the two images alone",
    "second": "asked with the second of the two images alone",
    "bitwise": "asked with or, and, and-not of the two codes",
    "selected": "of the epoch that was best on validation images",
}
_RADIUS = {"p": "; an empty ball counts as 0", "empty": "; less is better"}
_MOST = 12  # commands or machines that are listed


def metric(name: str, extra: ExtraMetrics | None = None) -> str:
    """What a score is.

    >>> metric("map@100:hits/tail")
    'mean average precision of the first 100 places, divided by the relevant items among them (for comparing with \
published tables only), queries of the third of the classes with fewest training images'
    >>> metric("p@1")
    'precision of the first place'
    >>> metric("p@h2"), metric("map@all")
    ('precision within Hamming distance 2; an empty ball counts as 0', 'mean average precision of the whole ranking')
    >>> metric("empty@h2")
    'the share of queries that find nothing within Hamming distance 2; less is better'
    """
    base, _, part = name.partition("/")
    family, _, place = base.partition("@")
    place, _, variant = place.partition(":")
    known = (extra or {}).get(family)
    if family in _FAMILIES:
        said = _FAMILIES[family]
    else:
        said = (getattr(known, "doc", "") or getattr(known, "__doc__", "") or name).strip().split("\n")[0].rstrip(".")
    if re.fullmatch(r"h\d+", place):
        said += f" within Hamming distance {place[1:]}" + _RADIUS.get(family, "")
    elif place:
        among = {"all": "whole ranking", "1": "first place"}
        said += f" of the {among.get(place, f'first {place} places')}"
    said += {
        "hits": ", divided by the relevant items among them (for comparing with published tables only)",
        "best": ", in the best order of ties",
        "worst": ", in the worst order of ties",
    }.get(variant, "")
    return said + (f", {_PARTS.get(part, part)}" if part else "")


def protocol(board: DatasetBoard) -> list[tuple[str, str]]:
    """Terms and what they are on this board; where rows differ, all that they say."""
    rows = [entry.facts for entry in board.entries]
    cells = [cell for entry in board.entries for cell in entry.row.cells]
    found = [
        ("Images", _said(row["source"] for row in rows)),
        ("Learned from", _count(rows, "train", "images")),
        ("Searched", _count(rows, "database_size", "images")),
        ("Asked with", _count(rows, "queries", "queries")),
        ("Learned and searched", _count(rows, "train_in_database", "images are in both")),
        (
            "Queries without an answer",
            _count(rows, "queries_without_relevant", "have no relevant image; left out of all means"),
        ),
        ("Unlabelled queries", _count(rows, "unlabelled_queries", "")),
        ("Split", _said(row["split"] for row in rows)),
        ("Backbone", _said(row["backbone"] for row in rows)),
        ("Settings of all rows", board.shared),
        ("Budget", _said(budget(cell.identity.budget) for cell in cells)),
        ("Seeds", _said(str(cell.identity.seed) for cell in cells)),
    ]
    empty = ("", "none", "0 have no relevant image; left out of all means", "0")
    return [(term, said) for term, said in found if said not in empty]


def budget(values: Mapping[str, Any]) -> str:
    """What each method might spend, in a sentence.

    >>> budget({"backbone": "stored", "epochs": 3, "batch": 32, "optimizer": "adam", "lr": 0.003, "schedule": "cosine"})
    '3 epochs in batches of 32, adam at 0.003 (cosine); backbone stored'
    """
    if not {"epochs", "batch", "optimizer", "lr"} <= values.keys():
        return ""
    said = f"{values['epochs']} epochs in batches of {values['batch']}, {values['optimizer']} at {values['lr']}"
    said += f" ({values['schedule']})" if values.get("schedule") else ""
    said += f"; backbone {values['backbone']}" if values.get("backbone") else ""
    augment = values.get("augment", "none")
    return said + (f"; augmented by {augment}" if augment != "none" else "")


def _said(values: Iterable[Any]) -> str:
    known = list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
    return "; ".join(known[:_MOST]) + (f"; and {len(known) - _MOST} others" if len(known) > _MOST else "")


def _count(rows: Sequence[Mapping[str, Any]], name: str, what: str) -> str:
    known = sorted({row[name] for row in rows if row.get(name) is not None})
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in known) + (
        f" {what}" if known and what else ""
    )


def warnings(results: Results, told: Sequence[Standing]) -> list[str]:
    """What makes numbers of this page less than they seem, the gravest first."""
    entries = [entry for board in results.boards for entry in board.entries]
    found = list(results.faults)
    if wrong := [e for e in entries if e.facts["status"] not in ("ok", "skipped")]:
        found.append(
            f"{len(wrong)} of {len(entries)} rows did not go well; their scores are of the seeds that did, or missing. "
            "The reasons are listed under “What was skipped or did not go well”."
        )
    if touched := sorted({entry.facts["backbone"] for entry in entries if entry.facts["contaminated"]}):
        found.append(
            f"Contaminated: {', '.join(touched)} was trained with labels on images or classes that the data share, "
            "so its scores say little about images it has never seen."
        )
    if stale := sorted({entry.name for entry in entries if entry.facts["stale"]}):
        found.append(
            f"Stale: {', '.join(stale[:_MOST])}{f' and {len(stale) - _MOST} others' if len(stale) > _MOST else ''}. "
            "These rows were measured with code other than the installed code; run hashzoo bench again to update them."
        )
    if results.superseded:
        cells = "1 cell is" if results.superseded == 1 else f"{results.superseded} cells are"
        found.append(f"{cells} left out, since newer code, data or definitions replaced them.")
    if len(machines(results.cells)) > 1:
        found.append(
            "These cells were measured on different machines or with different versions; times are not comparable "
            "between them. The machines are listed under “Provenance”."
        )
    used = {one.test for one in told}
    if any(one.reason == UNLIKE for one in told):
        found.append(
            "Some rows were measured on other data or splits, or by another protocol, than the best of their length: "
            "their scores are of something else, and they are not tested."
        )
    if any(not entry.row.cells for entry in entries):
        found.append("Made from a CSV of means, so there are no intervals, tests, curves or images; name the folder.")
    elif "seeds" in used:
        found.append(
            "Scores of the same single queries and seeds (cells/*.npz) are not beside all cells. Where they are not, "
            "the tests are of the seeds alone: what another draw of queries would change is not covered. Curves by "
            "radius need these files, too."
        )
    if "models" in used:
        found.append("Rows with one seed say nothing of how much training again would change.")
    ties = [board.title for board in results.boards if beaten(board)]
    if ties:
        found.append(
            "A control that stores fewer bits than they were asked for scores above half of the methods or more on "
            f"{', '.join(ties)}."
        )
    return found


def beaten(board: DatasetBoard) -> bool:
    """Whether a control with fewer stored bits scores above half of the methods at some number of bits."""
    for bits in board.bits:
        rows = [e for e in board.at(bits) if e.score(board.metric) is not None and e.facts["status"] == "ok"]
        small = [
            e.score(board.metric)
            for e in rows
            if e.facts["role"] == "control" and e.facts.get("stored_bits") and e.facts["stored_bits"] < bits
        ]
        if small and board.metric in board.praised:
            methods = [e for e in rows if e.competes]
            below = [e for e in methods if (e.score(board.metric) or 0) < max(s or 0 for s in small)]
            if methods and 2 * len(below) >= len(methods):
                return True
    return False


def failures(results: Results) -> list[dict[str, Any]]:
    """The rows that are not ok, of one method, dataset and reason together: name, dataset, bits, status, reason."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for board in results.boards:
        for entry in board.entries:
            if (status := entry.facts["status"]) == "ok":
                continue
            key = (entry.name, board.benchmark, board.dataset, status, entry.facts["reason"])
            row = {"name": entry.name, "dataset": board.dataset, "bits": [], "status": status, "reason": key[-1]}
            found.setdefault(key, row)["bits"].append(entry.facts["bits"])
    return sorted(found.values(), key=lambda row: row["status"] == "skipped")


def machines(cells: Iterable[Cell]) -> dict[str, int]:
    """On what the cells were measured, and how many on each."""
    found: dict[str, int] = {}
    for cell in cells:
        known = cell.provenance
        if not known:
            continue
        versions = known.get("versions")
        told = [
            str(known.get("device", "")),
            str(known.get("cpu_capability", "")),
            f"{known['cpus']} cores" if known.get("cpus") else "",
            str(known.get("platform", "")),
            f"Python {known['python']}" if known.get("python") else "",
            ", ".join(f"{n} {v}" for n, v in versions.items()) if isinstance(versions, Mapping) else "",
        ]
        said = "; ".join(filter(None, told))
        found[said] = found.get(said, 0) + 1
    return found


def commands(cells: Iterable[Cell]) -> list[str]:
    """The commands that measured the cells, each once."""
    return list(dict.fromkeys(str(c.provenance["command"]) for c in cells if c.provenance.get("command")))


def revisions(cells: Iterable[Cell]) -> list[str]:
    """Of whose code: distributions with their versions, and git revisions where they are known."""
    found: dict[str, None] = {}
    for cell in cells:
        found[f"{cell.plugin} {cell.plugin_version}".strip()] = None
        for word in ("checkout", "plugin_checkout"):
            at = cell.provenance.get(word)
            if isinstance(at, Mapping) and at.get("revision"):
                changed = ", with changes" if at.get("dirty") else ""
                found[f"{'plugin ' if word != 'checkout' else ''}revision {str(at['revision'])[:12]}{changed}"] = None
    return [one for one in found if one]


def dates(cells: Sequence[Cell]) -> str:
    """From when to when the cells were written."""
    days = sorted(cell.created[:10] for cell in cells)
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def tested(tests: Iterable[str]) -> list[str]:
    """What the p of a page are of."""
    return [TESTS[name] for name in TESTS if name in set(tests)]
