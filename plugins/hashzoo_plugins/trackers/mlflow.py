"""Finished cells as runs of MLflow: ``mlflow ui --backend-store-uri sqlite:///RESULTS/mlflow.db``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hashzoo import Cell, Job
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import epoch_numbers, epochs, numbers, parameters, run_name

LONGEST = 500  # characters of a parameter, the limit of old MLflow servers


class MLflow:
    """One MLflow run per cell, in RESULTS/mlflow.db or at MLFLOW_TRACKING_URI; each benchmark is an experiment."""

    def __init__(self, folder: Path) -> None:
        self._mlflow = import_extra("tracker mlflow", "mlflow", "mlflow")
        self._client: Any = None
        self._running: dict[str, tuple[str, int]] = {}  # by name: the id of the run, and its last epoch
        self.tracking_uri, self.folder = os.environ.get("MLFLOW_TRACKING_URI"), folder.absolute()
        if not self.tracking_uri:
            import_extra("tracker mlflow", "sqlalchemy", "mlflow")

    def epoch(self, job: Job, number: int, values: Mapping[str, float]) -> None:
        """Write an epoch of a running cell."""
        name = run_name(job)
        run = self._running[name][0] if name in self._running else self._create(job)
        self._running[name] = run, number
        self._log(run, epoch_numbers(values), number)

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        name = run_name(cell)
        run, last = self._running.pop(name) if name in self._running else (self._create(cell), 0)
        for number, values in epochs(cell, last):
            self._log(run, values, number)
        texts = {name: str(value)[:LONGEST] for name, value in parameters(cell).items()}
        params = [self._mlflow.entities.Param(valid_name(name), text) for name, text in texts.items() if text]
        self._log(run, numbers(cell), 0, params)
        self._client.set_terminated(run, "FINISHED" if cell.status in ("ok", "skipped") else "FAILED")

    def close(self) -> None:
        """End the runs of cells that have not finished."""
        for run, _ in self._running.values():
            self._client.set_terminated(run, "KILLED")

    def _create(self, cell: Cell | Job) -> str:
        """The id of a new run."""
        if self._client is None:  # not in the constructor: creating a database takes seconds, and this is a thread
            self._client = self._mlflow.MlflowClient(
                tracking_uri=self.tracking_uri or f"sqlite:///{self.folder / 'mlflow.db'}"
            )
        run = self._client.create_run(self._experiment(cell.benchmark), run_name=run_name(cell))
        return str(run.info.run_id)

    def _log(self, run: str, values: Mapping[str, float], step: int, params: list[Any] | None = None) -> None:
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(valid_name(n), value, now, step) for n, value in values.items()]
        self._client.log_batch(run, metrics=metrics, params=params or [])

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which is created if necessary."""
        if experiment := self._client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        # without a location, a local MLflow would write artifacts to the current folder
        location = None if self.tracking_uri else (self.folder / "mlruns").as_uri()
        return str(self._client.create_experiment(name, location))


def valid_name(name: str) -> str:
    """A name with only the characters that MLflow allows.

    >>> valid_name("scores/map@1000:hits")
    'scores/map_at_1000_hits'
    """
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))
