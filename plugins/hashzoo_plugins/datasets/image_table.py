"""A table of images: CSV, TSV or Parquet with a column ``path`` and labels in one of three forms.

``label`` or ``labels`` holds an image's label, or several separated by ``;`` or ``|``; without either, every column
but ``path`` and ``part`` is a class, with 1 where an image has it and 0 where it has not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import EnvironmentFailure, UsageError, printable

TABLES = (".csv", ".tsv", ".parquet")
PARTS = ("train", "database", "query", "validation")


@dataclass(frozen=True)
class Table:
    """Images with labels, sorted by path; ``parts`` (N,) says which part each is in, where a table says so."""

    paths: list[Path]
    labels: Tensor  # (N, C) multi-hot float
    class_names: tuple[str, ...]
    parts: NDArray[np.str_] | None = None
    listed: bool = False


def read_table(file: Path, root: Path) -> Table:
    """The images that a table lists, their paths relative to ``root``. Each must exist, once, inside ``root``."""
    frame = _frame(file)
    if "path" not in frame:
        raise UsageError(
            f"{printable(file)} has no column path; it has: {', '.join(map(printable, frame.columns[:20]))}"
        )
    if not len(frame):
        raise UsageError(f"{printable(file)} lists no images")
    lines = [str(value).strip() for value in frame["path"]]
    start = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118 - text, for links are left as they are
    inside = [os.path.normpath(os.path.join(start, line)) for line in lines]  # noqa: PTH118
    leaving = [line for line, path in zip(lines, inside, strict=True) if not path.startswith(start)]
    _refuse(file, leaving, "lead out of the folder of the images; use paths below it", UsageError)
    counts: dict[str, int] = {}
    for path in inside:
        counts[path] = counts.get(path, 0) + 1
    _refuse(file, [p for p, n in counts.items() if n > 1], "stand in several rows; keep one of each", UsageError)
    missing = [path for path in inside if not os.path.isfile(path)]  # noqa: PTH113 - False for names that cannot be
    _refuse(
        file, missing, "are not there; mend or remove their rows, or name their folder with root", EnvironmentFailure
    )
    rows = sorted(range(len(inside)), key=lambda row: os.fsencode(Path(inside[row]).as_posix()))
    labels, names = _labels(file, frame)
    parts = None
    if "part" in frame:
        parts = np.array([str(value).strip().lower() for value in frame["part"]])
        odd = sorted(set(parts) - set(PARTS))
        _refuse(file, odd, f"are no parts; the column part holds {', '.join(PARTS)}", UsageError)
        parts = parts[rows]
    return Table([Path(inside[row]) for row in rows], labels[rows], names, parts, listed=True)


def _frame(file: Path) -> Any:
    """The table's cells as text, its columns stripped."""
    import pandas as pd

    kind = file.suffix.lower()
    if kind not in TABLES:
        raise UsageError(f"{printable(file)} is no table that is read; use {', '.join(TABLES)}")
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
    except Exception as error:  # a damaged table leads pandas and pyarrow to nearly any
        raise UsageError(
            f"{printable(file)} is no table that can be read: {' '.join(str(error).split())[:200]}"
        ) from error
    return frame.rename(columns=lambda name: str(name).strip())


def _labels(file: Path, frame: Any) -> tuple[Tensor, tuple[str, ...]]:
    """(N, C) multi-hot float, and the names of the classes. UsageError where an image has no label."""
    column = next((name for name in ("label", "labels") if name in frame), None)
    if column is None:
        names = [name for name in frame.columns if name not in ("path", "part")]
        if not names:
            raise UsageError(f"{printable(file)} has no labels: add a column label, labels, or one of 0 and 1 a class")
        texts = np.array([[_bit(value) for value in frame[name]] for name in names]).T  # (N, C)
        if odd := [name for name, values in zip(names, texts.T, strict=True) if not set(values) <= {"0", "1"}]:
            _refuse(file, odd, "are columns with other values than 0 and 1; name the labels' column label", UsageError)
        labels = torch.from_numpy((texts == "1").astype(np.float32))
    else:
        split = [[part.strip() for part in re.split(r"[;|]", _text(value)) if part.strip()] for value in frame[column]]
        names = sorted({name for found in split for name in found}, key=os.fsencode)
        place = {name: number for number, name in enumerate(names)}
        labels = torch.zeros(len(split), len(names))
        for row, found in enumerate(split):
            labels[row, [place[name] for name in found]] = 1
    bare = [str(frame["path"].iloc[int(row)]) for row in torch.nonzero(labels.sum(1) == 0)[:, 0]]
    _refuse(file, bare, "have no label; give them one or remove their rows", UsageError)
    return labels, tuple(printable(name) for name in names)


def _text(value: Any) -> str:
    """A cell as text; whole numbers of Parquet without a point, lists with separators."""
    if isinstance(value, list | tuple | np.ndarray):
        return ";".join(_text(part) for part in value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _bit(value: Any) -> str:
    """A cell of a class column: 1, 1.0 and true are "1"."""
    text = str(value).strip().lower()
    return {"1.0": "1", "true": "1", "0.0": "0", "false": "0"}.get(text, text)


def _refuse(file: Path, wrong: list[str], why: str, error: type[UsageError | EnvironmentFailure]) -> None:
    """An error that names the first of what is wrong and counts it."""
    if wrong:
        raise error(f"{printable(file)}: {printable(wrong[0])!r} ({len(wrong)} such in all): such entries {why}")
