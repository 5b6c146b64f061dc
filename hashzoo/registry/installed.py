"""The digests of installed code, looked up without importing plugins as long as their files do not change."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hashzoo.errors import EnvironmentFailure
from hashzoo.results.leaderboard import InstalledCode
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.files import canonical_json, replace_bytes, sha256

Pair = tuple[str, str]


def installed_code(plugins: Sequence[str] = ()) -> InstalledCode:
    """A function that returns the digests of methods and backbones, by their names; None for one that is not installed.

    Plugins are imported, and torch with them, only for digests that are not in the cache folder. The cache is valid
    until a source file of a plugin, the set of installed plugins, or hashzoo changes.

    Args:
        plugins: Further plugins, as given to ``--plugin``.
    """
    return lambda pairs: _lookup(pairs, plugins)


def _lookup(pairs: Collection[Pair], plugins: Sequence[str]) -> Mapping[Pair, str | None]:
    state = sha256(canonical_json(list(_state(plugins))).encode())
    known = _read(state)
    if missing := [pair for pair in pairs if pair not in known]:
        from hashzoo.registry.zoo import load_plugins

        known |= load_plugins(plugins).code_digests(missing)
        _write(state, known)
    return {pair: known[pair] for pair in pairs}


def _state(plugins: Sequence[str]) -> Iterator[list[str | int]]:
    """What the digests depend on: installed plugins, and the size and time of change of their files and hashzoo's."""
    yield [sys.version, os.environ.get("HASHZOO_PLUGINS", "")]
    names = set(plugins)
    for point in importlib.metadata.entry_points(group="hashzoo"):
        yield [point.name, point.value, point.dist.version if point.dist else ""]
        names.add(point.value)
    for name in sorted(
        {name if Path(name).suffix == ".py" else name.partition(".")[0] for name in names} | {"hashzoo"}
    ):
        for file in _files(name):
            status = file.stat()
            yield [str(file), status.st_mtime_ns, status.st_size]


def _files(name: str) -> list[Path]:
    """The Python files of a top-level package or module, or of a path."""
    path = Path(name)
    if path.suffix == ".py":
        return [path.resolve()] if path.is_file() else []
    spec = importlib.util.find_spec(name.partition(":")[0])
    folders = list(spec.submodule_search_locations or ()) if spec else []
    single = [Path(spec.origin)] if spec and spec.origin and not folders else []
    return sorted([*single, *(file for folder in folders for file in Path(folder).rglob("*.py"))])


def _cache_file() -> Path:
    return cache_folder() / "code-digests.json"


def _read(state: str) -> dict[Pair, str | None]:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        stored = json.loads(_cache_file().read_bytes())
        if stored["state"] == state:
            return {(method, backbone): digest for method, backbone, digest in stored["digests"]}
    return {}


def _write(state: str, digests: Mapping[Pair, str | None]) -> None:
    content = {"state": state, "digests": [[*pair, digest] for pair, digest in sorted(digests.items())]}
    with suppress(OSError, EnvironmentFailure):  # without a cache, the next lookup imports the plugins again
        cache_folder().mkdir(parents=True, exist_ok=True)
        replace_bytes(_cache_file(), json.dumps(content).encode())
