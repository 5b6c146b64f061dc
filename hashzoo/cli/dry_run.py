"""What ``hashzoo bench --dry-run`` prints. Imported when the command runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hashzoo.cli.output import print_json
from hashzoo.results import table
from hashzoo.results.durations import Durations
from hashzoo.results.provenance import VERSIONS, versions
from hashzoo.results.render import duration
from hashzoo.results.table import Column, Entry, TextTable

if TYPE_CHECKING:
    from hashzoo.api import DryRun
    from hashzoo.bench.preview import Preview, PreviewCell
    from hashzoo.hookspecs import Download

HEADERS = ("method", "backbone", "bits", "epochs", "pending", "done", "skipped", "time", "reason")


def show(found: DryRun, rerun: str | None, shard: tuple[int, int] | None, as_json: bool = False) -> None:
    """Print the cells by dataset and method, the downloads, and an estimate of the time; as JSON the cells alone."""
    durations = Durations(found.measured)
    if as_json:
        rows = [(one.dataset, row) for one in found.previews for row in _rows(one, durations, rerun)]
        return print_json([{"dataset": name, **dict(zip(HEADERS, row, strict=True))} for name, row in rows])
    for one in found.previews:
        click.echo(f"{one.dataset}: {_images(one)}")
        if one.outline.missing:
            click.echo(f"  missing: {one.outline.missing}")
        for name, trunk in one.backbones.items():
            if trunk.missing:
                click.echo(f"  missing, for {name}: {trunk.missing}")
        table.show([_table(_rows(one, durations, rerun))])
        click.echo()
    downloads = dict.fromkeys(file for one in found.previews for file in (*one.outline.downloads, *_of_backbones(one)))
    click.echo("downloads:" + ("" if downloads else " none"))
    for file in downloads:
        click.echo(f"  {file.name}  {_size(file)}")
    cells = [cell for one in found.previews for cell in one.cells]
    pending = [cell for cell in cells if state(cell, rerun) == "pending"]
    done = sum(state(cell, rerun) == "done" for cell in cells)
    skipped = len(cells) - len(pending) - done
    part = f"; this is part {shard[0]} of {shard[1]}" if shard else ""
    what = "cell" if len(pending) == 1 else "cells"
    click.echo(f"{len(pending)} {what} pending, {done} done, {skipped} skipped in {found.folder}{part}")
    if any(cell.identity.dataset_options.get("root") is not None and state(cell, rerun) == "done" for cell in cells):
        click.echo("done: as far as is known without reading images, whose changes a dry run does not see")
    click.echo(f"time: {_time(pending, durations, found.parallel)}")


def state(cell: PreviewCell, rerun: str | None) -> str:
    """``"pending"``, ``"done"`` or ``"skipped"``."""
    if cell.refusal:
        return "skipped"
    found = cell.found
    if found is None or rerun == "all" or (rerun == "failed" and found.status != "ok"):
        return "pending"
    if rerun in VERSIONS and found.provenance.get("versions") != versions():
        return "pending"
    return "done" if not cell.lacks else "pending"


def _images(one: Preview) -> str:
    sizes = (("training images", one.outline.train), ("database", one.outline.database), ("queries", one.outline.query))
    return ", ".join(f"{what} {'unknown' if size is None else f'{size:,}'}" for what, size in sizes)


def _of_backbones(one: Preview) -> list[Download]:
    return [file for trunk in one.backbones.values() for file in trunk.downloads]


def _size(file: Download) -> str:
    if file.size is None:
        return "size unknown"
    return f"{file.size / 1e9:.1f} GB" if file.size >= 1e9 else f"{file.size / 1e6:.1f} MB"


def _rows(one: Preview, durations: Durations, rerun: str | None) -> list[tuple[str, ...]]:
    """A row for each method, and for each code length of a method that some lengths do not suit."""
    groups: dict[tuple[str, str, str], list[PreviewCell]] = {}
    for cell in one.cells:
        groups.setdefault((cell.identity.method, cell.identity.backbone, cell.refusal), []).append(cell)
    rows = []
    for (method, backbone, refusal), cells in groups.items():
        states = [state(cell, rerun) for cell in cells]
        pending = [cell.identity for cell, now in zip(cells, states, strict=True) if now == "pending"]
        seconds, unknown = durations.total(pending)
        failed = [f"{cell.found.status}: {cell.found.reason}" for cell in cells if cell.found and cell.found.reason]
        bits = ",".join(dict.fromkeys(str(cell.identity.bits) for cell in cells))
        epochs = str(cells[0].identity.budget["epochs"]) if cells[0].kind == "deep" else "-"
        counts = (str(states.count(name)) for name in ("pending", "done", "skipped"))
        time = "-" if not pending else "unknown" if unknown else duration(seconds)
        lacking = "measured again, with metrics that were not measured" if any(cell.lacks for cell in cells) else ""
        rows.append((method, backbone, bits, epochs, *counts, time, refusal or next(iter(failed), lacking)))
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> TextTable:
    columns = [Column(name, text=True, identifies=name in ("method", "bits")) for name in HEADERS[:-1]]
    reason = Column(HEADERS[-1], text=True, flexible=True)
    return TextTable([*columns, reason], [[Entry(text) for text in row] for row in rows], ruled=False)


def _time(pending: Sequence[PreviewCell], durations: Durations, parallel: int) -> str:
    seconds, unknown = durations.total(cell.identity for cell in pending)
    if not pending:
        return "nothing to do"
    if unknown == len(pending):
        return "unknown, since no cell of these methods was measured in this folder"
    known = len(pending) - unknown
    text = f"about {duration(seconds / min(parallel, known))} with {parallel} cells at a time"
    return text + (
        f", and unknown for {unknown} cells of methods that were not measured in this folder" if unknown else ""
    )
