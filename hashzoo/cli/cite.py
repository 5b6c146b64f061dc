"""`hashzoo cite`. Imports torch only when a name is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from hashzoo._version import __version__
from hashzoo.cli.options import plugin_option, split_list

if TYPE_CHECKING:
    from hashzoo.registry.bibtex import BibEntry

#: How to cite hashzoo itself.
HASHZOO = f"""\
@misc{{hashzoo,
  author = {{{{The hashzoo developers}}}},
  title = {{hashzoo: A Plugin-Based Zoo and Benchmark of Methods That Learn to
    Hash Images into Binary Codes}},
  note = {{Version {__version__}}},
  year = {{2026}},
}}"""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@plugin_option
def cite(names: tuple[str, ...], as_json: bool, plugins: tuple[str, ...]) -> None:
    """Print the BibTeX entries of the publications behind methods, losses, heads, backbones and metrics.

    A NAME can be a pattern such as 'dhn*', or head+loss; '*' prints all entries. Each entry is printed once. Without a
    NAME: how to cite hashzoo itself. Only entries are written to standard output, so that it can be redirected into
    a .bib file.
    """
    if names:
        found = _of_names([part for name in names for part in split_list("NAME", name) or [name]], plugins)
    else:
        from hashzoo.registry.bibtex import parse

        found = {"hashzoo": parse(HASHZOO)}
        click.echo("how to cite hashzoo; for methods: hashzoo cite NAME... (see hashzoo list methods)", err=True)
    if as_json:
        click.echo(json.dumps([_row(name, entries) for name, entries in found.items()], indent=2))
        return
    texts: dict[str, str] = {}
    for entry in (entry for entries in found.values() for entry in entries):
        if texts.setdefault(entry.key, entry.text) != entry.text:
            click.echo(f"{entry.key} is the key of two different entries; the second is left out", err=True)
    if texts:
        click.echo("\n\n".join(texts.values()))


def _of_names(names: Sequence[str], plugins: tuple[str, ...]) -> Mapping[str, list[BibEntry]]:
    """The entries of each name; standard error lists the names for which there is none."""
    from hashzoo.registry.citations import citations, match
    from hashzoo.registry.zoo import load_plugins

    selected = match(load_plugins(plugins), names)
    found = {name: citations(entry.factory for entry in entries) for name, entries in selected.items()}
    missing = []
    for name in (name for name in selected if not found[name]):
        source = next((entry.card.paper for entry in selected[name] if entry.card.paper), "")
        missing.append(f"{name} ({source})" if source else name)
    if missing:
        click.echo(f"no publication is recorded for: {', '.join(missing)}", err=True)
    return found


def _row(name: str, entries: Sequence[BibEntry]) -> dict[str, Any]:
    return {
        "name": name,
        "entries": [
            {"key": one.key, "type": one.kind, "fields": dict(one.fields), "bibtex": one.text} for one in entries
        ],
    }
