"""`hashzoo search` on an index of vectors. Imports torch only when the command runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hashzoo.errors import printable


def search_vectors(
    index: Path, queries: tuple[Path, ...], top: int, factor: float | None, as_json: bool, opening: Mapping[str, Any]
) -> None:
    """Print the vectors of an index that are nearest to each row of some files."""
    from hashzoo.results.table import Column, Entry, TextTable, show
    from hashzoo.retrieval.vector_index import open_vector_index

    opened = open_vector_index(index, **opening)
    answers = [(path, opened.search(path, top, factor)) for path in queries]
    exact = answers[0][1].exact
    metric = opened.encoder.metric
    what = {"cosine": "cosine", "ip": "product", "l2": "-distance^2"}[metric] if exact else "distance"
    flat = [
        (path, number, [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0])
        for path, hits in answers
        for number, (rows, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
    ]
    if as_json:
        found = [
            {"query": str(path), "row": number, "found": [{"row": row, what: score} for row, score in hits]}
            for path, number, hits in flat
        ]
        about = {"method": opened.metadata["method"], "engine": opened.engine, "exact": exact, "metric": metric}
        click.echo(json.dumps({**about, "answers": found}, indent=2))
        return
    columns = (Column("rank"), Column(what, identifies=True), Column("row", identifies=True))
    tables = [
        TextTable(
            columns,
            [[Entry(str(rank)), Entry(f"{score:.4g}"), Entry(str(row))] for rank, (row, score) in enumerate(hits, 1)],
            f"row {number} of {printable(path)}",
            ruled=False,
        )
        for path, number, hits in flat
    ]
    show(tables)
