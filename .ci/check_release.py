"""Check that a tag may be released: python .ci/check_release.py v1.2.3."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What is wrong with the release, one line each."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(text)["project"]["version"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, but the version in pyproject.toml is {version}; the tag must be v{version}")
    for name, pattern in (
        ("hashzoo/_version.py", rf'^__version__ = "{re.escape(version)}"$'),
        ("CITATION.cff", rf"^version: {re.escape(version)}$"),
        ("CHANGELOG.md", rf"^## {re.escape(version)} \(\d{{4}}-\d{{2}}-\d{{2}}\)$"),
    ):
        if not re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE):
            found.append(f"{name} does not name version {version}; add a line that matches {pattern}")
    if ".invalid" in text:
        found.append("pyproject.toml has placeholders (.invalid); put in the addresses of the project")
    return found


def main(arguments: list[str]) -> int:
    """Print the problems of the tag that is the only argument; 1 if there are any."""
    if len(arguments) != 1:
        print("usage: python .ci/check_release.py TAG", file=sys.stderr)
        return 2
    found = problems(arguments[0])
    print("\n".join(found) if found else f"{arguments[0]} can be released")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
