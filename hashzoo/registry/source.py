"""Plugin source files: how they are loaded, and the digest of the code that can change a score."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from hashzoo.errors import EnvironmentFailure
from hashzoo.method import Composition


def load_module(given: str) -> ModuleType:
    """The module of ``--plugin``: a file's path, or a dotted name."""
    path = Path(given)
    if path.suffix != ".py" and not path.exists():
        return importlib.import_module(given)
    if not path.is_file():
        raise EnvironmentFailure(f"there is no file {given}")
    name = f"hashzoo_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{_digest(str(path.resolve()).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EnvironmentFailure(f"{given} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    spec.loader.exec_module(module)
    return module


def code_digest(*factories: Any) -> str:
    """A digest of the source that factories are made of: their modules, and what those import of their own package.

    The core is not part of it (the protocol version stands for it), nor are other packages.
    """
    # by file name, not by module name: the module of a --plugin file is named after where the file lies
    total = "".join(f"{path.name} {_digest(path.read_bytes())}\n" for path in source_files(*factories))
    return _digest(total.encode())[:16]


def source_files(*factories: Any) -> list[Path]:
    """The files that :func:`code_digest` is of, ordered by the names of their modules."""
    files: dict[str, Path] = {}
    for factory in factories:
        if isinstance(factory, Composition):
            parts: list[Any] = [factory.head, factory.loss]
        else:
            parts = [factory.func if isinstance(factory, partial) else factory]
        for part in parts:
            if module := inspect.getmodule(part):
                _collect(module, files)
    return [path for _, path in sorted(files.items())]


def _collect(module: ModuleType, files: dict[str, Path]) -> None:
    name, file = module.__name__, getattr(module, "__file__", None)
    root = name.split(".")[0]
    if name in files or root == "hashzoo" or not file or Path(file).suffix != ".py":
        return
    if Path(file).name == "__init__.py" and files:  # it only lists names: a new neighbour changes no score
        return
    files[name] = Path(file)
    for node in ast.walk(ast.parse(Path(file).read_bytes())):
        wanted: list[str] = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = name.rsplit(".", node.level)[0] + (f".{node.module}" if node.module else "")
            wanted = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for other in wanted:
            if other.split(".")[0] == root and other in sys.modules and other != root:
                _collect(sys.modules[other], files)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
