"""Methods that learn from pairs of pictures, similar or not."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.pairwise import dhn


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {"dhn": dhn.METHOD, "dhn-b": dhn.DHNB, "dhn-e": dhn.METHOD_E, "dhn-q": dhn.METHOD_Q}


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family."""
    return {"dhn": dhn.DHN, "dhn-e": dhn.DHNE, "dhn-q": dhn.without_quantization}
