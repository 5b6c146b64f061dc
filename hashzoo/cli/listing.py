"""Tables of what plugins provide, as `hashzoo list` prints them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

from hashzoo.bench.benchmark_file import read, shipped
from hashzoo.bench.search import describe_shared
from hashzoo.errors import HashzooError, UsageError, printable
from hashzoo.factory import FactoryInfo, options
from hashzoo.method import Card
from hashzoo.registry.zoo import Zoo
from hashzoo.results import table

BUILT_IN_METRICS = {
    "map@all, map@R": "average precision, ties in expectation, divided by min(relevant items, R)",
    "map@R:hits": "divided by the hits among the first R, as many tables have it",
    "map@R:best, map@R:worst": "the band that an order of ties could have given",
    "p@R, r@R": "precision and recall of the first R places",
    "p@hD, r@hD, empty@hD": "precision and recall within Hamming distance D; rate of empty balls",
    "ndcg@R, acg@R, wap@all": "graded relevance: the number of shared labels",
    "recall@k, recall@k:fF": "share of the k exact neighbors among the first k, or F k, places",
    "factor@k:T": "the F at which the mean of recall@k:fF is T, such as 0.95",
}

#: The values of the filters of methods.
CHOICES: dict[str, tuple[str, ...]] = {
    **{name: get_args(get_type_hints(Card)[name]) for name in ("kind", "supervision")},
    "labels": ("single", "multi"),
}
CITED = 32  # characters of a paper's name, unless there is no limit


def rows(kind: str, zoo: Zoo, pattern: str | None) -> list[dict[str, Any]]:
    """One dict for each line; the members of a family of backbones if the pattern starts with its prefix."""
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
        row: dict[str, Any] = {"name": name, "plugin": entry.plugin, "what": entry.summary}
        if kind == "methods":
            card = entry.card
            labels = ", ".join(["single"] * card.single + ["multi"] * card.multilabel)
            row |= {
                "kind": card.kind,
                "supervision": card.supervision,
                "labels": labels,
                "year": card.year or "",
                "paper": card.paper,
            }
        found.append(row)
        prefix = name.removesuffix("*")
        family = FactoryInfo(entry.factory).family
        if family and pattern and pattern.startswith(prefix):
            found += [{**row, "name": prefix + one, "what": ""} for one in family.names()]
    return found


def spaces(kind: str, zoo: Zoo, names: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each range of a method, loss or head that a study searches. Raises UsageError for other kinds."""
    if kind not in ("methods", "losses", "heads"):
        raise UsageError(f"--space applies to methods, losses and heads, not {kind}; leave it out")
    found: list[dict[str, Any]] = []
    for name in names:
        entry = zoo.method(name) if kind == "methods" else zoo.catalogue(kind)[name]
        for one in options(entry.factory).values():
            if one.space is not None:
                default = "by rule" if one.default is None else str(one.default)
                line = {"name": name, "option": one.name, "default": default, "range": str(one.space)}
                found.append({**line, "source": getattr(one.space, "source", "")})
    deep = [name for name in names if kind == "methods" and zoo.method(name).card.kind == "deep"]
    shared = describe_shared().items() if deep else ()
    every, default = "(every deep method)", "of the benchmark"
    return found + [
        {"name": every, "option": option, "default": default, "range": text, "source": "ours"}
        for option, text in shared
    ]


def show_spaces(found: list[dict[str, Any]]) -> None:
    """Print ranges, fitted to the width of the terminal."""
    if found:
        table.show(
            [table.of_records(found, identifies="name", advice="a wider terminal, | less -S or --json shows all")]
        )


def _title(name: str) -> str:
    try:
        return read(name).title
    except HashzooError as error:
        return str(error)


def selected(kind: str, found: list[dict[str, Any]], wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """The methods whose cards match: by the filters of ``CHOICES``, or by ``year``, a year or a range.

    Raises UsageError for an invalid value, and for a listing that is not of methods.

    >>> both = [{"name": "a", "labels": "single", "year": 2017}, {"name": "b", "labels": "single, multi", "year": ""}]
    >>> [[row["name"] for row in selected("methods", both, w)] for w in ({"labels": "multi"}, {"year": "2015-2018"})]
    [['b'], ['a']]
    """
    if wanted and kind != "methods":
        raise UsageError(f"--{next(iter(wanted))} applies to methods, not {kind}; leave it out or list methods")
    for name, value in wanted.items():
        if name == "year":
            years = _years(value)
            found = [row for row in found if row["year"] in years]
        elif value in CHOICES[name]:
            found = [row for row in found if value in row[name].split(", ")]
        else:
            raise UsageError(f"--{name} must be one of {', '.join(CHOICES[name])}, not {value!r}")
    return found


def _years(text: str) -> range:
    given = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", text)
    years = range(int(given[1]), int(given[2] or given[1]) + 1) if given else range(0)
    if not years:
        raise UsageError(f"--year must be a year such as 2017 or a range such as 2015-2018, not {text!r}")
    return years


def show(kind: str, found: list[dict[str, Any]]) -> None:
    """Print a listing, fitted to the width of the terminal."""
    console = table.screen()
    console.print(f"{len(found)} {kind}")
    if found:
        lines = [_brief(row, console.width) for row in found] if kind == "methods" else found
        table.show([_table(lines, shortened=kind == "methods")], console=console)


def _brief(row: dict[str, Any], width: int) -> dict[str, Any]:
    """A method as one line; the name of a long paper is shortened in a terminal."""
    what = row["what"].replace(f" ({row['paper']})", "").removesuffix(".")
    paper = row["paper"]
    if width < table.UNLIMITED:
        paper = textwrap.shorten(paper, CITED, placeholder=" ...", break_on_hyphens=False)
    return {**row, "labels": row["labels"].replace("single, multi", "both"), "what": what, "paper": paper}


def _table(found: Sequence[Mapping[str, Any]], shortened: bool) -> table.TextTable:
    """A table of the lines; the description is the last column, and the plugin is left out first."""
    order = sorted(found[0], key=lambda name: (name == "what", name == "plugin" and shortened))
    columns = [
        table.Column(
            name, text=True, identifies=name == "name", flexible=name == "what", shortened=shortened and name == "what"
        )
        for name in order
    ]
    rows = [[table.Entry(printable(row[name])) for name in order] for row in found]
    return table.TextTable(columns, rows, ruled=False, advice="a wider terminal, | less -S or --json shows all")
