"""Finished cells as TensorBoard event files: ``tensorboard --logdir RESULTS/tensorboard``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hashzoo import Cell, Job
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import epoch_numbers, epochs, numbers, parameters, run_name


class TensorBoard:
    """One TensorBoard run per cell, in RESULTS/tensorboard."""

    def __init__(self, folder: Path) -> None:
        import_extra("tracker tensorboard", "tensorboard", "tensorboard")
        self._writer = import_extra("tracker tensorboard", "torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.folder = folder / "tensorboard"
        self._running: dict[str, Any] = {}  # writers by the name of the run

    def epoch(self, job: Job, number: int, values: Mapping[str, float]) -> None:
        """Write an epoch of a running cell."""
        name = run_name(job)
        if name not in self._running:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            self._running[name] = self._writer(log_dir=str(self.folder / name))
        for scalar, value in epoch_numbers(values).items():
            self._running[name].add_scalar(scalar, value, number)
        self._running[name].flush()

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell, replacing an earlier one and its epochs so far."""
        if running := self._running.pop(run_name(cell), None):
            running.close()
        place = self.folder / run_name(cell)
        shutil.rmtree(place, ignore_errors=True)
        with self._writer(log_dir=str(place)) as writer:
            writer.add_hparams(parameters(cell), numbers(cell), run_name=".")
            rows = "\n".join(f"| {name} | {value} |" for name, value in parameters(cell).items())
            for number, values in epochs(cell):
                for scalar, value in values.items():
                    writer.add_scalar(scalar, value, number)
            writer.add_text("cell", f"| | |\n|---|---|\n{rows}")

    def close(self) -> None:
        """Close the runs of cells that have not finished."""
        for running in self._running.values():
            running.close()
