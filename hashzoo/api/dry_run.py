"""What a benchmark would do: its cells, downloads and time, without reading an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from hashzoo.api.bench import MOST, Asked, Methods, Options, folder_of, unused_settings
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.plan import require_feasible
from hashzoo.bench.preview import Preview, preview
from hashzoo.execution.base import Observer, Silent
from hashzoo.factory import FactoryInfo
from hashzoo.results import store
from hashzoo.results.cell import Cell


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


def dry_run(
    benchmark: str | Path | Benchmark,
    *,
    methods: Methods | None = None,
    bits: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    results: str | Path | None = None,
    observer: Observer | None = None,
    **options: Unpack[Options],
) -> DryRun:
    """What a benchmark would do, from what is known before any file is read. Arguments as for :func:`benchmark`.

    No image is read and nothing is downloaded; no GPU is needed.
    """
    asked = Asked(benchmark, methods, bits, seeds, options)
    folder = folder_of(asked.file, results)
    measured = store.peek_all(folder)
    baselines = options.get("baselines", True)
    previews = [
        preview(part, asked.zoo, baselines=baselines, measured=measured)
        for part, _ in asked.overrides.apply(asked.file, asked.zoo, (observer or Silent()).note)
    ]
    cells = [cell for one in previews for cell in one.cells]
    part, parts = options.get("shard", (1, 1))
    own = {id(cell) for cell in cells[part - 1 :: parts]}
    require_feasible(cells, asked.named)
    factories = {cell.identity.method: asked.zoo.method(cell.identity.method).factory for cell in cells}
    several = options.get("devices", 1) > 1
    alone = sorted(name for name, made in factories.items() if several and not FactoryInfo(made).distributed)
    parallel = options.get("jobs") or min(MOST, os.cpu_count() or 1)
    identities = [cell.identity for cell in cells]
    previews = [replace(one, cells=[cell for cell in one.cells if id(cell) in own]) for one in previews]
    return DryRun(previews, folder, measured, parallel, unused_settings(asked.overrides.settings, identities), alone)
