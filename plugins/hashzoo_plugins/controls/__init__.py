"""Controls: reference points that the score of a hashing method is compared with."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.controls.chance import Chance
from hashzoo_plugins.controls.classifier import Classifier
from hashzoo_plugins.controls.floats import Float16, Float32
from hashzoo_plugins.controls.unquantized import Unquantized


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The control methods by name."""
    return {
        "chance": Chance,
        "classifier": Classifier,
        "float16": Float16,
        "float32": Float32,
        "unquantized": Unquantized,
    }
