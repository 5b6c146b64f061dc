"""A table of images: CSV, TSV or Parquet with a column ``path`` and labels in one of three forms.

``label`` or ``labels`` holds the label of an image, or several separated by ``;`` or ``|``. Without these columns,
every column except ``path`` and ``part`` is a class, with 1 if an image has it and 0 if not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import EnvironmentFailure, SourceFinding, UsageError, printable
from hashzoo_plugins.datasets.part_names import PARTS, describe_parts, part_of, read_parts
from hashzoo_plugins.datasets.table_cells import SUFFIXES, Cells, read_cells
from hashzoo_plugins.datasets.table_labels import labels_of_columns, labels_of_text, refuse

__all__ = ["SUFFIXES", "Table", "read_table"]

KNOWN = ("path", "label", "labels", "part")

#: Words in the name of a column that divides the images, and whole names of columns that say it of one part.
_PART_WORDS = {"split", "splits", "subset", "subsets", "fold", "folds", "partition", "phase", "part", "parts", "usage"}
_IS_PART = re.compile(r"(is|in|for|use)[\W_]*(.+)")


@dataclass(frozen=True)
class Table:
    """N images with labels, sorted by path.

    Args:
        paths: The path of each image.
        labels: (N, C) multi-hot float.
        class_names: The names of the C classes.
        parts: The part of each image (N,), if a column or folders name it.
        listed: Whether the images were listed in a file, in contrast to found in folders.
        findings: What was found while the table or the folders were read.
        parts_from: What names the parts, for messages.
    """

    paths: list[Path]
    labels: Tensor
    class_names: tuple[str, ...]
    parts: NDArray[np.str_] | None = None
    listed: bool = False
    findings: tuple[SourceFinding, ...] = ()
    parts_from: str = "the column part of the table"


def read_table(file: Path, root: Path) -> Table:
    """The images in a table, with paths relative to ``root``. Each must exist in ``root`` and be listed once.

    Raises:
        UsageError: If the content of the table is invalid or can be read in two ways.
        EnvironmentFailure: If the table cannot be read, or an image does not exist.
    """
    cells = _known_columns(read_cells(file))
    if "path" not in cells.columns:
        alone = len(cells.columns) == 1 and re.search(r"[;,\t|]", next(iter(cells.columns)))
        cure = "; separate the fields of a row with commas, or with tabs in a .tsv" if alone else ""
        columns = ", ".join(map(printable, list(cells.columns)[:20]))
        raise UsageError(f"{printable(file)} has no column path; it has: {columns}{cure}")
    if not len(cells):
        raise UsageError(f"{printable(file)} lists no images")
    paths = _absolute_paths(cells, root)
    rows = sorted(range(len(paths)), key=lambda row: os.fsencode(Path(paths[row]).as_posix()))
    part_column, parts, findings = _parts(cells)
    column = next((name for name in ("label", "labels") if name in cells.columns), None)
    others = [name for name in cells.columns if name not in ("path", part_column)]
    if column is not None:
        labels, names, found = labels_of_text(cells, cells.columns[column])
        findings += [*found, *_not_read([name for name in others if name != column], cells)]
    elif not others:
        raise UsageError(f"{printable(file)} has no labels: add a column label or labels, or one of 0 and 1 per class")
    else:
        labels, names = labels_of_columns(cells, others)
    chosen = None if parts is None else parts[rows]
    decide = f"the column {printable(part_column)} of the table"
    kept = [Path(paths[row]) for row in rows]
    return Table(kept, labels[rows], names, chosen, listed=True, findings=tuple(findings), parts_from=decide)


def _known_columns(cells: Cells) -> Cells:
    """The cells with columns such as ``Path`` renamed to the names that are read. Refuses a second column of labels."""
    names = {name: name.casefold() if name.casefold() in KNOWN else name for name in cells.columns}
    labels = [name for name in names if re.fullmatch(r"(image[\W_]*)?labels?[\W_]*\d*", name.casefold())]
    read = {"label", "labels"} & set(names.values())
    twice = next((name for name, known in names.items() if list(names.values()).count(known) > 1), None)
    if twice is not None or (read and len(labels) > 1):
        both = labels if twice is None else [name for name, known in names.items() if known == names[twice]]
        listed = " and ".join(map(printable, both))
        raise UsageError(
            f"{printable(cells.file)} line 1: the columns {listed} can each be the one that is meant; keep one, with "
            "several labels separated by ; or |"
        )
    return Cells(cells.file, {names[name]: c for name, c in cells.columns.items()}, cells.places, cells.unnamed)


def _not_read(names: Sequence[str], cells: Cells) -> list[SourceFinding]:
    left = [*map(printable, names), *cells.unnamed]
    return [SourceFinding("not-read", len(left), len(left) + 2, tuple(left[:5]))] if left else []


def _parts(cells: Cells) -> tuple[str, NDArray[np.str_] | None, list[SourceFinding]]:
    """The column that names the part of each image, the parts, and a finding if they were not written as such."""
    column = _part_column(cells)
    if not column:
        return "", None, []
    values = [str(value).strip().casefold() for value in cells.columns[column]]
    unknown = [row for row, value in enumerate(values) if value not in PARTS and not part_of(value)]
    cure = f"the column {printable(column)} holds {', '.join(PARTS)}"
    refuse(cells, "unknown parts", unknown, [cells.columns[column][row] for row in unknown], cure)
    if column == "part" and set(values) <= set(PARTS):
        return column, np.array(values), []
    parts = read_parts(dict.fromkeys(values), f"the column {printable(column)} of {printable(cells.file)}")
    detail = f"column {printable(column)}: {describe_parts(parts)}"
    found = [SourceFinding("read-as-parts", len(parts), len(parts), (), detail)]
    return column, np.array([parts[value] for value in values]), found


def _part_column(cells: Cells) -> str:
    """The column of the parts: ``part``, or the one that holds names of parts. Empty if there is none.

    Raises UsageError for a column that looks like it and holds something else, such as numbers of folds.
    """
    if "part" in cells.columns:
        return "part"
    labelled = "label" in cells.columns or "labels" in cells.columns
    others = [name for name in cells.columns if name not in KNOWN]
    holding = [name for name in others if _holds_parts(cells.columns[name])]
    if len(holding) > 1:
        names = " and ".join(map(printable, holding))
        raise UsageError(f"{printable(cells.file)} line 1: the columns {names} both hold parts; name one of them part")
    if holding:
        return holding[0]
    of_parts = [name for name in others if part_of(name)]
    suspects = [name for name in others if _names_parts(name)]
    suspects += of_parts if labelled or len({part_of(name) for name in of_parts}) > 1 else []
    if suspects:
        name = printable(suspects[0])
        raise UsageError(
            f"{printable(cells.file)} line 1: the column {name} looks like the parts of the dataset and holds "
            f"{printable(cells.columns[suspects[0]][0])!r} in {cells.places[0]}; name it part, with the values "
            f"{', '.join(PARTS)}, or remove it"
        )
    return ""


def _holds_parts(values: Sequence[object]) -> bool:
    """Whether all values are names of parts, of at least two, training images among them."""
    parts = {part_of(str(value).strip()) for value in set(map(str, values))}
    return "" not in parts and "train" in parts and len(parts) > 1


def _names_parts(column: str) -> bool:
    """Whether a column is named after a division into parts.

    >>> [_names_parts(name) for name in ("Split", "cv_fold", "is_train", "island", "label")]
    [True, True, True, False, False]
    """
    text = column.casefold()
    matched = _IS_PART.fullmatch(text)
    words = re.split(r"[\W_\d]+", text)
    return bool(_PART_WORDS & set(words)) or (matched is not None and bool(part_of(matched[2])))


def _absolute_paths(cells: Cells, root: Path) -> list[str]:
    """The absolute path of each image. Links are not resolved, so the paths are handled as text."""
    start = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118
    listed = [str(value).strip() for value in cells.columns["path"]]
    paths = [os.path.normpath(os.path.join(start, line)) for line in listed]  # noqa: PTH118
    outside = [row for row, path in enumerate(paths) if not path.startswith(start)]
    cure = f"use paths below {printable(root)}"
    refuse(cells, "paths outside the folder of the images", outside, [listed[row] for row in outside], cure)
    first: dict[str, int] = {}
    repeated = [row for row, path in enumerate(paths) if first.setdefault(path, row) != row]
    cure = f"{cells.places[first[paths[repeated[0]]]]} has it too; keep one row of each" if repeated else ""
    refuse(cells, "paths in several rows", repeated, [paths[row] for row in repeated], cure)
    missing = [row for row, path in enumerate(paths) if not os.path.isfile(path)]  # noqa: PTH113 - invalid names too
    cure = "correct or remove their rows, or set root to their folder"
    try:
        refuse(cells, "missing images", missing, [paths[row] for row in missing], cure)
    except UsageError as error:
        raise EnvironmentFailure(str(error)) from None
    return paths
