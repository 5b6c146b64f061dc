"""Networks that turn pictures into features."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.backbones.pixels import Pixels
from hashzoo_plugins.backbones.tiny import Tiny


@hookimpl
def hashzoo_backbones() -> dict[str, Any]:
    """The backbones of this family."""
    return {
        "pixels": Pixels,
        "tiny": Tiny,
    }
