"""The publications that plugins cite, as BibTeX entries.

A docstring cites by a section ``Cite:``, which holds keys of entries in a file ``references.bib``, or the entries
themselves, indented::

    Cite: somebody2024

    Cite:

        @inproceedings{somebody2024,
          author = {Some Body},
          title = {A Loss},
          booktitle = {A Conference},
          year = {2024},
        }

The docstring is that of the class or function that a hook returns or, if it cites nothing, that of its module. The
file lies in the folder of the module, or in a folder above it inside the same package. Docstrings are not part of the
digest of a plugin's code, so that a citation can be corrected without measuring again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.factory import FactoryInfo
from hashzoo.registry.bibtex import BibEntry, parse
from hashzoo.registry.zoo import Entry, Zoo

#: The kinds of things that are cited by name.
KINDS = ("methods", "losses", "heads", "backbones", "metrics", "datasets")
BIBLIOGRAPHY = "references.bib"

_SECTION = re.compile(r"^Cite:(?P<keys>.*(?:\n(?=\S).*)*)(?P<entries>(?:\n(?:[ \t].*)?(?=\n|\Z))*)", re.MULTILINE)


def match(zoo: Zoo, patterns: Iterable[str]) -> dict[str, list[Entry]]:
    """What names and wildcard patterns select, by name: a method, a loss, a head, ... or several of one name.

    ``head+loss`` and ``family/name`` are names, too. Raises UsageError for a name or pattern that selects nothing.
    """
    known = sorted({name for kind in KINDS for name in zoo.catalogue(kind)})
    selected: dict[str, list[Entry]] = {}
    for pattern in patterns:
        if names := [name for name in known if fnmatchcase(name, pattern)]:
            selected |= {name: _entries(zoo, name) for name in names}
        elif "+" in pattern:
            selected[pattern] = [zoo.method(pattern)]
        elif "/" in pattern:
            selected[pattern] = [zoo.backbone(pattern)]
        else:
            raise UsageError(zoo.unknown("method, loss, head, backbone, metric or dataset", pattern, known))
    return selected


def _entries(zoo: Zoo, name: str) -> list[Entry]:
    kinds = [kind for kind in KINDS if name in zoo.catalogue(kind)]
    return [zoo.method(name) if kind == "methods" else zoo.catalogue(kind)[name] for kind in kinds]


def citations(factories: Iterable[Any]) -> list[BibEntry]:
    """The publications that factories cite, each once, in the order of the docstrings.

    Args:
        factories: What hooks return: classes, functions, partials, families, metrics, or what :func:`hashzoo.deep`
            returns, for which its head and its loss are cited.

    Raises:
        UsageError: If a section ``Cite:`` has an invalid entry, or a key that no ``references.bib`` has.
        EnvironmentFailure: If the file cannot be read.
    """
    found: dict[str, BibEntry] = {}
    for factory in factories:
        info = FactoryInfo(factory)
        parts = [part for _, part in FactoryInfo(info.family.build if info.family else factory).parts()]
        cited = [entry for part in parts for entry in _of_part(part)]
        if info.composition:  # a publication of its own comes first
            modules = [module for part in parts if (module := _module(part))]
            cited = [*_cited(info.doc, modules, f"the doc of {info.doc.split(chr(10))[0]!r}"), *cited]
        for entry in cited:
            found.setdefault(entry.key, entry)
    return list(found.values())


def section(text: str) -> re.Match[str] | None:
    """The section ``Cite:`` of a docstring, with the groups ``keys`` and ``entries``.

    >>> found = section("What it is.\\n\\nCite: one2020, two2021")
    >>> found["keys"].strip() if found else None
    'one2020, two2021'
    """
    return _SECTION.search(text)


def _of_part(part: Any) -> list[BibEntry]:
    """What a class or function cites or, if it cites nothing, its module."""
    part = getattr(part, "function", part)  # that of a metric of codes
    module = _module(part)
    if module is None:
        return []
    own = getattr(part, "__doc__", None) or ""  # not inspect.getdoc, which would give that of a base class
    name = getattr(part, "__qualname__", type(part).__qualname__)
    place = getattr(module, "__file__", None) or module.__name__
    return _cited(own, [module], f"{place}, {name}") or _cited(module.__doc__ or "", [module], place)


def _module(part: Any) -> ModuleType | None:
    return sys.modules.get(getattr(part, "__module__", None) or "")


def _cited(doc: str, modules: Sequence[ModuleType], where: str) -> list[BibEntry]:
    """The entries that a docstring cites, from files beside the modules; ``where`` names it in messages."""
    found = section(cleandoc(doc))
    if not found:
        return []
    try:
        own = parse(dedent(found["entries"]))
    except ValueError as error:
        raise UsageError(f"{where}: invalid BibTeX in the section Cite:, {error}") from error
    keys = re.split(r"[\s,]+", found["keys"].strip(" \n.,"))
    return [_find(key, modules, where) for key in keys if key] + own


def _find(key: str, modules: Sequence[ModuleType], where: str) -> BibEntry:
    files = [file for module in modules for file in _bibliographies(module)]
    for file in files:
        if key in (entries := _read(file, file.stat().st_mtime_ns)):
            return entries[key]
    place = f"{files[0]} does not have it" if files else f"there is no {BIBLIOGRAPHY} beside its module"
    raise UsageError(f"{where} cites {key!r}, but {place}; add the entry, or correct the key")


def _bibliographies(module: ModuleType) -> list[Path]:
    """The files that a docstring of a module can refer to, the nearest first."""
    file = getattr(module, "__file__", None)
    if not file:
        return []
    package = getattr(module, "__package__", None) or ""
    folders = list(Path(file).resolve().parents)[: package.count(".") + 1]
    return [path for folder in folders if (path := folder / BIBLIOGRAPHY).is_file()]


@lru_cache(maxsize=64)
def _read(file: Path, changed: int) -> Mapping[str, BibEntry]:
    """The entries of a file by key; ``changed`` is the time of its last change."""
    try:
        entries = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # invalid UTF-8 included
        raise UsageError(f"{file}, {error}") from error
    return {entry.key: entry for entry in entries}
