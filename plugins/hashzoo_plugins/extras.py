"""Packages that only some plugins need, and that nobody has to have."""

from __future__ import annotations

import importlib
from typing import Any

from hashzoo import EnvironmentFailure


def wanted(what: str, module: str, extra: str) -> Any:
    """A module that comes with an extra. EnvironmentFailure saying how to get it where it is missing.

    >>> wanted("tracker nemo", "no_such_package", "nemo")
    Traceback (most recent call last):
    hashzoo.errors.EnvironmentFailure: tracker nemo needs no_such_package; pip install 'hashzoo[nemo]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise EnvironmentFailure(f"{what} needs {package}; pip install 'hashzoo[{extra}]'") from error
