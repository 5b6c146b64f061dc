"""The catalogs of everything that plugins provide, and how plugins are loaded.

A plugin that does not load is recorded with the reason and does not affect any other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pluggy

from hashzoo import hookspecs
from hashzoo.data import held_out
from hashzoo.data.held_out import HeldOutDataset
from hashzoo.errors import ComposeError, EnvironmentFailure, HashzooError, UsageError, first_line, unknown_name
from hashzoo.factory import Composition, FactoryInfo, deep, options, without_markup
from hashzoo.hookspecs import Outline, TrainingFacts
from hashzoo.method import Card
from hashzoo.registry.source import code_digest, load_module
from hashzoo.storage.library_caches import provide_library_caches

KINDS = ("backbones", "heads", "losses", "methods", "datasets", "metrics", "launchers", "trackers")
#: What plugins say about methods, datasets and backbones by the names of these.
FACTS = ("requirements", "outlines")
_SINGULAR = {kind: "loss" if kind == "losses" else kind.removesuffix("s") for kind in KINDS}
#: The plugin of a method that is given as an object.
GIVEN = "(given)"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*(/\*)?\Z")


@dataclass(frozen=True)
class Entry:
    """An object of a catalog: its name, its factory, and the plugin that provides it."""

    name: str
    factory: Any  # a callable, or a Family of callables
    plugin: str
    version: str

    @property
    def doc(self) -> str:
        """The first line of the factory's docstring."""
        return FactoryInfo(self.factory).doc.strip().split("\n")[0]

    @property
    def summary(self) -> str:
        """The same line without the markup of documentation, for terminals."""
        return without_markup(self.doc)

    @property
    def card(self) -> Card:
        """The card of a method; the default card if its factory has none."""
        return FactoryInfo(self.factory).card or Card()


@dataclass(frozen=True)
class Plugin:
    """A plugin and the names that it provides; ``reason`` says why it did not load and is empty if it did."""

    name: str
    version: str
    origin: str
    offers: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class Zoo:
    """The catalogs of backbones, heads, losses, methods, datasets, metrics, launchers and trackers, by name."""

    backbones: dict[str, Entry] = field(default_factory=dict)
    heads: dict[str, Entry] = field(default_factory=dict)
    losses: dict[str, Entry] = field(default_factory=dict)
    methods: dict[str, Entry] = field(default_factory=dict)
    datasets: dict[str, Entry] = field(default_factory=dict)
    metrics: dict[str, Entry] = field(default_factory=dict)
    launchers: dict[str, Entry] = field(default_factory=dict)
    trackers: dict[str, Entry] = field(default_factory=dict)
    requirements: dict[str, Entry] = field(default_factory=dict)
    outlines: dict[str, Entry] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)
    extra: tuple[str, ...] = ()  # plugin files and modules that were given by the user
    definitions: dict[str, bytes] = field(default_factory=dict)  # pickled factories of :meth:`define`

    def define(self, name: str, factory: Callable[..., Any]) -> None:
        """Add a method that is given as an object and not by a plugin.

        It is pickled by cloudpickle, by value if it is defined in a notebook or script, and travels to workers with
        their jobs. UsageError if the name is taken or malformed, or the factory cannot be pickled.
        """
        if not NAME.match(name):
            raise UsageError(f"{name!r} is not a method name; use lower-case letters, digits, hyphens and dots")
        if name in self.methods:
            raise UsageError(f"method {name!r} exists already, in {self.methods[name].plugin}; choose another name")
        _check_offer("methods", name, factory)
        import cloudpickle

        try:
            self.definitions[name] = cloudpickle.dumps(factory)
        except Exception as error:
            raise UsageError(f"method {name!r} cannot be sent to a worker process: {first_line(error)}") from error
        self.methods[name] = Entry(name, factory, GIVEN, "")

    def catalogue(self, kind: str) -> dict[str, Entry]:
        """The entries of one of ``KINDS`` or ``FACTS``, by name."""
        entries: dict[str, Entry] = getattr(self, kind)
        return entries

    def backbone(self, name: str) -> Entry:
        """The backbone of this name, which can be ``family/name``. Raises UsageError if there is none."""
        if name in self.backbones:
            return self.backbones[name]
        prefix, _, member = name.partition("/")
        entry = self.backbones.get(f"{prefix}/*")
        if entry is None or (family := FactoryInfo(entry.factory).family) is None:
            raise UsageError(self.unknown("backbone", name, self.backbones))
        if member not in (members := family.names()):
            raise UsageError(unknown_name("backbone", name, [f"{prefix}/{one}" for one in members]))
        return replace(entry, name=name, factory=partial(family.build, member))

    def dataset(self, name: str) -> Entry:
        """The dataset of this name, of which training images can be held out. Raises UsageError if there is none."""
        plain, held = held_out.parse(name)
        entry = self._find("dataset", plain, self.datasets)
        return replace(entry, name=name, factory=HeldOutDataset(entry.factory, held)) if held else entry

    def method(self, name: str) -> Entry:
        """The method of this name, or the composition ``head+loss``. Raises UsageError if there is none."""
        if name in self.methods or name.count("+") != 1:
            entry = self._find("method", name, self.methods)
        else:
            entry = self._compose(name)
        if composition := FactoryInfo(entry.factory).composition:
            return replace(entry, factory=self._bind(composition, name))
        return entry

    def launcher(self, name: str) -> Entry:
        """The launcher of this name. Raises UsageError if there is none."""
        return self._find("launcher", name, self.launchers)

    def tracker(self, name: str) -> Entry:
        """The tracker of this name. Raises UsageError if there is none."""
        return self._find("tracker", name, self.trackers)

    def match_methods(self, patterns: Iterable[str]) -> list[str]:
        """The names of the methods that names and wildcard patterns select, in this order, each once.

        Raises UsageError for a name or pattern that selects no method.
        """
        selected: dict[str, None] = {}
        for pattern in patterns:
            if any(letter in pattern for letter in "*?["):
                names = [name for name in sorted(self.methods) if fnmatchcase(name, pattern)]
                if not names:
                    known = ", ".join(sorted(self.methods))
                    raise UsageError(f"no method matches {pattern!r}; there are: {known}{self._not_loaded()}")
            else:
                names = [self.method(pattern).name]
            selected |= dict.fromkeys(names)
        return list(selected)

    def code_digests(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
        """The digests of the code of methods and backbones, by name; None for one that is not installed."""
        return {pair: self._code_digest(*pair) for pair in pairs}

    def _code_digest(self, method: str, backbone: str) -> str | None:
        try:
            return code_digest(self.method(method).factory, self.backbone(backbone).factory)
        except HashzooError:
            return None

    def unmet(self, method: str, facts: TrainingFacts) -> str:
        """Why a method cannot train, by the requirements of its name, or of its head and its loss; else empty.

        A requirement that raises is passed over: the method itself is asked when its cell runs.
        """
        for name in dict.fromkeys([method, *method.split("+")]):
            reason = ""
            if name in self.requirements:
                with suppress(Exception):
                    reason = str(self.requirements[name].factory(facts) or "").partition("\n")[0]
            if reason:
                return reason if method in reason else f"{method}: {reason}"
        return ""

    def outline(self, kind: str, name: str, values: Mapping[str, Any]) -> Outline | None:
        """What is known of a dataset or backbone with these options; None if its plugin says nothing, or raises."""
        family = f"{name.partition('/')[0]}/*"
        entry = self.outlines.get(name) or (self.outlines.get(family) if kind == "backbone" else None)
        with suppress(Exception):
            known = entry.factory(name, values) if entry else None
            return known if isinstance(known, Outline) else None
        return None

    def metric_functions(self) -> dict[str, Any]:
        """The metrics of plugins by name: functions of counts, and :class:`hashzoo.CodeMetric`."""
        return {name: entry.factory for name, entry in self.metrics.items()}

    def unknown(self, kind: str, name: str, known: Iterable[str]) -> str:
        """The message for a name that does not exist: the closest name, and the plugins that did not load."""
        known, hint = sorted(known), self._not_loaded()
        if members := [one for one in known if one.startswith((f"{name}.", f"{name}/"))]:
            return f"no {kind} {name!r}; choose one of: {', '.join(members)}{hint}"
        return unknown_name(kind, name, known) + hint

    def _not_loaded(self) -> str:
        failed = [plugin.name for plugin in self.plugins if plugin.reason]
        return f" ({', '.join(failed)} did not load: see hashzoo list plugins)" if failed else ""

    def _find(self, kind: str, name: str, entries: Mapping[str, Entry]) -> Entry:
        if name not in entries:
            raise UsageError(self.unknown(kind, name, entries))
        return entries[name]

    def _compose(self, name: str) -> Entry:
        head, loss = name.split("+")
        for kind, part, known in (("head", head, self.heads), ("loss", loss, self.losses)):
            if part not in known:
                raise UsageError(f"{name}: {self.unknown(kind, part, known)}")
        composition = deep(head, loss, doc=f"the head {head} trained with the loss {loss}")
        plugins = sorted({self.heads[head].plugin, self.losses[loss].plugin})
        return Entry(name, composition, " + ".join(plugins), self.losses[loss].version)

    def _bind(self, composition: Composition, name: str) -> Composition:
        heads, losses = ({n: entry.factory for n, entry in part.items()} for part in (self.heads, self.losses))
        try:
            return composition.bind(heads, losses)
        except ComposeError as error:
            raise UsageError(f"method {name}: {error}") from error


def load_plugins(extra: Iterable[str] = (), definitions: Mapping[str, bytes] | None = None) -> Zoo:
    """Load the built-in plugins, then installed ones (unless ``HASHZOO_PLUGINS=off``), then ``extra``.

    Args:
        extra: Plugin files or modules that are loaded in addition, as by ``--plugin``.
        definitions: Methods given as objects, as :meth:`Zoo.define` pickled them.

    Returns:
        The zoo. An installed plugin that does not load is listed in ``zoo.plugins`` with the reason.

    Raises:
        UsageError: If one of ``extra`` does not load.
    """
    provide_library_caches()
    zoo = Zoo(extra=tuple(extra))
    for point in installed_plugins():
        if point.package != "hashzoo" and os.environ.get("HASHZOO_PLUGINS", "").lower() == "off":
            continue
        name = point.package if point.package == "hashzoo" else f"{point.package}:{point.name}"
        _add_plugin(zoo, Plugin(name, point.version, point.value), point.load)
    for given in zoo.extra:
        plugin = _add_plugin(zoo, Plugin(given, "", given), partial(load_module, given))
        if plugin.reason:
            raise UsageError(f"--plugin {given}: {plugin.reason}")
    for name, pickled in (definitions or {}).items():
        import cloudpickle

        zoo.methods[name] = Entry(name, cloudpickle.loads(pickled), GIVEN, "")
        zoo.definitions[name] = pickled
    return zoo


@dataclass(frozen=True, order=True)
class InstalledPlugin:
    """An entry point, in the order in which plugins are loaded."""

    foreign: bool
    package: str
    name: str
    value: str
    version: str
    load: Callable[[], Any] = field(compare=False)


def installed_plugins() -> list[InstalledPlugin]:
    """The plugins of installed packages, each once: those of hashzoo first, then by package and name."""
    packages: dict[Any, tuple[str, str]] = {}  # a distribution parses its metadata whenever its name is read
    found = {}
    for point in importlib.metadata.entry_points(group="hashzoo"):
        if point.dist not in packages:
            packages[point.dist] = (point.dist.name, point.dist.version) if point.dist else ("?", "")
        package, version = packages[point.dist]
        plugin = InstalledPlugin(package != "hashzoo", package, point.name, point.value, version, point.load)
        found[package, point.name, point.value] = plugin
    return sorted(found.values())


def _add_plugin(zoo: Zoo, plugin: Plugin, load: Callable[[], Any]) -> Plugin:
    """Add everything that a plugin provides to the zoo or, if any of it is invalid, only the reason."""
    try:
        offers = _read_hooks(load())
        _refuse_duplicates(zoo, plugin.name, offers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # loading runs the plugin's code, which can even call sys.exit
        plain, text = isinstance(error, EnvironmentFailure | UsageError), first_line(error)
        plugin = replace(plugin, reason=text if plain else f"{type(error).__name__}: {text}")
    else:
        for kind, factories in offers.items():
            zoo.catalogue(kind).update(
                {name: Entry(name, factory, plugin.name, plugin.version) for name, factory in factories.items()}
            )
        plugin = replace(
            plugin,
            offers=tuple(f"{_SINGULAR[kind]} {name}" for kind in offers if kind in KINDS for name in offers[kind]),
        )
    zoo.plugins.append(plugin)
    return plugin


def _read_hooks(module: Any) -> dict[str, dict[str, Any]]:
    """The factories that the hooks of a plugin return, by kind and name.

    Raises UsageError for a hook that does not exist, an invalid name or factory, and a plugin without hooks.
    """
    manager = pluggy.PluginManager("hashzoo")  # one for each plugin, so that none can affect another
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    hooks = [name for name in dir(hookspecs) if name.startswith("hashzoo_")]
    for name, function in inspect.getmembers(module, inspect.isroutine):
        if getattr(function, "hashzoo_impl", None) and name not in hooks:
            raise UsageError(unknown_name("hook", name, hooks))
    callers = manager.get_hookcallers(module) or []
    if not callers:
        plain = [name for name in dir(module) if name.startswith("hashzoo_") and callable(getattr(module, name))]
        hint = f"decorate {plain[0]} with @hashzoo.hookimpl" if plain else "see the hooks in hashzoo.hookspecs"
        raise UsageError(f"it has no hook; {hint}")
    offers: dict[str, dict[str, Any]] = {}
    for caller in callers:
        for factories in caller():
            if not isinstance(factories, dict):
                raise UsageError(
                    f"{caller.name} must return a dict, not {type(factories).__name__}: return {{'my-name': MyClass}}"
                )
            for name, factory in factories.items():
                _check_offer(caller.name, name, factory)
            kind = caller.name.removeprefix("hashzoo_")
            offers.setdefault("trackers" if kind == "finished" else kind, {}).update(factories)
    return offers


def _check_offer(hook: str, name: Any, factory: Any) -> None:
    """Raise UsageError for an invalid name, or a factory that cannot be called or whose options cannot be read."""
    if not isinstance(name, str) or not NAME.match(name):
        raise UsageError(f"{hook} offers {name!r}; a name must match [a-z0-9][a-z0-9_.-]*")
    info = FactoryInfo(factory)
    if not callable(factory) and not info.family:
        raise UsageError(f"{hook} offers {name!r}, which cannot be called")
    if hook.removeprefix("hashzoo_") in ("metrics", *FACTS) or info.family or info.composition:
        return
    try:
        options(factory)  # now, since a benchmark of all methods would fail later
    except Exception as error:
        raise UsageError(f"{hook} offers {name!r}, whose options cannot be read: {first_line(error)}") from error


def _refuse_duplicates(zoo: Zoo, plugin: str, offers: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, factories in offers.items():
        known = zoo.catalogue(kind)
        for name in factories:
            if name in known:
                raise UsageError(
                    f"{kind} {name!r} is offered by both {known[name].plugin} and {plugin}; rename one of them"
                )
