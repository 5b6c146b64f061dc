"""Launchers and trackers, built with their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hashzoo.errors import UsageError
from hashzoo.execution.base import Limits, SpreadingLauncher
from hashzoo.registry.build import convert_options
from hashzoo.registry.zoo import Entry, load_plugins


def spreading_launcher(
    name: str, settings: Mapping[str, Mapping[str, Any]], parallel: int, plugins: Sequence[str] = ()
) -> SpreadingLauncher:
    """The launcher of a name, with its options, for other tasks than cells. UsageError if it runs cells only."""
    zoo = load_plugins(plugins)
    launcher = service("launcher", zoo.launcher(name), settings, Limits(parallel))
    if not isinstance(launcher, SpreadingLauncher):
        raise UsageError(f"launcher {name} runs cells only; use ray, or leave out --launcher")
    if unused := next((one for one in settings if one != name), None):
        raise UsageError(f"--set {unused}: only options of the launcher {name} are used here")
    return launcher


def service(kind: str, entry: Entry, settings: Mapping[str, Mapping[str, Any]], first: Any) -> Any:
    """A launcher or tracker with its options."""
    values = convert_options(kind, entry.name, entry.factory, settings.get(entry.name, {}))
    try:
        return entry.factory(first, **values)
    except ValueError as error:
        raise UsageError(f"{kind} {entry.name}: {error}") from error
