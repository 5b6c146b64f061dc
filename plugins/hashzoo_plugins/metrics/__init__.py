"""Metrics beyond those of the core."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.metrics.rprecision import rprecision


@hookimpl
def hashzoo_metrics() -> dict[str, Any]:
    """The metrics of this family."""
    return {"rprecision": rprecision}
