"""By which column the rows of a block are ranked: the main score, or the same score of the validation images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, Any])

#: The start of the columns, and of the facts of a cell, that hold scores of the validation images.
VALIDATION = "validation "


#: What the digests mean that :func:`folder_of` finds.
FOLDER = "a digest of the images stands for their folder, and only rows with the same one are compared"


def folder_of(row: Mapping[str, Any]) -> str:
    """The settings of a row that stand for the folder or table of the user's own images; empty for other datasets.

    A cell records the digest of the images instead of a path that a dataset requires
    (:func:`hashzoo.registry.build.without_paths`), so rows of one dataset can be of different images.

    >>> folder_of({"dataset": "folder", "settings": "weight=0.2 folder.size=96 folder.root=88512e4e0de54304"})
    'folder.root=88512e4e0de54304'
    """
    name = re.escape(str(row["dataset"]))
    return " ".join(re.findall(rf"(?<!\S){name}\.\w+=[0-9a-f]{{16}}(?!\S)", str(row.get("settings") or "")))


def dataset_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What rows that are compared with each other share: benchmark, dataset, and the folder of the user's images."""
    return str(row["benchmark"]), str(row["dataset"]), folder_of(row)


def competes(row: Mapping[str, Any]) -> bool:
    """Whether a row can be the best of its block: it is ok and not a control."""
    return bool(row["status"] == "ok" and row["role"] != "control")


def has_several_settings(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether two rows of a block are the same method on the same backbone and budget, with different settings.

    >>> row = {"method": "dhn", "backbone": "tiny", "budget": "equal"}
    >>> has_several_settings([row, row | {"backbone": "pixels"}]), has_several_settings([row, row])
    (False, True)
    """
    counts = Counter((row["method"], row["backbone"], row["budget"]) for row in rows)
    return any(count > 1 for count in counts.values())


def ranking_column(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The column by which the rows of a block (benchmark, dataset, bits) are ranked.

    It is ``validation <metric>`` if a method has rows with several settings and each competing row has a validation
    score: the best of several settings must not be chosen by the queries. Otherwise it is the metric.

    >>> first = {"method": "dhn", "backbone": "", "budget": "", "status": "ok", "role": "", "map@all": 0.5}
    >>> second = first | {"map@all": 0.6, "validation map@all": 0.3}
    >>> ranking_column([first, second], "map@all")
    'map@all'
    >>> ranking_column([first | {"validation map@all": 0.4}, second], "map@all")
    'validation map@all'
    """
    rivals = _rivals(rows, metric)
    column = VALIDATION + metric
    known = all(row.get(column) is not None for row in rivals)
    return column if known and has_several_settings(rivals) else metric


def is_chosen_by_queries(rows: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether rows of one method with several settings are ranked by the queries, for lack of validation scores."""
    return has_several_settings(_rivals(rows, metric)) and ranking_column(rows, metric) == metric


def _rivals(rows: Iterable[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if competes(row) and row.get(metric) is not None]


def ranked(
    rows: Sequence[T], metric: str, facts: Callable[[T], Mapping[str, Any]], *, descending: bool = True
) -> list[T]:
    """The rows of a block in the order of their ranking column, those without a value last by the metric itself.

    Args:
        rows: The rows, in the order that rows of equal scores keep.
        metric: The main metric.
        facts: The columns of a row.
        descending: Whether the highest value is first.
    """
    column = ranking_column([facts(row) for row in rows], metric)
    sign = -1.0 if descending else 1.0

    def key(row: T) -> list[tuple[bool, float]]:
        values = (facts(row).get(column), facts(row).get(metric))
        return [(value is None, 0.0 if value is None else sign * value) for value in values]

    return sorted(rows, key=key)


def queries_warning(dataset: str, bits: Iterable[Any]) -> str:
    """The line that says where settings of a method are ranked by the queries.

    >>> queries_warning("digits", [16, 32])
    'digits at 16, 32 bits: settings of one method are ranked by the queries, which favors the setting that fits \
them by chance; measure them on a dataset with validation images to rank them by those'
    """
    return (
        f"{dataset} at {', '.join(map(str, bits))} bits: settings of one method are ranked by the queries, which "
        "favors the setting that fits them by chance; measure them on a dataset with validation images to rank them "
        "by those"
    )


def ranking_warnings(rows: Sequence[Mapping[str, Any]], main: str | None, by: str) -> list[str]:
    """Lines that say where settings of a method are ranked by validation or by the queries; ``by``: as below."""
    if not main:
        return []
    parts = blocks(rows, by)
    held = [str(part[0][by]) for part in parts if ranking_column(part, main) != main]
    lines = [f"at {', '.join(held)} bits, rows are ranked and marked by {VALIDATION}{main}"] if held else []
    bits = [part[0][by] for part in parts if is_chosen_by_queries(part, main)]
    return lines + ([queries_warning(rows[0]["dataset"], bits)] if bits else [])


def blocks(rows: Iterable[Row], by: str) -> list[list[Row]]:
    """The rows with as many bits, in the order of their first rows."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[by], []).append(row)
    return list(found.values())


def best_rows(rows: Sequence[Mapping[str, Any]], metrics: Iterable[str], by: str) -> set[tuple[int, str]]:
    """The (id of row, column) of the highest scores with as many bits, or of those of the best validation scores.

    Args:
        rows: The rows of a dataset.
        metrics: The metrics for which higher is better; their validation scores are included.
        by: The column of the bits.
    """
    found = set[tuple[int, str]]()
    for name in [column for metric in metrics for column in (metric, VALIDATION + metric)]:
        for block in blocks(rows, by):
            column = ranking_column(block, name)
            rivals = [row for row in block if competes(row) and None not in (row.get(name), row.get(column), row[by])]
            highest = max((row[column] for row in rivals), default=None)
            found |= {(id(row), name) for row in rivals if row[column] == highest}
    return found
