"""What several commands read from the command line in the same way. Nothing here imports torch or pandas."""

from __future__ import annotations

from typing import Any

import click

from hashzoo.errors import UsageError

plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; may be repeated."
)


def settings(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``NAME.OPTION=VALUE`` by name; values are read as TOML, and as text where they are none.

    >>> settings(("itq.iterations=20", "mine.head.width=8"))
    {'itq': {'iterations': 20}, 'mine': {'head.width': 8}}
    """
    import tomllib

    table: dict[str, dict[str, Any]] = {}
    for text in given:
        path, equals, raw = text.partition("=")
        name, dot, option = path.rpartition(".")
        if name.endswith((".head", ".loss")):  # a composition whose parts share an option's name
            name, _, part = name.rpartition(".")
            option = f"{part}.{option}"
        if not equals or not dot or not name or not option:
            raise UsageError(f"--set takes NAME.OPTION=VALUE such as mymethod.weight=0.2, not {text!r}")
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw
        table.setdefault(name, {})[option] = value
    return table
