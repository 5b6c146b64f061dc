"""Finished cells as runs of Weights & Biases, kept here until ``wandb sync RESULTS/wandb/offline-*`` sends them."""

from __future__ import annotations

import os
from pathlib import Path

from hashzoo import Cell
from hashzoo_plugins.extras import wanted
from hashzoo_plugins.trackers.telling import asked, numbers, title


class WandB:
    """A Weights & Biases run a cell, in RESULTS/wandb; nothing is sent unless WANDB_MODE is online."""

    def __init__(self, folder: Path, *, project: str = "hashzoo", entity: str = "") -> None:
        self._wandb = wanted("tracker wandb", "wandb", "wandb")
        self.folder, self.project, self.entity = folder, project, entity

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        run = self._wandb.init(
            project=self.project,
            entity=self.entity or None,
            name=title(cell),
            group=cell.benchmark,
            config=asked(cell),
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
        """Nothing is left open."""
