"""Finished cells as TensorBoard event files: ``tensorboard --logdir RESULTS/tensorboard``."""

from __future__ import annotations

import shutil
from pathlib import Path

from hashzoo import Cell
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import numbers, parameters, run_name


class TensorBoard:
    """One TensorBoard run per cell, in RESULTS/tensorboard."""

    def __init__(self, folder: Path) -> None:
        import_extra("tracker tensorboard", "tensorboard", "tensorboard")
        self._writer = import_extra("tracker tensorboard", "torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.folder = folder / "tensorboard"

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell, replacing an earlier one."""
        place = self.folder / run_name(cell)
        shutil.rmtree(place, ignore_errors=True)
        with self._writer(log_dir=str(place)) as writer:
            writer.add_hparams(parameters(cell), numbers(cell), run_name=".")
            rows = "\n".join(f"| {name} | {value} |" for name, value in parameters(cell).items())
            writer.add_text("cell", f"| | |\n|---|---|\n{rows}")

    def close(self) -> None:
        """Do nothing: every run is complete."""
