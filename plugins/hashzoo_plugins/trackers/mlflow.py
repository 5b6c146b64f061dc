"""Finished cells as runs of MLflow: ``mlflow ui --backend-store-uri sqlite:///RESULTS/mlflow.db``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hashzoo import Cell
from hashzoo_plugins.extras import import_extra
from hashzoo_plugins.trackers.fields import numbers, parameters, run_name

LONGEST = 500  # characters of a parameter, the limit of old MLflow servers


class MLflow:
    """One MLflow run per cell, in RESULTS/mlflow.db or at MLFLOW_TRACKING_URI; each benchmark is an experiment."""

    def __init__(self, folder: Path) -> None:
        self._mlflow = import_extra("tracker mlflow", "mlflow", "mlflow")
        self._client: Any = None
        self.tracking_uri, self.folder = os.environ.get("MLFLOW_TRACKING_URI"), folder.absolute()
        if not self.tracking_uri:
            import_extra("tracker mlflow", "sqlalchemy", "mlflow")

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        if self._client is None:  # not in the constructor: creating a database takes seconds, and this is a thread
            self._client = self._mlflow.MlflowClient(
                tracking_uri=self.tracking_uri or f"sqlite:///{self.folder / 'mlflow.db'}"
            )
        run = self._client.create_run(self._experiment(cell.benchmark), run_name=run_name(cell)).info.run_id
        entities: Any = self._mlflow.entities
        texts = {name: str(value)[:LONGEST] for name, value in parameters(cell).items()}
        now = int(self._client.get_run(run).info.start_time)
        self._client.log_batch(
            run,
            metrics=[entities.Metric(valid_name(name), value, now, 0) for name, value in numbers(cell).items()],
            params=[entities.Param(valid_name(name), text) for name, text in texts.items() if text],
        )
        self._client.set_terminated(run, "FINISHED" if cell.status in ("ok", "skipped") else "FAILED")

    def close(self) -> None:
        """Do nothing: every run is complete."""

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
