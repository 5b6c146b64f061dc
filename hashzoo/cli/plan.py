"""`hashzoo plan`: what a number of codes costs in each engine. Imports neither torch nor an engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hashzoo.cli.output import json_option, print_json
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from hashzoo.export.plan import Planned

FAST = 0.1  # seconds of a query, in the advice


def _count(_context: click.Context, _option: click.Parameter, text: str) -> int:
    """A whole number, which can be written as 1e8."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"--images {text}: not a whole number; write it as 1e8 or 100000000")


@click.command()
@click.option("--images", required=True, callback=_count, metavar="N", help="Number of codes, such as 1e8.")
@click.option("--bits", type=int, default=64, show_default=True, help="Bits of a code.")
@json_option
def plan(images: int, bits: int, as_json: bool) -> None:
    """Estimate disk, memory, time to load and time of a query for N codes, in each engine that hashzoo exports to.

    The estimate grows from rates measured on one machine, one query at a time in one thread: compare engines by it, and
    measure yours. Vectors count as images do.
    """
    from hashzoo.export import plan as plans
    from hashzoo.results.table import Column, Entry, TextTable, show

    found, measured = plans.plan(images, bits), plans.rates()
    if as_json:
        return print_json([asdict(one) for one in found])
    columns = [Column("engine", text=True, identifies=True), Column("finds", text=True)]
    columns += [Column(name) for name in ("disk", "in memory", "load", "query")]
    rows = [
        [one.engine, one.finds, _bytes(one.disk), _bytes(one.memory), _seconds(one.load), _seconds(one.query)]
        for one in found
    ]
    table = TextTable(columns, [[Entry(text) for text in row] for row in rows], f"{images:,} codes of {bits} bits")
    source = f"rates of {measured['machine']}, {measured['measured']}, codes of {measured['bits']} bits"
    notes = "finds: of the 100 nearest; load: export, load and index; query: for the 100 nearest, in one thread"
    show([table], [f"estimated from {source}", notes, _advice(found)])


def _advice(found: Sequence[Planned]) -> str:
    """The engine with the least memory among those that are fast and find neighbors at any distance."""
    fast = [one for one in found if one.query <= FAST and "within" not in one.finds]
    if not fast:
        return f"no engine answers in {_seconds(FAST)}; divide the codes among machines"
    least = min(fast, key=lambda one: one.memory)
    return f"least memory of those that answer in {_seconds(FAST)}: {least.engine}"


def _bytes(count: float) -> str:
    """Bytes in decimal units.

    >>> _bytes(999), _bytes(1_500_000), _bytes(2.5e12)
    ('999 B', '1.5 MB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _seconds(seconds: float) -> str:
    """A time.

    >>> _seconds(0.1), _seconds(75), _seconds(7200), _seconds(400_000)
    ('100 ms', '1.2 min', '2 h', '4.6 days')
    """
    units = ((1, "ms", 0.001), (60, "s", 1), (3600, "min", 60), (48 * 3600, "h", 3600), (math.inf, "days", 86400))
    unit, size = next((unit, size) for limit, unit, size in units if seconds < limit)
    value = seconds / size
    return f"{value:.2g} {unit}" if value < 99.5 else f"{value:,.0f} {unit}"
