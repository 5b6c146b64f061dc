"""Labels in the cells of a table: one or several texts, or a column of 0 and 1 for each class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo import SourceFinding, UsageError, is_missing, printable, similar_names
from hashzoo_plugins.datasets.table_cells import Cells

SEPARATOR = re.compile(r"[;|]")
_LIST_AS_TEXT = re.compile(r"\[.*\]|\{.*\}|\(.*[,'\"].*\)", re.DOTALL)
_LIKE_A_LIST = re.compile(r"[,，、；\t\r\n+&]")  # noqa: RUF001 - separators of other scripts
_PERHAPS_A_LIST = re.compile(r"[\s/\\:_-]+")
EXAMPLES = 3


def refuse(cells: Cells, problem: str, rows: Sequence[int], entries: Sequence[Any], cure: str) -> None:
    """Raise UsageError with the first of the invalid rows, its entry, and their number, if there are any."""
    if rows:
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        where = f"{printable(cells.file)} {cells.places[rows[0]]}"
        raise UsageError(f"{where}: {problem}: {printable(entries[0])!r}{more}; {cure}")


def labels_of_text(cells: Cells, values: Sequence[Any]) -> tuple[Tensor, tuple[str, ...], tuple[SourceFinding, ...]]:
    """(N, C) multi-hot float labels, the names of the classes, and findings, from a column of labels.

    Raises UsageError for missing labels, lists written as text, and labels that differ only by case and the like.
    """
    texts = [_text(value) for value in values]
    empty = [row for row, text in enumerate(texts) if text is not None and not SEPARATOR.sub("", text).strip()]
    paths = cells.columns["path"]
    refuse(cells, "images without a label", empty, [paths[r] for r in empty], "add a label or remove their rows")
    odd = [row for row, text in enumerate(texts) if text is None]
    refuse(cells, "labels that are no text", odd, [values[row] for row in odd], "write them as text")
    own = [[part.strip() for part in SEPARATOR.split(str(text)) if part.strip()] for text in texts]
    gone = [row for row, labels in enumerate(own) if any(map(is_missing, labels))]
    cure = "give the label or remove the rows; a class of that name needs another one"
    refuse(cells, "missing labels", gone, [texts[row] for row in gone], cure)
    lists = [row for row, labels in enumerate(own) if any(map(_LIST_AS_TEXT.fullmatch, [*labels, str(texts[row])]))]
    refuse(
        cells, "lists written as text", lists, [texts[row] for row in lists], "separate labels with ; or |, as in a;b"
    )
    names = sorted({name for labels in own for name in labels}, key=os.fsencode)
    first = {name: row for row in reversed(range(len(own))) for name in own[row]}
    _refuse_similar(cells, names, {name: cells.places[row] for name, row in first.items()})
    place = {name: number for number, name in enumerate(names)}
    hot = torch.zeros(len(own), len(names))
    for row, labels in enumerate(own):
        hot[row, [place[name] for name in labels]] = 1
    suspects = _with_separators(names)
    examples = tuple(f"{printable(name)!r} ({cells.places[first[name]]})" for name in suspects[:EXAMPLES])
    finding = SourceFinding("label-with-separator", len(suspects), len(names), examples)
    return hot, tuple(map(printable, names)), (finding,) if suspects else ()


def labels_of_columns(cells: Cells, names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """(N, C) multi-hot float labels, and the names of the classes, from a column of 0 and 1 for each class."""
    _refuse_similar(cells, names, dict.fromkeys(names, "line 1"))
    columns = {name: [_bit(value) for value in cells.columns[name]] for name in names}
    for name, bits in columns.items():
        rows = [row for row, bit in enumerate(bits) if bit not in ("0", "1")]
        cure = f"write 0 or 1; it holds {printable(cells.columns[name][rows[0]])!r}" if rows else ""
        cure += "; if one column holds the labels, name it label"
        refuse(cells, "columns with values other than 0 and 1", rows[:1], [name], cure)
    texts = np.array(list(columns.values())).T  # (N, C)
    labels = torch.from_numpy((texts == "1").astype(np.float32))
    empty = torch.nonzero(labels.sum(1) == 0)[:, 0].tolist()
    paths = [cells.columns["path"][row] for row in empty]
    refuse(cells, "images without a label", empty, paths, "add a label or remove their rows")
    return labels, tuple(map(printable, names))


def _refuse_similar(cells: Cells, names: Sequence[str], places: dict[str, str]) -> None:
    pairs = similar_names(names)
    if not pairs:
        return
    one, other = pairs[0]
    where = f"{printable(one)!r} ({places[one]}) and {printable(other)!r} ({places[other]})"
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    raise UsageError(
        f"{printable(cells.file)}: labels that differ only by case, blanks, Unicode normalization or as 1 and 1.0 do: "
        f"{where}{more}; write each class in one way"
    )


def _with_separators(names: Sequence[str]) -> list[str]:
    """The names that can be lists of other names.

    >>> _with_separators(["dog,outdoor", "dog", "tench, Tinca tinca", "hot dog", "animal/cat", "dog/cat", "cat"])
    ['dog,outdoor', 'dog/cat']
    """
    parts = {name: [p.strip() for p in _LIKE_A_LIST.split(name) if p.strip()] for name in names}
    uses = Counter(part for own in parts.values() for part in set(own))
    whole = set(names)
    found = []
    for name, own in parts.items():
        listed = len(own) > 1 and (any(uses[part] > 1 for part in own) or bool(re.search(r"[,，]\S", name)))  # noqa: RUF001
        words = [word for word in _PERHAPS_A_LIST.split(name) if word]
        if listed or (len(words) > 1 and set(words) <= whole):
            found.append(name)
    return found


def _text(value: Any) -> str | None:
    """A cell as text: integers in Parquet without a decimal point, lists with separators; None if it has none."""
    if isinstance(value, list | tuple | np.ndarray):
        parts = [_text(part) for part in value]
        return None if None in parts else ";".join(str(part) or "nan" for part in parts)
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return ""
    if isinstance(value, bytes | bytearray | dict | set):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _bit(value: Any) -> str:
    """The text of a cell in a class column: 1, 1.0 and true are "1"."""
    text = str(value).strip().casefold()
    if text in ("true", "false"):
        return str(int(text == "true"))
    return {1.0: "1", 0.0: "0"}.get(float(text), text) if re.fullmatch(r"[01](\.0+)?", text) else text
