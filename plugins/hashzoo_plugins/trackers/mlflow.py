"""Finished cells as runs of MLflow: ``mlflow ui --backend-store-uri sqlite:///RESULTS/mlflow.db``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hashzoo import Cell
from hashzoo_plugins.extras import wanted
from hashzoo_plugins.trackers.telling import asked, numbers, title

LONGEST = 500  # letters of a value that every version takes


class MLflow:
    """An MLflow run a cell, in RESULTS/mlflow.db, or where MLFLOW_TRACKING_URI says; a benchmark is an experiment."""

    def __init__(self, folder: Path) -> None:
        self._mlflow = wanted("tracker mlflow", "mlflow", "mlflow")
        self._client: Any = None
        self.elsewhere, self.folder = os.environ.get("MLFLOW_TRACKING_URI"), folder.absolute()
        if not self.elsewhere:
            wanted("tracker mlflow", "sqlalchemy", "mlflow")

    def finished(self, cell: Cell) -> None:
        """Write the run of a cell."""
        if self._client is None:  # here and not sooner: a new database takes seconds, and nobody waits for this thread
            place = self.elsewhere or f"sqlite:///{self.folder / 'mlflow.db'}"
            self._client = self._mlflow.MlflowClient(tracking_uri=place)
        run = self._client.create_run(self._experiment(cell.benchmark), run_name=title(cell)).info.run_id
        entities: Any = self._mlflow.entities
        told = {name: str(value)[:LONGEST] for name, value in asked(cell).items()}
        values = {named(name): value for name, value in numbers(cell).items()}
        now = int(self._client.get_run(run).info.start_time)
        self._client.log_batch(
            run,
            metrics=[entities.Metric(name, value, now, 0) for name, value in values.items()],
            params=[entities.Param(named(name), value) for name, value in told.items() if value],
        )
        self._client.set_terminated(run, "FINISHED" if cell.status in ("ok", "skipped") else "FAILED")

    def close(self) -> None:
        """Nothing is left open."""

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        place = (
            None if self.elsewhere else (self.folder / "mlruns").as_uri()
        )  # else below wherever the sweep was started
        return str(found.experiment_id if found else self._client.create_experiment(name, place))


def named(name: str) -> str:
    """A name as MLflow takes it.

    >>> named("scores/map@1000:hits")
    'scores/map_at_1000_hits'
    """
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))
