"""One cell for people: what was asked for, what became of it, its numbers, and where they were made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hashzoo.errors import printable
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import natural

_WORDS = {
    "budget_kind": "budget is",
    "dataset": "dataset",
    "plugin_version": "plugin version",
    "code": "digest of the plugin's code",
    "data": "fingerprint of the data",
    "protocol": "version of the scores' definitions",
    "weights": "digest of the backbone's first weights",
    "trained": "digest of the trained method",
    "started": "started (UTC)",
    "created": "written (UTC)",
    "seconds": "seconds in all",
    "batch": "effective batch size",
    "cpu_capability": "CPU instructions",
    "cudnn": "cuDNN",
    "cuda": "CUDA",
    "peak_memory": "peak memory of the process",
    "peak_gpu_memory": "peak memory on the GPU",
    "checkout": "hashzoo's revision",
    "plugin_checkout": "plugin's revision",
    "last": "last logged",
}
_MADE = ("code", "data", "protocol")  # of the identity, that are not asked for by name
_FIRST = (
    *("command", "started", "seconds", "peak_memory", "peak_gpu_memory"),
    *("device", "driver", "cuda", "cudnn", "cpu_capability", "threads", "precision", "batch", "deterministic"),
    *("weights", "trained", "checkout", "plugin_checkout", "versions"),
)


def tables(file: Path) -> list[Table]:
    """A table a section of the cell in a file. EnvironmentFailure as :func:`hashzoo.results.store.read` raises it."""
    cell = store.read(file)
    identity = vars(cell.identity)
    asked = {name: value for name, value in identity.items() if name not in _MADE}
    asked |= {"settings": cell.settings, "budget_kind": cell.budget_kind, "role": cell.role}
    log = file.with_suffix(".log")
    outcome = {"status": cell.status, "reason": cell.reason, "contaminated": cell.contaminated or ""}
    outcome["output"] = str(log) if log.is_file() else ""
    sections = {
        f"{cell.benchmark}: {cell.identity.method}, {cell.identity.bits} bits": asked,
        "outcome": outcome,
        "scores": dict(sorted(cell.metrics.items(), key=lambda item: natural(item[0]))),
        "facts": cell.facts,
        "timings": cell.timings,
        "made": _made(cell),
    }
    return [_table(title, values) for title, values in sections.items() if values]


def _made(cell: Cell) -> dict[str, Any]:
    known = cell.provenance
    found: dict[str, Any] = {"key": cell.identity.key, "schema": store.SCHEMA, "plugin": cell.plugin}
    found |= {"plugin_version": cell.plugin_version} | {name: vars(cell.identity)[name] for name in _MADE}
    found |= {name: known[name] for name in (*_FIRST, *sorted(known)) if name in known}
    return found | {"created": cell.created}


def _table(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=printable(title), title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        text = _text(name, value)
        if text:
            table.add_row(Text(printable(_WORDS.get(name, name.replace("_", " ")))), Text(text))
    return table


def _text(name: str, value: Any) -> str:
    """A value in one line; tables as ``name=value``.

    >>> _text("peak_memory", 3 * 2**20), _text("versions", {"torch": "2.4", "numpy": "2.0"}), _text("dirty", False)
    ('3 MiB', 'torch 2.4, numpy 2.0', 'no')
    >>> _text("checkout", {"revision": "f00d", "dirty": True}), _text("map@all", float("nan"))
    ('f00d, with changes', 'not known')
    """
    if value is None or value == "" or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "not known" if math.isnan(value) else f"{value:.6g}"
    if name.endswith("memory") and isinstance(value, int):
        return f"{value / 2**20:,.0f} MiB"
    if isinstance(value, Mapping):
        if name.endswith("checkout"):
            return printable(f"{value.get('revision')}{', with changes' if value.get('dirty') else ''}")
        between = " " if name == "versions" else "="
        return ", ".join(f"{printable(key)}{between}{_text('', inner) or 'none'}" for key, inner in value.items())
    return printable(value)
