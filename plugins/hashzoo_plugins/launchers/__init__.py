"""Where the cells of a sweep run."""

from collections.abc import Callable, Mapping
from typing import Any

from hashzoo import LocalLauncher, hookimpl
from hashzoo_plugins.launchers.ray import Ray
from hashzoo_plugins.launchers.slurm import Slurm


@hookimpl
def hashzoo_launchers() -> Mapping[str, Callable[..., Any]]:
    """This machine, a Ray cluster, a Slurm cluster."""
    return {"local": LocalLauncher, "ray": Ray, "slurm": Slurm}
