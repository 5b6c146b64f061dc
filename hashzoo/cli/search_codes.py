"""`hashzoo search` on an index folder with codes: neither the method nor torch is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.hamming.packing import pack
from hashzoo.retrieval import code_file
from hashzoo.retrieval.hit import SearchResult
from hashzoo.retrieval.index_snapshot import Snapshot

if TYPE_CHECKING:
    from hashzoo.retrieval.code_file import StoredCodes


def search_codes(
    index: Path, file: Path | None, like: Sequence[str], top: int | None, radius: int | None, where: str
) -> tuple[str, str, list[SearchResult]]:
    """The method, the engine, and what was found for each code of a file and for each id."""
    with Snapshot(index, where) as state:
        names, parts = list[str](), list[NDArray[np.uint8]]()
        if like:
            with Snapshot(index) as everything:
                rows = [everything.row(one) for one in like]
                parts.append(everything.stored().array(everything.searched_code())[rows])
            names += like
        if file is not None:
            found, codes = _read(file, state)
            names += found
            parts.append(codes)
        hits = state.search(np.concatenate(parts), top, radius)
        method = str(state.metadata["method"])
    return (
        method,
        "exact",
        [SearchResult(printable(name), [Path(name)], one) for name, one in zip(names, hits, strict=True)],
    )


def _read(file: Path, state: Snapshot) -> tuple[list[str], NDArray[np.uint8]]:
    """The names and the packed codes of a file of `hashzoo encode`, or of an .npy of bool or of packed bytes."""
    name = state.searched_code()
    if file.suffix != ".npy":
        stored = code_file.read(file)
        _check_method(file, stored, state)
        return list(stored.paths), stored.packed_code(name).rows
    try:
        array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"there is no file {printable(file)}; --codes takes a file of codes") from None
    except (OSError, ValueError, EOFError) as error:
        raise EnvironmentFailure(f"{printable(file)} is not an .npy file of codes: {first_line(error)}") from error
    bits = state.metadata["codes"][name]["bits"]
    if array.dtype == bool and array.ndim == 2 and array.shape[1] == bits:
        array = pack(array)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != -(-bits // 8):
        raise UsageError(
            f"{printable(file)} must be bool (Q, {bits}), or uint8 (Q, {-(-bits // 8)}) packed, not {array.dtype} "
            f"{array.shape}"
        )
    return [f"{file}:{row}" for row in range(len(array))], array


def _check_method(file: Path, stored: StoredCodes, state: Snapshot) -> None:
    ours, theirs = state.metadata["run"], stored.metadata["run"]
    if stored.of_vectors or (ours["key"], ours["state"]) != (theirs["key"], theirs["state"]):
        raise EnvironmentFailure(
            f"{printable(file)} was encoded with another method than {printable(state.path)}, so codes cannot be "
            "compared; encode the queries with the method of the index"
        )
