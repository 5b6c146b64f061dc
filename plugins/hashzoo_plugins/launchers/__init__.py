"""Where the cells of a sweep run."""

from collections.abc import Callable, Mapping
from typing import Any

from hashzoo import hookimpl
from hashzoo.local import Local


@hookimpl
def hashzoo_launchers() -> Mapping[str, Callable[..., Any]]:
    """This machine."""
    return {"local": Local}
