"""The page that says what each module of the core holds, made from the first paragraph of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

INTRODUCTION = """# Modules

What each room of the core and each of its modules holds. The rooms are in the order of their imports: a module imports
from its own room and from rooms below it. [Architecture](architecture.md) explains how they work together.
"""


def write(core: Path, page: Path, order: list[str]) -> None:
    """Write the page.

    Args:
        core: The folder of the package.
        page: The file to write.
        order: The rooms in the order of the page.
    """
    parts = [INTRODUCTION]
    for room in order:
        rows = [f"| `{file.name}` | {promise(file)} |" for file in sorted((core / room).glob("[!_]*.py"))]
        parts.append(f"## {room}\n\n{promise(core / room / '__init__.py')}\n\n| module | holds |\n|---|---|")
        parts[-1] += "\n" + "\n".join(rows) + "\n"
    rows = [f"| `{file.name}` | {promise(file)} |" for file in sorted(core.glob("[!_]*.py"))]
    parts.append("## Beside the rooms\n\n| module | holds |\n|---|---|\n" + "\n".join(rows) + "\n")
    text = "\n".join(parts)
    if not page.exists() or page.read_text() != text:  # an unchanged page is not built again
        page.write_text(text)


def rooms(page: Path) -> list[str]:
    """The rooms in the order of the table of the page on architecture."""
    return re.findall(r"^\| `(\w+)/` \|", page.read_text(), re.MULTILINE)


def promise(file: Path) -> str:
    """The first paragraph of a module's docstring, in one line of Markdown."""
    docstring = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
