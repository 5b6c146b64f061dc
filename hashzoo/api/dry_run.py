"""What a benchmark would do: its cells, downloads and time, without reading an image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hashzoo.api.bench import MOST, Request
from hashzoo.bench.plan import require_feasible
from hashzoo.bench.preview import Preview, PreviewCell, masked_key, preview
from hashzoo.execution.base import Observer, Silent
from hashzoo.factory import FactoryInfo
from hashzoo.registry.zoo import Zoo
from hashzoo.results import store, tuned
from hashzoo.results.cell import Cell
from hashzoo.results.tuned import Tuned, vary_identity
from hashzoo.storage.files import expand_user


@dataclass(frozen=True)
class DryRun:
    """What a benchmark would do, as ``hashzoo bench --dry-run`` prints it.

    Attributes:
        previews: The cells of each dataset.
        folder: The results folder.
        measured: The cells in the results folder.
        parallel: Cells at a time.
        unused: Names under ``settings`` that no cell uses, with a hint each.
        alone: The methods that train in one process, if several devices were asked for.
    """

    previews: list[Preview]
    folder: Path
    measured: list[Cell]
    parallel: int
    unused: list[str]
    alone: list[str]


def dry_run(request: Request, observer: Observer | None = None) -> DryRun:
    """What a benchmark would do, from what is known before any file is read.

    No image is read and nothing is downloaded; no GPU is needed.
    """
    options, zoo, measured = request.options, request.zoo, store.peek_all(request.folder)
    previews = [
        preview(part, zoo, baselines=options.get("baselines", True), measured=measured)
        for part, _ in request.overrides.apply(request.file, zoo, (observer or Silent()).note)
    ]
    if (path := options.get("tuned")) is not None:
        study, name = tuned.read(expand_user(Path(path))), request.file.name
        known = {masked_key(cell.identity, zoo): cell for cell in measured if cell.benchmark == name}
        previews = [
            replace(one, cells=[_with_tuned(cell, study, known, zoo) for cell in one.cells]) for one in previews
        ]
    cells = [cell for one in previews for cell in one.cells]
    require_feasible(cells, request.named)
    request.require_same_backbone([cell.identity for cell in cells], measured)
    alone = []
    if options.get("devices", 1) > 1:
        methods = sorted({cell.identity.method for cell in cells})
        alone = [name for name in methods if not FactoryInfo(zoo.method(name).factory).distributed]
    own = {id(cell) for cell in request.of_shard(cells)}
    previews = [replace(one, cells=[cell for cell in one.cells if id(cell) in own]) for one in previews]
    parallel = options.get("jobs") or min(MOST, os.cpu_count() or 1)
    unused = request.unused(cell.identity for cell in cells)
    return DryRun(previews, request.folder, measured, parallel, unused, alone)


def _with_tuned(cell: PreviewCell, tuned: Tuned, known: Mapping[str, Cell], zoo: Zoo) -> PreviewCell:
    """A cell with the settings that a study chose for it, if it did."""
    identity = cell.identity
    study = tuned.find(identity.dataset, identity.method, identity.bits)
    if study is None or not study.settings:
        return cell
    identity = vary_identity(identity, study.settings)
    return replace(cell, identity=identity, found=known.get(masked_key(identity, zoo)), lacks=False)
