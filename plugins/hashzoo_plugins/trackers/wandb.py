"""Finished cells as runs of Weights & Biases, offline until ``wandb sync RESULTS/wandb/offline-*`` uploads them."""

from __future__ import annotations

import os
from pathlib import Path

from hashzoo import Cell
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import numbers, parameters, run_name


class WandB:
    """One Weights & Biases run per cell, in RESULTS/wandb; nothing is uploaded unless WANDB_MODE is online."""

    def __init__(self, folder: Path, *, project: str = "hashzoo", entity: str = "") -> None:
        self._wandb = import_extra("tracker wandb", "wandb", "wandb")
        self.folder, self.project, self.entity = folder, project, entity

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        run = self._wandb.init(
            project=self.project,
            entity=self.entity or None,
            name=run_name(cell),
            group=cell.benchmark,
            config=parameters(cell),
            dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE") or "offline",
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )
        try:
            run.summary.update(numbers(cell))
        finally:
            run.finish(exit_code=0 if cell.status in ("ok", "skipped") else 1)

    def close(self) -> None:
        """Do nothing: every run is complete."""
