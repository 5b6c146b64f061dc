"""A plugin to start from, written from the templates in the folder ``templates``: a package, or one file."""

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
class Made:
    """The files that were written, and the commands that try them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]


def new(name: str, kind: str, one_file: bool, into: Path) -> Made:
    """Write the plugin ``name`` of a kind (``loss``, ``head``, ``method``, ``backbone``, ``dataset``) below ``into``.

    UsageError for a name that cannot be one, or is taken, and for files that exist; EnvironmentFailure where a file
    cannot be written. Either all files are there afterwards or none.
    """
    module = name.replace("-", "_")
    target = into / (f"{module}.py" if one_file else name)
    _insist(name, kind, module, target)
    words: dict[str, Any] = {
        "name": name,
        "module": module,
        "title": _title(module),
        "kind": kind,
        "version": __version__,
        "one_file": one_file,
        "article": "an" if kind[0] in "aeiou" else "a",
    }
    words |= {key: _rendered(text, words) for key, text in _kinds()[kind].items()}
    code = _template(f"{kind}.py.jinja", words)
    if one_file:
        _put(target, {"": code})
        file = shlex.quote(str(target))
        return Made(
            (target,), (f"hashzoo check {file}", f"hashzoo bench digits --quick --plugin {file} {words['bench']}")
        )
    texts = {
        "pyproject.toml": _template("pyproject.toml.jinja", words),
        "README.md": _template("README.md.jinja", words),
        f"src/{module}/__init__.py": f'"""{words["summary"]}"""\n',
        f"src/{module}/plugin.py": code,
        f"tests/test_{module}.py": _template(f"test_{kind}.py.jinja", words),
    }
    _put(target, texts)
    folder = shlex.quote(str(target))
    commands = (
        f"pip install -e {folder if '/' in folder else './' + folder}",
        f"hashzoo check {words['offers']}",
        f"hashzoo bench digits --quick {words['bench']}",
        f"pytest {folder}",
    )
    return Made(tuple(target / path for path in texts), commands)


def _kinds() -> dict[str, dict[str, str]]:
    return tomllib.loads((TEMPLATES / "kinds.toml").read_text(encoding="utf-8"))


def _insist(name: str, kind: str, module: str, target: Path) -> None:
    """UsageError for a name that is none, that other code has, or whose files are there."""
    if not NAME.match(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f"; {near!r} would do" if NAME.match(near) else ""
        raise UsageError(f"{name!r} cannot be a name: lower-case letters and digits, joined by hyphens{hint}")
    if target.exists() or target.is_symlink():
        what = "folder" if target.is_dir() else "file"
        raise UsageError(f"the {what} {target} exists; take another name, remove it, or choose a place by --into")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or _importable(module):
        raise UsageError(f"{name!r} cannot be a name: import {module} would mean other code; try {name}-{kind}")
    code = (TEMPLATES / f"{kind}.py.jinja").read_text(encoding="utf-8")
    if re.search(rf"^(from|import) .*\b{_title(module)}\b", code, re.M):
        raise UsageError(f"{name!r} cannot be a name: its class would hide {_title(module)}; try {name}-{kind}")
    from hashzoo.registry import zoo  # imports torch, which an error above must not wait for

    catalogue = {"loss": "losses"}.get(kind, f"{kind}s")
    offered = _rendered(_kinds()[kind]["offers"], {"name": name})
    if offered in (known := zoo.load_plugins().catalogue(catalogue)):
        raise UsageError(f"there is a {kind} {offered!r} already, of {known[offered].plugin}; take another name")


def _title(module: str) -> str:
    """The name of the class: ``far_apart`` gives ``FarApart``."""
    return "".join(part.capitalize() for part in module.split("_"))


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return True


def _template(file: str, words: dict[str, Any]) -> str:
    return _rendered((TEMPLATES / file).read_text(encoding="utf-8"), words)


def _rendered(text: str, words: dict[str, Any]) -> str:
    # the templates are ours, and what they make is Python, TOML and Markdown: nothing is to be escaped as HTML
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # nosec B701
    return environment.from_string(text).render(words)


def _put(target: Path, texts: dict[str, str]) -> None:
    """A file, or all files below a folder, or nothing: they are written beside it, and moved in one step."""
    beside = target.with_name(f".{target.name}.new")
    try:
        for path, text in texts.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(text, encoding="utf-8")
        beside.rename(target)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise EnvironmentFailure(f"cannot write {target}: {why}; choose another place by --into") from error
    finally:
        beside.unlink() if beside.is_file() else shutil.rmtree(beside, ignore_errors=True)
