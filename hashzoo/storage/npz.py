"""Safe reading of .npz files from untrusted sources: pickled objects are refused, so no code is run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np

from hashzoo.errors import first_line

Arrays = dict[str, np.ndarray[Any, Any]]


def read(source: Path | IO[bytes]) -> Arrays:
    """All arrays of an .npz file, by name.

    Raises FileNotFoundError for a missing file and ValueError (one line) for any other problem, since the readers of
    zip files and arrays raise many types of exceptions for damaged files.
    """
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            if file.read(2) not in (b"PK", b"\x93N"):  # numpy would suggest to load anything else as a pickle
                raise ValueError("not an .npz file")
            file.seek(0)
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an .npz file")
            arrays = {name: stored[name] for name in stored.files}
            if invalid := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{invalid[0]!r} is not an array")
            return arrays
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(first_line(error)) from error
