"""Who hears of finished cells."""

from collections.abc import Callable, Mapping
from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.trackers.mlflow import MLflow
from hashzoo_plugins.trackers.tensorboard import TensorBoard
from hashzoo_plugins.trackers.wandb import WandB


@hookimpl
def hashzoo_finished() -> Mapping[str, Callable[..., Any]]:
    """Trackers that work without a network, and with one where they are told of it."""
    return {"mlflow": MLflow, "tensorboard": TensorBoard, "wandb": WandB}
