"""Finished cells as runs of Weights & Biases, offline until ``wandb sync RESULTS/wandb/offline-*`` uploads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hashzoo import Cell, Job
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import epoch_numbers, epochs, numbers, parameters, run_name


class WandB:
    """One Weights & Biases run per cell, in RESULTS/wandb; nothing is uploaded unless WANDB_MODE is online."""

    def __init__(self, folder: Path, *, project: str = "hashzoo", entity: str = "") -> None:
        self._wandb = import_extra("tracker wandb", "wandb", "wandb")
        self.folder, self.project, self.entity = folder, project, entity
        self._running: dict[str, tuple[Any, int]] = {}  # by name: the run, and its last epoch

    def epoch(self, job: Job, number: int, values: Mapping[str, float]) -> None:
        """Write an epoch of a running cell."""
        name = run_name(job)
        run = self._running[name][0] if name in self._running else self._start(job)
        self._running[name] = run, number
        run.log(epoch_numbers(values), step=number)

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        name = run_name(cell)
        run, last = self._running.pop(name) if name in self._running else (self._start(cell), 0)
        try:
            run.config.update(parameters(cell))
            for number, values in epochs(cell, last):
                run.log(values, step=number)
            run.summary.update(numbers(cell))
        finally:
            run.finish(exit_code=0 if cell.status in ("ok", "skipped") else 1)

    def close(self) -> None:
        """End the runs of cells that have not finished."""
        for run, _ in self._running.values():
            run.finish(exit_code=1)

    def _start(self, cell: Cell | Job) -> Any:
        return self._wandb.init(
            project=self.project,
            entity=self.entity or None,
            name=run_name(cell),
            group=cell.benchmark,
            dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE") or "offline",
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )
