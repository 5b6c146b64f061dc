"""Launchers, which run the cells of a benchmark."""

from collections.abc import Callable, Mapping

from hashzoo import Launcher, LocalLauncher, hookimpl
from hashzoo_plugins.launchers.ray import Ray
from hashzoo_plugins.launchers.slurm import Slurm


@hookimpl
def hashzoo_launchers() -> Mapping[str, Callable[..., Launcher]]:
    """This machine, a Ray cluster, a Slurm cluster."""
    return {"local": LocalLauncher, "ray": Ray, "slurm": Slurm}
