"""The addresses of the project, which are placeholders today, are in one block of pyproject.toml and nowhere else."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN, END = "# PLACEHOLDERS.", "# End of the placeholders."

#: Addresses that can only be meant for this project: a placeholder, a host or a path of its name, a package's page.
OWN = re.compile(
    r"\b(?:(?:[\w-]+\.)*hashzoo\.invalid|hashzoo\.(?:org|com|io|dev|net|ai|readthedocs\.io|github\.io)|[\w-]+\.github\.io)\b"
    r"|https?://(?:[\w-]+\.)*(?:git(?:hub|lab)|codeberg|bitbucket|pypi|readthedocs|zenodo)\.\w+/[^\s)>\"'`]*hashzoo[\w-]*"
    r"|git@[\w.-]+:[\w./-]+",
    re.IGNORECASE,
)
MAIL = re.compile(r"(?<![\w@.\\])[\w.+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,6}\b", re.IGNORECASE)
#: Top domains that RFC 2606 reserves for tests and examples; what has one is nobody's address.
RESERVED = re.compile(r"(?:^|[@.])(?:example|test|localhost)$|(?:^|[@.])example\.(?:com|org|net)$", re.IGNORECASE)


def addresses(text: str) -> list[str]:
    """The addresses of the project, and all e-mail addresses, of a text.

    >>> addresses("see https://github.com/some/hashzoo, mail a@b.org, and https://github.com/pytorch/pytorch")
    ['https://github.com/some/hashzoo', 'a@b.org']
    """
    mails = [mail for mail in MAIL.findall(text) if not RESERVED.search(mail)]
    return list(dict.fromkeys([*(match[0] for match in OWN.finditer(text)), *mails]))


def files() -> list[Path]:
    """The text files of the project: what git knows, and new files that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a checkout and git")
    names = (name for name in listed.split("\0") if name)
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ".sh", ".html", ".js", ".css", ".jinja", ""}
    return [path for name in names if (path := ROOT / name).suffix in kinds and path.is_file()]


def placeholders() -> str:
    """The block of pyproject.toml that holds the addresses."""
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def test_no_file_but_the_block_of_placeholders_holds_an_address_of_the_project():
    found, this = [], Path(__file__).resolve()
    searched = files()
    assert {"README.md", "ci.yml", "CITATION.cff", "SECURITY.md", "Dockerfile"} <= {file.name for file in searched}
    for file in searched:
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.name == "pyproject.toml" and file.parent == ROOT:
            text = text.replace(placeholders(), "")
        if file.resolve() != this:
            found += [f"{file.relative_to(ROOT)}: {address}" for address in addresses(text)]
    assert found == []


def test_all_addresses_in_the_block_are_placeholders_or_none_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    urls, contact = project["project"]["urls"], project["tool"]["hashzoo"]["contact"]
    assert {"Documentation", "Source", "Issues", "Changelog"} == {*urls}
    assert {"security", "conduct"} == {*contact}
    assert all(f'"{address}"' in placeholders() for address in (*urls.values(), *contact.values()))
    reserved = [re.search(r"\.invalid(?:/|$)", address) is not None for address in (*urls.values(), *contact.values())]
    assert len(set(reserved)) == 1


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_the_pages_that_need_a_contact_say_where_it_is(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert re.search(r"address `(security|conduct)` in `\[tool\.hashzoo\.contact\]` of \[pyproject\.toml\]", text)
