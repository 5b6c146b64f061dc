"""Codes from elsewhere, as one .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.storage import npz

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


def read_codes(path: Path) -> list[np.ndarray[Any, Any]]:
    """The four arrays of an .npz in the order that ``hashzoo.evaluation.metrics.evaluate`` takes them; nothing in it
    is ever run.

    UsageError for a missing array, EnvironmentFailure for a file that cannot be read.
    """
    try:
        stored = npz.read(path)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except ValueError as error:
        raise EnvironmentFailure(f"{path} is not a sound .npz of plain arrays: {error}") from error
    missing = [name for name in NAMES if name not in stored]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(stored) or 'nothing'}")
    return [stored[name] for name in NAMES]
