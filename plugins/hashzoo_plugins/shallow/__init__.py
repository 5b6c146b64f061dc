"""Methods that read features once and solve for a hash function, without gradients."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.shallow.itq import ITQ
from hashzoo_plugins.shallow.lsh import LSH
from hashzoo_plugins.shallow.pcah import PCAH


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {"itq": ITQ, "lsh": LSH, "pcah": PCAH}
