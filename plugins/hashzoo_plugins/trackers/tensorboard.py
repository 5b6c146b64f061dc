"""Finished cells as event files: ``tensorboard --logdir RESULTS/tensorboard``."""

from __future__ import annotations

import shutil
from pathlib import Path

from hashzoo import Cell
from hashzoo_plugins.extras import wanted
from hashzoo_plugins.trackers.telling import asked, numbers, title


class TensorBoard:
    """A TensorBoard run a cell, under RESULTS/tensorboard."""

    def __init__(self, folder: Path) -> None:
        wanted("tracker tensorboard", "tensorboard", "tensorboard")
        self._writer = wanted("tracker tensorboard", "torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.folder = folder / "tensorboard"

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell, in the place of an earlier one."""
        place = self.folder / title(cell)
        shutil.rmtree(place, ignore_errors=True)
        with self._writer(log_dir=str(place)) as writer:
            writer.add_hparams(asked(cell), numbers(cell), run_name=".")
            rows = "\n".join(f"| {name} | {value} |" for name, value in asked(cell).items())
            writer.add_text("cell", f"| | |\n|---|---|\n{rows}")

    def close(self) -> None:
        """Nothing is left open."""
