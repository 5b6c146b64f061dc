"""Experiment trackers, which record finished cells."""

from collections.abc import Callable, Mapping

from hashzoo import Tracker, hookimpl
from hashzoo_plugins.trackers.mlflow import MLflow
from hashzoo_plugins.trackers.tensorboard import TensorBoard
from hashzoo_plugins.trackers.wandb import WandB


@hookimpl
def hashzoo_finished() -> Mapping[str, Callable[..., Tracker]]:
    """Trackers that write to local files, and to a server if one is configured."""
    return {"mlflow": MLflow, "tensorboard": TensorBoard, "wandb": WandB}
