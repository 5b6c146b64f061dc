"""Writes a small working plugin from the templates in the folder ``templates``: a package or one file."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hashzoo._version import __version__
from hashzoo.errors import EnvironmentFailure, UsageError

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*\Z")


@dataclass(frozen=True)
class NewPlugin:
    """The files that were written, and commands to try them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]


def new(name: str, kind: str, one_file: bool, into: Path) -> NewPlugin:
    """Write a plugin into a folder: all of its files, or none if one cannot be written.

    Args:
        name: The name of the package, and of what it provides.
        kind: "loss", "head", "method", "backbone" or "dataset".
        one_file: Whether to write one file for ``--plugin`` instead of a package.
        into: The folder that the package or file is written to.

    Raises:
        UsageError: If the name is invalid or taken, or the files exist.
        EnvironmentFailure: If a file cannot be written.
    """
    module = name.replace("-", "_")
    target = into / (f"{module}.py" if one_file else name)
    _check_name(name, kind, module, target)
    words = _words(name, kind, module, one_file)
    code = _render_file(f"{kind}.py.jinja", words)
    if one_file:
        _write(target, {"": code})
        file = shlex.quote(str(target))
        bench = f"hashzoo bench digits --quick --plugin {file} {words['bench']}"
        return NewPlugin((target,), (f"hashzoo check {file}", bench))
    texts = {
        "pyproject.toml": _render_file("pyproject.toml.jinja", words),
        "README.md": _render_file("README.md.jinja", words),
        f"src/{module}/__init__.py": f'"""{words["summary"]}"""\n',
        f"src/{module}/plugin.py": code,
        f"tests/test_{module}.py": _render_file(f"test_{kind}.py.jinja", words),
    }
    _write(target, texts)
    folder = shlex.quote(str(target))
    commands = (
        f"pip install -e {folder if '/' in folder else './' + folder}",
        f"hashzoo check {words['offers']}",
        f"hashzoo bench digits --quick {words['bench']}",
        f"pytest {folder}",
    )
    return NewPlugin(tuple(target / path for path in texts), commands)


def _words(name: str, kind: str, module: str, one_file: bool) -> dict[str, Any]:
    """The variables of the templates."""
    words: dict[str, Any] = {
        "name": name,
        "module": module,
        "title": _class_name(module),
        "kind": kind,
        "version": __version__,
        "one_file": one_file,
        "article": "an" if kind[0] in "aeiou" else "a",
    }
    return words | {key: _render(text, words) for key, text in _kinds()[kind].items()}


def _kinds() -> dict[str, dict[str, str]]:
    return tomllib.loads((TEMPLATES / "kinds.toml").read_text(encoding="utf-8"))


def _check_name(name: str, kind: str, module: str, target: Path) -> None:
    """Raise UsageError for an invalid name, a name of other code, and files that exist."""
    if not NAME.match(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f"; try {near!r}" if NAME.match(near) else ""
        raise UsageError(f"invalid name {name!r}: use lower-case letters and digits, joined by hyphens{hint}")
    if target.exists() or target.is_symlink():
        what = "folder" if target.is_dir() else "file"
        raise UsageError(f"the {what} {target} exists; choose another name or folder (--into), or remove it")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or _importable(module):
        raise UsageError(f"invalid name {name!r}: import {module} imports other code; try {name}-{kind}")
    code = (TEMPLATES / f"{kind}.py.jinja").read_text(encoding="utf-8")
    if re.search(rf"^(from|import) .*\b{_class_name(module)}\b", code, re.M):
        raise UsageError(f"invalid name {name!r}: its class would hide {_class_name(module)}; try {name}-{kind}")
    from hashzoo.registry.zoo import load_plugins  # here, since it imports torch

    catalogue = {"loss": "losses"}.get(kind, f"{kind}s")
    offered = _render(_kinds()[kind]["offers"], {"name": name})
    if offered in (known := load_plugins().catalogue(catalogue)):
        raise UsageError(f"the {kind} {offered!r} of {known[offered].plugin} exists; choose another name")


def _class_name(module: str) -> str:
    """The name of the class: ``far_apart`` gives ``FarApart``."""
    return "".join(part.capitalize() for part in module.split("_"))


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return True


def _render_file(file: str, words: dict[str, Any]) -> str:
    return _render((TEMPLATES / file).read_text(encoding="utf-8"), words)


def _render(text: str, words: dict[str, Any]) -> str:
    # the templates make Python, TOML and Markdown, so HTML must not be escaped
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # nosec B701
    return environment.from_string(text).render(words)


def _write(target: Path, texts: dict[str, str]) -> None:
    """Write a file, or all files of a folder, under a temporary name, and rename it once everything is written."""
    temporary = target.with_name(f".{target.name}.new")
    try:
        for path, text in texts.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
        temporary.rename(target)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise EnvironmentFailure(f"cannot write {target}: {why}; choose another folder with --into") from error
    finally:
        temporary.unlink() if temporary.is_file() else shutil.rmtree(temporary, ignore_errors=True)
