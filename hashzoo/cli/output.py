"""What the commands on results print: tables for people, and the same rows in other formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from hashzoo.results.table import TextTable

FORMATS = ("table", "latex", "markdown", "csv", "json")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="A table for the terminal [default]; LaTeX (booktabs) or Markdown for papers and pages; CSV or JSON with all "
    "digits.",
)


def chosen_format(form: str | None, as_json: bool) -> str:
    """The format of the options ``--format`` and ``--json``. UsageError if they contradict each other."""
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json cannot be combined with --format {form}; leave out one of them")
    return "json" if as_json else form or "table"


def print_json(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a JSON list; nothing else may be printed on the standard output."""
    click.echo(json.dumps([dict(one) for one in records], indent=2, allow_nan=False))


def print_tables(
    form: str,
    tables: Callable[[], Sequence[TextTable]],
    records: Callable[[], Sequence[Mapping[str, Any]]],
    lines: Sequence[str] = (),
) -> None:
    """Print tables and lines about them in a format of ``FORMATS``; only what the format needs is computed."""
    if form == "json":
        print_json(records())
    elif form == "csv":
        click.echo(_csv(records()), nl=False)
    elif form == "latex":
        from hashzoo.results.formats import latex

        parts = [latex(one, one.title or "Mean ranks", one.title or "ranks") for one in tables()]
        click.echo("\n".join([*parts, *(["".join(f"% {line}\n" for line in lines)] if lines else [])]), nl=False)
    elif form == "markdown":
        from hashzoo.results.formats import markdown, markdown_text

        parts = [markdown(one) for one in tables()]
        notes = "".join(f"- {markdown_text(line)}\n" for line in lines)
        click.echo("\n".join([*parts, *([notes] if notes else [])]), nl=False)
    else:
        from hashzoo.results import table

        table.show(tables(), lines)


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    from hashzoo.results.csv_file import csv_rows

    names = list(dict.fromkeys(name for one in records for name in one))
    plain = [
        {name: " ".join(value) if isinstance(value, list) else value for name, value in one.items()} for one in records
    ]
    return csv_rows(names, [[one.get(name) for name in names] for one in plain])
