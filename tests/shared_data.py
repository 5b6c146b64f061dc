"""The folder of shared data and cases, which CI has and a user has not: tests that need it skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: ``$HASHZOO_SHARED``, or the folder ``shared`` beside the checkout.
SHARED = Path(os.environ.get("HASHZOO_SHARED", Path(__file__).parents[1].parent / "shared"))


def needs(*parts: str) -> pytest.MarkDecorator:
    """A mark that skips a test where this part of the shared folder is absent."""
    path = SHARED.joinpath(*parts)
    return pytest.mark.skipif(
        not path.exists(), reason=f"needs {path}: set HASHZOO_SHARED to the folder of shared data"
    )
