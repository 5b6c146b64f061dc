"""Plugins in, catalogues out. One broken plugin never takes another, or the command line, down with it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pluggy

from hashzoo import hookspecs
from hashzoo.errors import ComposeError, EnvironmentFailure, UsageError, first_line, unknown_name
from hashzoo.evaluation.code_metrics import CodeMetric
from hashzoo.hookspecs import Family
from hashzoo.method import Card, Composition, deep, options
from hashzoo.registry.source import load_module

KINDS = ("backbones", "heads", "losses", "methods", "datasets", "metrics", "launchers", "trackers")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*(/\*)?\Z")


@dataclass(frozen=True)
class Entry:
    """One thing of a catalogue: its factory, and who brought it."""

    name: str
    factory: Any  # a callable, or a Family of them
    plugin: str
    version: str

    @property
    def doc(self) -> str:
        """The first line of the factory's docstring."""
        factory = self.factory
        text = factory.doc if isinstance(factory, Composition | Family | CodeMetric) else inspect.getdoc(factory)
        return (text or "").strip().split("\n")[0]

    @property
    def card(self) -> Card:
        """What one must know of a method; the default card where a factory has none."""
        try:
            card = getattr(self.factory, "card", None)
        except Exception:  # a stranger's, which must not take the listing down
            card = None
        return card if isinstance(card, Card) else Card()


@dataclass(frozen=True)
class Plugin:
    """One plugin and how its loading went; ``reason`` is empty where it went well."""

    name: str
    version: str
    origin: str
    offers: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class Zoo:
    """The catalogues, filled from plugins."""

    backbones: dict[str, Entry] = field(default_factory=dict)
    heads: dict[str, Entry] = field(default_factory=dict)
    losses: dict[str, Entry] = field(default_factory=dict)
    methods: dict[str, Entry] = field(default_factory=dict)
    datasets: dict[str, Entry] = field(default_factory=dict)
    metrics: dict[str, Entry] = field(default_factory=dict)
    launchers: dict[str, Entry] = field(default_factory=dict)
    trackers: dict[str, Entry] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)
    extra: tuple[str, ...] = ()  # plugin files and modules that were loaded in addition to the installed ones

    def catalogue(self, kind: str) -> dict[str, Entry]:
        """The entries of one kind, a key of ``KINDS``."""
        entries: dict[str, Entry] = getattr(self, kind)
        return entries

    def backbone(self, name: str) -> Entry:
        """A backbone by name, ``family/name`` included. UsageError with the nearest name otherwise."""
        if name in self.backbones:
            return self.backbones[name]
        prefix, _, rest = name.partition("/")
        entry = self.backbones.get(f"{prefix}/*")
        if entry is None or not isinstance(family := entry.factory, Family):
            raise UsageError(unknown_name("backbone", name, self.backbones))
        if rest not in (known := family.names()):
            raise UsageError(unknown_name("backbone", name, [f"{prefix}/{n}" for n in known]))
        return replace(entry, name=name, factory=partial(family.build, rest))

    def dataset(self, name: str) -> Entry:
        """A dataset by name. UsageError with the nearest name otherwise."""
        return _one("dataset", name, self.datasets)

    def method(self, name: str) -> Entry:
        """A method by name, or head + loss as ``saliency+hashnet``."""
        if name in self.methods:
            entry = self.methods[name]
            if isinstance(entry.factory, Composition):
                entry = replace(entry, factory=self._bound(entry.factory, name))
            return entry
        if name.count("+") == 1:
            head, loss = name.split("+")
            for kind, part in (("head", head), ("loss", loss)):
                known = self.heads if kind == "head" else self.losses
                if part not in known:
                    raise UsageError(f"{name}: {unknown_name(kind, part, known)}")
            made = deep(head, loss, doc=f"the head {head} trained with the loss {loss}")
            brought = sorted({self.heads[head].plugin, self.losses[loss].plugin})
            version = self.losses[loss].version
            return Entry(name, self._bound(made, name), " + ".join(brought), version)
        raise UsageError(unknown_name("method", name, self.methods))

    def launcher(self, name: str) -> Entry:
        """A launcher by name. UsageError with the nearest name otherwise."""
        return _one("launcher", name, self.launchers)

    def tracker(self, name: str) -> Entry:
        """A tracker by name. UsageError with the nearest name otherwise."""
        return _one("tracker", name, self.trackers)

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Names of methods for names and patterns, in the order asked, each once."""
        chosen: list[str] = []
        for pattern in patterns:
            if any(letter in pattern for letter in "*?["):
                found = [name for name in sorted(self.methods) if fnmatchcase(name, pattern)]
                if not found:
                    raise UsageError(f"no method matches {pattern!r}; there are: {', '.join(sorted(self.methods))}")
            else:
                found = [self.method(pattern).name]
            chosen += [name for name in found if name not in chosen]
        return chosen

    def metric_functions(self) -> dict[str, Any]:
        """The metrics that plugins add, by name: functions of counts, and ``OfCodes``."""
        return {name: entry.factory for name, entry in self.metrics.items()}

    def _bound(self, made: Composition, name: str) -> Composition:
        try:
            return made.bind(
                {n: e.factory for n, e in self.heads.items()}, {n: e.factory for n, e in self.losses.items()}
            )
        except ComposeError as error:
            raise UsageError(f"method {name}: {error}") from error


def _one(kind: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    if name not in entries:
        raise UsageError(unknown_name(kind, name, entries))
    return entries[name]


def load_plugins(extra: Iterable[str] = ()) -> Zoo:
    """All plugins: built-in first, then installed ones (unless ``HASHZOO_PLUGINS=off``), then ``extra``.

    An installed plugin that does not load is kept with its reason in ``zoo.plugins``. One of ``extra``, a file or
    a module named by the user, raises UsageError instead.
    """
    extra = tuple(extra)
    zoo = Zoo(extra=extra)
    points = importlib.metadata.entry_points(group="hashzoo")
    found = sorted({(p.dist.name if p.dist else "", p.name, p.value): p for p in points}.values(), key=_rank)
    for point in found:
        package = point.dist.name if point.dist else "?"
        version = point.dist.version if point.dist else ""
        if package != "hashzoo" and os.environ.get("HASHZOO_PLUGINS", "").lower() == "off":
            continue
        name = package if package == "hashzoo" else f"{package}:{point.name}"
        _admit(zoo, name, version, point.value, point.load)
    for given in extra:
        reason = _admit(zoo, given, "", given, partial(load_module, given)).reason
        if reason:
            raise UsageError(f"--plugin {given}: {reason}")
    return zoo


def _rank(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
    package = point.dist.name if point.dist else ""
    return package != "hashzoo", package, point.name


def _admit(zoo: Zoo, name: str, version: str, origin: str, get: Callable[[], Any]) -> Plugin:
    """Load one plugin into the zoo, all of it or nothing; a plugin may even call sys.exit."""
    try:
        offers = _offers(get())
        _refuse_repeats(zoo, name, offers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        plain, text = isinstance(error, EnvironmentFailure | UsageError), first_line(error)
        plugin = Plugin(name, version, origin, reason=text if plain else f"{type(error).__name__}: {text}")
    else:
        for kind, factories in offers.items():
            entries = {n: Entry(n, factory, name, version) for n, factory in factories.items()}
            zoo.catalogue(kind).update(entries)
        names = tuple(f"{kind[:-1] if kind != 'losses' else 'loss'} {n}" for kind in offers for n in offers[kind])
        plugin = Plugin(name, version, origin, names)
    zoo.plugins.append(plugin)
    return plugin


def _offers(module: Any) -> dict[str, dict[str, Any]]:
    """What one plugin offers, by kind. Each plugin gets a manager of its own, so none can disturb another."""
    manager = pluggy.PluginManager("hashzoo")
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    hooks = [name for name in dir(hookspecs) if name.startswith("hashzoo_")]
    for name, answer in inspect.getmembers(module, inspect.isroutine):
        if getattr(answer, "hashzoo_impl", None) and name not in hooks:
            raise UsageError(unknown_name("hook", name, hooks))
    callers = manager.get_hookcallers(module) or []
    if not callers:
        bare = [n for n in dir(module) if n.startswith("hashzoo_") and callable(getattr(module, n))]
        hint = f"decorate {bare[0]} with @hashzoo.hookimpl" if bare else "see the hooks in hashzoo.hookspecs"
        raise UsageError(f"it has no hook; {hint}")
    offers: dict[str, dict[str, Any]] = {}
    for caller in callers:
        for answer in caller():
            if not isinstance(answer, dict):
                raise UsageError(f"{caller.name} must return a dict of names, not {type(answer).__name__}")
            for name, factory in answer.items():
                if not isinstance(name, str) or not NAME.match(name):
                    raise UsageError(f"{caller.name} offers {name!r}: a name matches [a-z0-9][a-z0-9_.-]*")
                if not callable(factory) and not isinstance(factory, Family):
                    raise UsageError(f"{caller.name} offers {name!r}, which cannot be called")
                if caller.name != "hashzoo_metrics" and not isinstance(factory, Family | Composition):
                    _insist_on_options(caller.name, name, factory)
            kind = caller.name.removeprefix("hashzoo_")
            offers.setdefault("trackers" if kind == "finished" else kind, {}).update(answer)
    return offers


def _insist_on_options(hook: str, name: str, factory: Any) -> None:
    """What a factory can be given must be readable, or each benchmark that asks for all methods would end there."""
    try:
        options(factory)
    except Exception as error:
        raise UsageError(f"{hook} offers {name!r}, whose options cannot be read: {first_line(error)}") from error


def _refuse_repeats(zoo: Zoo, plugin: str, offers: dict[str, dict[str, Any]]) -> None:
    for kind, factories in offers.items():
        known = zoo.catalogue(kind)
        for name in factories:
            if name in known:
                raise UsageError(
                    f"{kind} {name!r} is offered by both {known[name].plugin} and {plugin}; rename one of them"
                )
