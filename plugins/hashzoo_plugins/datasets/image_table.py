"""A table of images: CSV, TSV or Parquet with a column ``path`` and labels in one of three forms.

``label`` or ``labels`` holds the label of an image, or several separated by ``;`` or ``|``. Without these columns,
every column except ``path`` and ``part`` is a class, with 1 if an image has it and 0 if not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import EnvironmentFailure, UsageError, printable

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
PARTS = ("train", "database", "query", "validation")


@dataclass(frozen=True)
class Table:
    """N images with labels, sorted by path.

    Args:
        paths: The path of each image.
        labels: (N, C) multi-hot float.
        class_names: The names of the C classes.
        parts: The part of each image (N,), if the table has a column ``part``.
        listed: Whether the images were listed in a file, in contrast to found in folders.
    """

    paths: list[Path]
    labels: Tensor
    class_names: tuple[str, ...]
    parts: NDArray[np.str_] | None = None
    listed: bool = False


def read_table(file: Path, root: Path) -> Table:
    """The images in a table, with paths relative to ``root``. Each must exist in ``root`` and be listed once.

    Raises:
        UsageError: If the content of the table is invalid.
        EnvironmentFailure: If the table cannot be read, or an image does not exist.
    """
    frame = _read_cells(file)
    if "path" not in frame:
        raise UsageError(
            f"{printable(file)} has no column path; it has: {', '.join(map(printable, frame.columns[:20]))}"
        )
    if not len(frame):
        raise UsageError(f"{printable(file)} lists no images")
    paths = _absolute_paths(file, [str(value).strip() for value in frame["path"]], root)
    rows = sorted(range(len(paths)), key=lambda row: os.fsencode(Path(paths[row]).as_posix()))
    labels, names = _labels(file, frame)
    parts = None
    if "part" in frame:
        parts = np.array([str(value).strip().lower() for value in frame["part"]])
        unknown = sorted(set(parts) - set(PARTS))
        _refuse(file, "unknown parts", unknown, f"the column part holds {', '.join(PARTS)}", UsageError)
        parts = parts[rows]
    return Table([Path(paths[row]) for row in rows], labels[rows], names, parts, listed=True)


def _absolute_paths(file: Path, lines: list[str], root: Path) -> list[str]:
    """The absolute path of each image. Links are not resolved, so the paths are handled as text."""
    start = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118
    paths = [os.path.normpath(os.path.join(start, line)) for line in lines]  # noqa: PTH118
    outside = [line for line, path in zip(lines, paths, strict=True) if not path.startswith(start)]
    _refuse(file, "paths outside the folder of the images", outside, f"use paths below {printable(root)}", UsageError)
    counts: dict[str, int] = {}
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
    repeated = [path for path, count in counts.items() if count > 1]
    _refuse(file, "paths in several rows", repeated, "keep one row of each", UsageError)
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 - False for invalid names too
    cure = "correct or remove their rows, or set root to their folder"
    _refuse(file, "missing images", missing, cure, EnvironmentFailure)
    return paths


def _read_cells(file: Path) -> pd.DataFrame:
    """The cells of a table, as text unless it is Parquet, with stripped column names."""
    import pandas as pd

    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        raise UsageError(f"{printable(file)} is not a table; use {', '.join(SUFFIXES)}")
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(file, engine="pyarrow")
        else:
            with file.open("rb") as opened:
                frame = pd.read_csv(
                    opened, sep="\t" if kind == ".tsv" else ",", dtype=str, keep_default_na=False, encoding="utf-8-sig",
                    encoding_errors="surrogateescape", index_col=False,
                )  # fmt: skip
    except ImportError as error:
        raise EnvironmentFailure(f"reading {printable(file)} needs pyarrow: pip install 'hashzoo[parquet]'") from error
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {printable(file)}: {error.strerror or error}") from error
    except Exception as error:  # pandas and pyarrow raise many types for a damaged table
        raise UsageError(f"{printable(file)} is not a readable table: {' '.join(str(error).split())[:200]}") from error
    return frame.rename(columns=lambda name: str(name).strip())


def _labels(file: Path, frame: pd.DataFrame) -> tuple[Tensor, tuple[str, ...]]:
    """(N, C) multi-hot float labels, and the names of the classes. Raises UsageError if an image has no label."""
    column = next((name for name in ("label", "labels") if name in frame), None)
    if column is None:
        names = [name for name in frame.columns if name not in ("path", "part")]
        if not names:
            raise UsageError(
                f"{printable(file)} has no labels: add a column label or labels, or one of 0 and 1 per class"
            )
        texts = np.array([[_bit(value) for value in frame[name]] for name in names]).T  # (N, C)
        if other := [name for name, values in zip(names, texts.T, strict=True) if not set(values) <= {"0", "1"}]:
            cure = "if one column holds the labels, name it label"
            _refuse(file, "columns with values other than 0 and 1", other, cure, UsageError)
        labels = torch.from_numpy((texts == "1").astype(np.float32))
    else:
        split = [[part.strip() for part in re.split(r"[;|]", _text(value)) if part.strip()] for value in frame[column]]
        names = sorted({name for own in split for name in own}, key=os.fsencode)
        place = {name: number for number, name in enumerate(names)}
        labels = torch.zeros(len(split), len(names))
        for row, own in enumerate(split):
            labels[row, [place[name] for name in own]] = 1
    unlabelled = [str(frame["path"].iloc[int(row)]) for row in torch.nonzero(labels.sum(1) == 0)[:, 0]]
    _refuse(file, "images without a label", unlabelled, "add a label or remove their rows", UsageError)
    return labels, tuple(printable(name) for name in names)


def _text(value: object) -> str:
    """A cell as text: integers in Parquet without a decimal point, lists with separators."""
    if isinstance(value, list | tuple | np.ndarray):
        return ";".join(_text(part) for part in value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _bit(value: object) -> str:
    """The text of a cell in a class column: 1, 1.0 and true are "1"."""
    text = str(value).strip().lower()
    return {"1.0": "1", "true": "1", "0.0": "0", "false": "0"}.get(text, text)


def _refuse(
    file: Path, problem: str, entries: list[str], cure: str, error: type[UsageError | EnvironmentFailure]
) -> None:
    """Raise an error with the first of the invalid entries and their number, if there are any."""
    if entries:
        more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        raise error(f"{printable(file)}: {problem}: {printable(entries[0])!r}{more}; {cure}")
