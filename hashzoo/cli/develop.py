"""Commands for who writes a plugin: a first one to change, and whether it keeps the contract. No torch at start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import plugin_option, settings
from hashzoo.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from hashzoo.registry.zoo import Entry, Zoo
    from hashzoo.testing.fixtures import Finding

#: What has a contract, as people say it, and the catalogue that it stands in; the order in which a name is looked up.
CHECKED = {
    "method": "methods",
    "loss": "losses",
    "head": "heads",
    "backbone": "backbones",
    "dataset": "datasets",
}


@click.command()
@click.argument("what", metavar="NAME|FILE")
@click.option("--kind", type=click.Choice(list(CHECKED)), help="What NAME is, where it stands for several things.")
@click.option("--bits", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--multilabel", is_flag=True, help="A method on images with several labels.")
@click.option("--set", "given", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of what is checked.")
@click.option("--root", metavar="DIR", help="The folder of a dataset's files.")
@plugin_option
def check(
    what: str,
    kind: str | None,
    bits: int,
    multilabel: bool,
    given: tuple[str, ...],
    root: str | None,
    plugins: tuple[str, ...],
) -> None:
    """The contract of a method, loss, head, backbone or dataset, in seconds; of a FILE, of all that it offers.

    Each point that fails says what is wrong and the cure. Exit code 1 where one fails.
    """
    from hashzoo.registry import zoo

    house = zoo.load_plugins([*plugins, what] if what.endswith(".py") else plugins)
    chosen, failed = settings(given), False
    found = _offered(house, what, kind) if what.endswith(".py") else _named(house, what, kind)
    names = [entry.name for _, entry in found]
    for name in chosen:
        if name not in names:
            raise UsageError(f"--set: {unknown_name('part of what is checked', name, names)}")
    for one, entry in found:
        click.echo(f"{one} {entry.name}")
        for finding in _findings(one, entry, chosen, root, bits, multilabel):
            failed |= not finding.ok
            click.echo(f"  {'ok    ' if finding.ok else 'FAILED'}  {finding.check}{finding.why and f': {finding.why}'}")
    if failed:
        sys.exit(1)


def _offered(house: Zoo, file: str, kind: str | None) -> list[tuple[str, Entry]]:
    """All of a file that has a contract, methods last: where a part of one is at fault, that comes first."""
    found = [
        (one, house.method(name) if one == "method" else entry)
        for one, where in reversed(CHECKED.items())
        for name, entry in house.catalogue(where).items()
        if entry.plugin == file and kind in (None, one)
    ]
    if not found:
        hooks = ", ".join(f"hashzoo_{where}" for one, where in CHECKED.items() if kind in (None, one))
        raise UsageError(f"{file} offers nothing that has a contract to check; answer one of the hooks {hooks}")
    return found


def _named(house: Zoo, name: str, kind: str | None) -> list[tuple[str, Entry]]:
    """What a name, a pattern of methods, or head+loss stands for; for a method, where it is the name of several."""
    for one in [kind] if kind else CHECKED:
        if name in house.catalogue(CHECKED[one]) and one != "method":
            return [(one, house.catalogue(CHECKED[one])[name])]
        if one == "backbone" and "/" in name:
            return [(one, house.backbone(name))]
        if one == "method" and (name in house.methods or any(letter in name for letter in "*?[+")):
            return [(one, house.method(found)) for found in house.match_methods([name])]
    known = [n for one in ([kind] if kind else CHECKED) for n in house.catalogue(CHECKED[one])]
    raise UsageError(unknown_name(kind or "method, loss, head, backbone or dataset", name, known))


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
@click.option("--file", "one_file", is_flag=True, help="One file for --plugin, in place of a package.")
@click.option("--into", type=click.Path(path_type=Path), default=".", help="The folder it is put into [default: here].")
def new_plugin(name: str, kind: str, one_file: bool, into: Path) -> None:
    """Write a plugin to start from: a small one that works, passes its test and `hashzoo check`, and can be benched.

    A package NAME/ with an entry point, code, test and README, to be installed with pip; or, with --file, NAME.py.
    Nothing that exists is written over.
    """
    from hashzoo.registry import scaffold

    made = scaffold.new(name, kind, one_file, into)
    for path in made.files:
        click.echo(f"wrote {path}")
    click.echo("now try:")
    for command in made.commands:
        click.echo(f"  {command}")
