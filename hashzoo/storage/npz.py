"""Plain arrays from an .npz that anyone may have written or damaged; nothing in it is ever run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np

from hashzoo.errors import first_line

Arrays = dict[str, np.ndarray[Any, Any]]


def read(source: Path | IO[bytes]) -> Arrays:
    """Every array of an .npz, by name.

    FileNotFoundError where there is no such file; ValueError in one line for whatever else is wrong with it: readers of
    zip files and of arrays raise many kinds for damaged ones.
    """
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            if file.read(2) not in (b"PK", b"\x93N"):  # for all else numpy speaks of pickles, and how to load them
                raise ValueError("it is no .npz")
            file.seek(0)
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not an .npz of several")
            arrays = {name: stored[name] for name in stored.files}
            if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{odd[0]!r} in it is no array")
            return arrays
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(first_line(error)) from error
