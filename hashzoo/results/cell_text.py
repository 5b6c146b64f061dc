"""A cell as tables for the terminal: its settings, outcome, scores and provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hashzoo.errors import printable
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode, natural
from hashzoo.results.provenance import revision_text
from hashzoo.results.table import Column, Entry, TextTable
from hashzoo.results.warnings import list_warnings

_WORDS = {
    "budget_kind": "budget is",
    "dataset": "dataset",
    "plugin_version": "plugin version",
    "code": "digest of the plugin code",
    "data": "fingerprint of the data",
    "protocol": "protocol version",
    "weights": "digest of the initial backbone weights",
    "trained": "digest of the trained method",
    "started": "started (UTC)",
    "created": "written (UTC)",
    "seconds": "total seconds",
    "batch": "effective batch size",
    "cpu_capability": "CPU instructions",
    "cudnn": "cuDNN",
    "cuda": "CUDA",
    "peak_memory": "peak memory of the process",
    "peak_gpu_memory": "peak memory on the GPU",
    "checkout": "hashzoo revision",
    "plugin_checkout": "plugin revision",
    "last": "last logged",
}
_VERSIONS = ("code", "data", "protocol")  # parts of the identity that are not settings
_FIRST = (
    *("command", "started", "seconds", "peak_memory", "peak_gpu_memory"),
    *("device", "driver", "cuda", "cudnn", "cpu_capability", "threads", "precision", "batch", "deterministic"),
    *("weights", "trained", "checkout", "plugin_checkout", "versions"),
)


def tables(file: Path, installed: InstalledCode | None = None) -> list[TextTable]:
    """One table for each section of the cell in a file. Raises EnvironmentFailure like ``store.read``.

    ``installed`` has the digest of the installed code, which decides whether the cell is stale.
    """
    cell = store.read(file)
    identity = vars(cell.identity)
    settings = {name: value for name, value in identity.items() if name not in _VERSIONS}
    settings |= {"settings": cell.settings, "budget_kind": cell.budget_kind, "role": cell.role}
    log = file.with_suffix(".log")
    outcome = {"status": cell.status, "reason": cell.reason, "contaminated": cell.contaminated or ""}
    outcome["stale"] = _is_stale(cell, installed) or ""
    outcome["warnings"] = "; ".join(list_warnings(cell))
    outcome["output"] = str(log) if log.is_file() else ""
    sections = {
        f"{cell.benchmark}: {cell.identity.method}, {cell.identity.bits} bits": settings,
        "outcome": outcome,
        "scores": dict(sorted(cell.metrics.items(), key=lambda item: natural(item[0]))),
        "facts": cell.facts,
        "timings": cell.timings,
        "provenance": _provenance(cell),
    }
    return [_table(title, values) for title, values in sections.items() if values]


def record(file: Path, installed: InstalledCode | None = None) -> dict[str, Any]:
    """Everything that the file of a cell records, with all digits. Raises EnvironmentFailure like ``store.read``."""
    cell = store.read(file)
    known = {**asdict(cell), "key": cell.identity.key, "file": str(file), "stale": _is_stale(cell, installed)}
    for name in ("metrics", "facts", "timings"):
        known[name] = {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in known[name].items()}
    return known


def _is_stale(cell: Cell, installed: InstalledCode | None) -> bool:
    place = cell.identity.method, cell.identity.backbone
    return installed is not None and installed([place]).get(place) not in (None, cell.identity.code)


def _provenance(cell: Cell) -> dict[str, Any]:
    known = cell.provenance
    found: dict[str, Any] = {"key": cell.identity.key, "schema": store.SCHEMA, "plugin": cell.plugin}
    found |= {"plugin_version": cell.plugin_version} | {name: vars(cell.identity)[name] for name in _VERSIONS}
    found |= {name: known[name] for name in (*_FIRST, *sorted(known)) if name in known and name != "curve"}
    return found | {"created": cell.created}


def _table(title: str, values: Mapping[str, Any]) -> TextTable:
    columns = (Column("name", text=True, identifies=True), Column("value", text=True, identifies=True, flexible=True))
    texts = {printable(_WORDS.get(name, name.replace("_", " "))): _text(name, value) for name, value in values.items()}
    rows = [[Entry(f" {name}", style="dim"), Entry(text)] for name, text in texts.items() if text]
    return TextTable(columns, rows, printable(title), headers=False)


def _text(name: str, value: Any) -> str:
    """A value as one line; tables as ``name=value``.

    >>> _text("peak_memory", 3 * 2**20), _text("versions", {"torch": "2.4", "numpy": "2.0"}), _text("dirty", False)
    ('3 MiB', 'torch 2.4, numpy 2.0', 'no')
    >>> _text("checkout", {"revision": "f00d", "dirty": True}), _text("map@all", float("nan"))
    ('f00d, with changes', 'unknown')
    """
    if value is None or value == "" or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.6g}"
    if name.endswith("memory") and isinstance(value, int):
        return f"{value / 2**20:,.0f} MiB"
    if isinstance(value, Mapping):
        if name.endswith("checkout"):
            return printable(revision_text(value))
        between = " " if name == "versions" else "="
        return ", ".join(f"{printable(key)}{between}{_text('', inner) or 'none'}" for key, inner in value.items())
    return printable(value)
