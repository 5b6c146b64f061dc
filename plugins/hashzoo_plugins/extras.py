"""Import packages that are optional: they come with an extra of hashzoo."""

from __future__ import annotations

import importlib
from typing import Any

from hashzoo import EnvironmentFailure


def import_extra(user: str, module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        user: The part of hashzoo that needs the module, for the error message.
        module: The dotted name of the module.
        extra: The extra of hashzoo that installs it.

    Raises:
        EnvironmentFailure: If the module, or a package that it imports, is not installed.

    >>> import_extra("tracker nemo", "no_such_package", "nemo")
    Traceback (most recent call last):
    hashzoo.errors.EnvironmentFailure: tracker nemo needs no_such_package; pip install 'hashzoo[nemo]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise EnvironmentFailure(f"{user} needs {package}; pip install 'hashzoo[{extra}]'") from error
