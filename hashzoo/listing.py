"""What ``hashzoo list`` prints."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from hashzoo.bench_file import read, shipped
from hashzoo.errors import HashzooError
from hashzoo.hookspecs import Family
from hashzoo.zoo import Zoo

BUILT_IN_METRICS = {
    "map@all, map@R": "average precision, ties in expectation, divided by min(relevant items, R)",
    "map@R:hits": "divided by the hits among the first R, as many tables have it",
    "map@R:best, map@R:worst": "the band that an order of ties could have given",
    "p@R, r@R": "precision and recall of the first R places",
    "p@hD, r@hD, empty@hD": "precision and recall within Hamming distance D; rate of empty balls",
    "ndcg@R, acg@R, wap@all": "graded relevance: the number of shared labels",
}


def rows(kind: str, zoo: Zoo, pattern: str | None) -> list[dict[str, Any]]:
    """One dict a line of the listing; families of backbones are spelled out when a pattern asks for one."""
    if kind == "plugins":
        return [
            {
                "name": p.name,
                "version": p.version,
                "origin": p.origin,
                "offers": len(p.offers),
                "status": p.reason or "ok",
            }
            for p in zoo.plugins
        ]
    if kind == "benchmarks":
        return [{"name": name, "what": _title(name)} for name in shipped()]
    found: list[dict[str, Any]] = []
    if kind == "metrics":
        found += [{"name": name, "plugin": "hashzoo", "what": what} for name, what in BUILT_IN_METRICS.items()]
    for name, entry in sorted(zoo.catalogue(kind).items()):
        row: dict[str, Any] = {"name": name, "plugin": entry.plugin, "what": entry.doc}
        if kind == "methods":
            card = entry.card
            labels = ", ".join(["single"] * card.single + ["multi"] * card.multilabel)
            row |= {
                "kind": card.kind,
                "supervision": card.supervision,
                "labels": labels,
                "year": card.year or "",
            }
        found.append(row)
        prefix = name.removesuffix("*")
        if isinstance(entry.factory, Family) and pattern and pattern.startswith(prefix):
            found += [{**row, "name": prefix + one, "what": ""} for one in entry.factory.names()]
    return found


def _title(name: str) -> str:
    try:
        return read(name).title
    except HashzooError as error:
        return str(error)


def table(kind: str, found: list[dict[str, Any]]) -> Table:
    """The listing for a terminal."""
    made = Table(title=f"{len(found)} {kind}", title_justify="left", box=None, pad_edge=False)
    names = list(found[0]) if found else ["name"]
    order = [n for n in names if n != "what"] + (["what"] if "what" in names else [])
    for name in order:
        made.add_column(name, no_wrap=name == "name", overflow="fold")
    for row in found:
        made.add_row(*(str(row[name]) for name in order))
    return made
