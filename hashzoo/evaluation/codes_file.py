"""Codes and labels in an .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.storage import npz

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


def read_codes(path: Path) -> list[np.ndarray[Any, Any]]:
    """The arrays ``NAMES`` of an .npz file, in the order of the arguments of ``evaluate``. Nothing in the file is run.

    Raises UsageError for a missing file or array, EnvironmentFailure for a file that cannot be read.
    """
    try:
        stored = npz.read(path)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except ValueError as error:
        raise EnvironmentFailure(f"{path} is not a readable .npz file of plain arrays: {error}") from error
    missing = [name for name in NAMES if name not in stored]
    if missing:
        raise UsageError(f"{path} has no array {', '.join(missing)}; it has {', '.join(stored) or 'none'}")
    return [stored[name] for name in NAMES]
