"""Methods that learn from pairs of pictures, similar or not."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.pairwise import dhn


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {"dhn": dhn.METHOD}


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family."""
    return {"dhn": dhn.DHN}
