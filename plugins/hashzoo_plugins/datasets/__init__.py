"""Data sets and the protocols on them, named data.protocol."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.datasets import composed, digits, longtail, scenes


@hookimpl
def hashzoo_datasets() -> dict[str, Any]:
    """The protocols of this family."""
    return {
        "digits.standard": digits.standard,
        "digits.inside": digits.inside,
        "digits.small": digits.small,
        "scenes.standard": scenes.standard,
        "scenes.small": scenes.small,
        **longtail.protocols("digits", digits.source),
        **composed.protocols("scenes", lambda seed: scenes.standard(seed=seed)),
    }
