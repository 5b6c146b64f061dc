"""Plugin source files: how they are loaded, and the digest of the code that can change a score."""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.factory import FactoryInfo
from hashzoo.registry.syntax import Syntax, joined, reduced
from hashzoo.storage.files import disk_errors, expand_user, sha256


def load_module(given: str) -> ModuleType:
    """The module of ``--plugin``: a file's path, or a dotted name."""
    path = expand_user(Path(given))
    if path.suffix != ".py" and not path.exists():
        return importlib.import_module(given)
    if not path.is_file():
        raise EnvironmentFailure(f"there is no file {given}")
    name = f"hashzoo_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{sha256(str(path.resolve()).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EnvironmentFailure(f"{given} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look up their module there
    spec.loader.exec_module(module)
    return module


def code_digest(*factories: Any) -> str:
    """The digest of the code of factories, 16 hexadecimal digits; part of the identity of a cell.

    It is the digest of the syntax trees of the modules that define the factories, and of the modules of the same
    packages that these import, directly or not. Comments, formatting, docstrings, annotations, imports of hashzoo,
    imports that only annotations use, names of files and error messages do not change it; error messages because no
    score can depend on them (see :func:`hashzoo.registry.syntax.reduced`). Anything else does: a constant, operator,
    name, default, decorator, field of a dataclass, or the order of statements.

    Not part of it are hashzoo itself, for which the protocol version stands, other packages, and an imported
    ``__init__.py``, which only lists names. Raises UsageError for a factory without readable source, and
    EnvironmentFailure for a file that cannot be read or is not valid Python.
    """
    sources = _Sources(factories)
    return sha256("\n".join([*sources.definitions, joined(sources.modules)]).encode())[:16]


def source_files(*factories: Any) -> list[Path]:
    """The files that :func:`code_digest` depends on, those that define the factories first."""
    return list(_Sources(factories).files.values())


class _Sources:
    """The modules that define factories, then those of the same packages that these import, in order of imports."""

    def __init__(self, factories: Iterable[Any]) -> None:
        self.modules: dict[str, Syntax] = {}
        self.files: dict[str, Path] = {}
        described = [(text, self._define(part)) for factory in factories for text, part in FactoryInfo(factory).parts()]
        places = {name: place for place, name in enumerate(self.modules)}
        #: What is run first: each factory, and the place of its module.
        self.definitions = [f"{text} in {places.get(name)}" for text, name in described]
        queue = list(self.modules)
        for name in queue:
            queue += self._import(name)

    def _define(self, part: Any) -> str:
        """Add the module that defines a factory, and return its name."""
        module = inspect.getmodule(part)
        name = module.__name__ if module else ""
        if module is None or name.partition(".")[0] == "hashzoo" or name in self.modules:
            return name
        file = getattr(module, "__file__", None)
        if file and Path(file).suffix == ".py":
            self._add(name, Path(file))
        elif not file and name not in sys.builtin_module_names:
            name, source = _interactive_source(part)
            self.modules.setdefault(name, reduced(source, name, ""))
        return name

    def _add(self, name: str, file: Path) -> None:
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        with disk_errors("read", file):
            source = file.read_bytes()
        try:
            self.modules[name] = reduced(source, name, package)
        except SyntaxError as error:
            raise EnvironmentFailure(f"{file} is not valid Python: {error.msg} (line {error.lineno})") from error
        self.files[name] = file

    def _import(self, name: str) -> list[str]:
        """Add the modules of the same package that a module imports, and return their names."""
        root, added = name.partition(".")[0], list[str]()
        for one in self.modules[name].imports:
            if one.module.partition(".")[0] != root:
                continue
            for other in (f"{one.module}.{one.name}", one.module):
                file = None if other in self.modules else _file_of(other)
                if file and file.name != "__init__.py":
                    self._add(other, file)
                    added.append(other)
        return added


def _file_of(name: str) -> Path | None:
    """The source file of a module by its name, whether it is imported yet or not."""
    root, *below = name.split(".")
    for folder in getattr(sys.modules.get(root), "__path__", ()):
        for path in (Path(folder, *below, "__init__.py"), Path(folder, *below).with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _interactive_source(part: Any) -> tuple[str, bytes]:
    """The notebook cell that defines a function or class, as its name and source."""
    members = vars(part).values() if inspect.isclass(part) else [part]
    for function in filter(inspect.isfunction, members):
        if lines := linecache.getlines(function.__code__.co_filename):
            return function.__code__.co_filename, "".join(lines).encode()
    name = getattr(part, "__qualname__", repr(part))
    raise UsageError(f"the source of {name} cannot be read, so its results have no key; define it in a file")
