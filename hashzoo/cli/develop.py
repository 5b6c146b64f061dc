"""Commands for plugin authors: `check` and `new-plugin`. Imports torch only when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import file_path, plugin_option, settings
from hashzoo.cli.output import json_option, print_json
from hashzoo.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from hashzoo.registry.zoo import Entry, Zoo
    from hashzoo.testing.fixtures import Finding

#: The kinds that can be checked and their catalogs, in the order in which a name is looked up.
CHECKED = {
    "method": "methods",
    "loss": "losses",
    "head": "heads",
    "backbone": "backbones",
    "dataset": "datasets",
}


@click.command()
@click.argument("what", metavar="NAME|FILE")
@click.option("--kind", type=click.Choice(list(CHECKED)), help="The kind of NAME, if several kinds have this name.")
@click.option("--bits", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--multilabel", is_flag=True, help="Check a method with multi-label images.")
@click.option("--set", "given", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a checked part.")
@click.option("--root", metavar="DIR", help="The folder of a dataset's files.")
@json_option
@plugin_option
def check(what: str, kind: str | None, plugins: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check that a method, loss, head, backbone or dataset, or everything in a FILE, keeps the contract of plugins.

    Each failed check names the problem and the fix. Exit code 1: a check failed.
    """
    from hashzoo.registry.zoo import load_plugins

    zoo = load_plugins([*plugins, what] if what.endswith(".py") else plugins)
    chosen = settings(options.pop("given"))
    found = _offered(zoo, what, kind) if what.endswith(".py") else _named(zoo, what, kind)
    names = [entry.name for _, entry in found]
    for name in chosen:
        if name not in names:
            raise UsageError(f"--set: {unknown_name('checked part', name, names)}")
    records = []
    for one, entry in found:
        click.echo(f"{one} {entry.name}", err=as_json)
        for finding in _findings(one, entry, chosen, **options):
            records.append({"kind": one, "name": entry.name, **vars(finding)})
            line = f"  {'ok    ' if finding.ok else 'FAILED'}  {finding.check}{finding.why and f': {finding.why}'}"
            click.echo(line, err=as_json)
    if as_json:
        print_json(records)
    if not all(record["ok"] for record in records):
        sys.exit(1)


def _offered(zoo: Zoo, file: str, kind: str | None) -> list[tuple[str, Entry]]:
    """Everything in a file that can be checked; methods last, after the parts that they consist of."""
    found = [
        (one, zoo.method(name) if one == "method" else entry)
        for one, where in reversed(CHECKED.items())
        for name, entry in zoo.catalogue(where).items()
        if entry.plugin == file and kind in (None, one)
    ]
    if not found:
        hooks = ", ".join(f"hashzoo_{where}" for one, where in CHECKED.items() if kind in (None, one))
        raise UsageError(f"{file} provides nothing to check; implement one of the hooks {hooks}")
    return found


def _named(zoo: Zoo, name: str, kind: str | None) -> list[tuple[str, Entry]]:
    """The entries for a name, a pattern of methods, or head+loss. A name of several kinds is taken as a method."""
    for one in [kind] if kind else CHECKED:
        if name in zoo.catalogue(CHECKED[one]) and one != "method":
            return [(one, zoo.catalogue(CHECKED[one])[name])]
        if one == "backbone" and "/" in name:
            return [(one, zoo.backbone(name))]
        if one == "method" and (name in zoo.methods or any(letter in name for letter in "*?[+")):
            return [(one, zoo.method(found)) for found in zoo.match_methods([name])]
    known = [n for one in ([kind] if kind else CHECKED) for n in zoo.catalogue(CHECKED[one])]
    raise UsageError(f"{unknown_name(kind or 'plugin part', name, known)} (if it is in a file, add --plugin FILE.py)")


def _findings(
    kind: str, entry: Entry, given: dict[str, dict[str, Any]], root: str | None, bits: int, multilabel: bool
) -> list[Finding]:
    from functools import partial

    from hashzoo import testing
    from hashzoo.factory import FactoryInfo, options
    from hashzoo.registry.build import convert_options

    factory = entry.factory
    if family := FactoryInfo(factory).family:
        factory = partial(family.build, family.names()[0])
    chosen = dict(given.get(entry.name, {}))
    if root is not None and kind == "dataset" and "root" in options(factory):
        chosen["root"] = root
    if chosen or kind == "dataset":
        values = convert_options(kind, entry.name, factory, chosen)
        card = getattr(factory, "card", None)
        factory = partial(factory, **{name: values[name] for name in chosen})
        factory.card = card  # type: ignore[attr-defined]
    if kind == "method":
        return testing.check_method(factory, bits=bits, multilabel=multilabel)
    if kind == "head":
        return testing.check_head(factory, bits=bits)
    if kind == "loss":
        return testing.check_loss(factory, bits=bits)
    return testing.check_backbone(factory) if kind == "backbone" else testing.check_dataset(factory)


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(sorted(CHECKED)), default="loss", show_default=True)
@click.option("--file", "one_file", is_flag=True, help="Write one file for --plugin instead of a package.")
@click.option("--into", type=file_path, default=".", help="The folder to write into [default: current folder].")
def new_plugin(name: str, kind: str, one_file: bool, into: Path) -> None:
    """Write a small plugin to start from. It works as it is and passes its test and `hashzoo check`.

    The plugin is a package NAME/ with an entry point, code, test and README, or NAME.py with --file. Existing files are
    not overwritten.
    """
    from hashzoo.registry import scaffold

    written = scaffold.new(name, kind, one_file, into)
    for path in written.files:
        click.echo(f"wrote {path}")
    click.echo("next steps:")
    for command in written.commands:
        click.echo(f"  {command}")
