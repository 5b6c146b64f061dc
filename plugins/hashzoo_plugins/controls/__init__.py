"""Controls: what a hash must be compared with before its number means anything."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.controls.chance import Chance
from hashzoo_plugins.controls.classifier import Classifier
from hashzoo_plugins.controls.unquantized import Unquantized


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The controls."""
    return {"chance": Chance, "classifier": Classifier, "unquantized": Unquantized}
