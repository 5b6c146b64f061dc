"""BibTeX: entries of a text, as written and by field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ENTRY = re.compile(r"@[ \t]*([A-Za-z]+)\s*\{")
_FIELD = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*")
_KEY = re.compile(r"\s*([^\s,{}\"#%~\\=()']+)\s*(,|(?=\}))")


@dataclass(frozen=True)
class BibEntry:
    """An entry of a bibliography.

    Attributes:
        kind: Kind in lower case, as "article".
        key: Key by which LaTeX cites it.
        fields: Values by name in lower case, with single spaces and without the outer braces or quotes.
        text: The whole entry as written.
    """

    kind: str
    key: str
    fields: Mapping[str, str]
    text: str

    @property
    def links(self) -> dict[str, str]:
        """Addresses of the publication by what they are: "DOI", "arXiv" and "paper", those that it has."""
        found = {}
        if doi := self.fields.get("doi"):
            found["DOI"] = f"https://doi.org/{doi}"
        if self.fields.get("archiveprefix", "").lower() == "arxiv" and (identifier := self.fields.get("eprint")):
            found["arXiv"] = f"https://arxiv.org/abs/{identifier}"
        if url := self.fields.get("url"):
            found["paper"] = url
        return found


def parse(text: str) -> list[BibEntry]:
    """The entries of a BibTeX text, in order; text between entries is a comment.

    A value is in braces or quotes, or a number; macros (``@string``) and concatenation are not supported.

    Raises:
        ValueError: For text that is not an entry after an @, with its line.

    >>> (entry,) = parse('@Book{knuth97, title = {The {TeX}book}, year = 1984, }')
    >>> entry.kind, entry.key, dict(entry.fields)
    ('book', 'knuth97', {'title': 'The {TeX}book', 'year': '1984'})
    """
    found, at = [], 0
    while match := _ENTRY.search(text, at):
        end = _closing(text, match.end())
        kind = match[1].lower()
        if kind in ("string", "preamble"):
            raise ValueError(f"{_line(text, match.start())}: @{kind} is not supported; write the text into the field")
        if kind != "comment":
            found.append(_entry(text, match.start(), match.end(), end, kind))
        at = end + 1
    return found


def _entry(text: str, start: int, inside: int, end: int, kind: str) -> BibEntry:
    key = _KEY.match(text, inside, end + 1)
    if not key:
        raise ValueError(f"{_line(text, start)}: @{kind} has no key; write @{kind}{{KEY, ...}}")
    fields: dict[str, str] = {}
    for place, name, value in _fields(text, key.end(), end):
        if name in fields:
            raise ValueError(f"{_line(text, place)}: {key[1]} has the field {name} twice; remove one of them")
        fields[name] = value
    lines = text[start : end + 1].split("\n")
    return BibEntry(kind, key[1], fields, "\n".join(line.rstrip() for line in lines))


def _fields(text: str, at: int, end: int) -> Iterator[tuple[int, str, str]]:
    """The place, name and value of each field between two places."""
    while text[at:end].strip():
        name = _FIELD.match(text, at, end)
        if not name:
            other = text[at:end].strip().split("\n")[0][:30]
            raise ValueError(f"{_line(text, at)}: expected a field such as year = {{2020}}, found {other!r}")
        at = name.end()
        if text[at] == "{":
            close = _closing(text, at + 1)
            value, after = text[at + 1 : close], close + 1
        elif text[at] == '"':
            close = _quote(text, at + 1, end)
            value, after = text[at + 1 : close], close + 1
        elif number := re.compile(r"\d+").match(text, at, end):
            value, after = number[0], number.end()
        else:
            raise ValueError(f"{_line(text, at)}: write the value of {name[1]} in braces")
        yield name.start(), name[1].lower(), " ".join(value.split())
        comma = re.compile(r"\s*(,|\Z)").match(text, after, end)
        if not comma:
            raise ValueError(f"{_line(text, after)}: expected a comma after the value of {name[1]}")
        at = comma.end()


def _closing(text: str, at: int) -> int:
    """The place of the brace that closes the one before ``at``."""
    depth = 1
    for brace in re.compile(r"(?<!\\)[{}]").finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise ValueError(f"{_line(text, at - 1)}: the brace is never closed")


def _quote(text: str, at: int, end: int) -> int:
    """The place of the quote that ends a value: the first one outside braces."""
    while at < end:
        if text[at] == "{":
            at = _closing(text, at + 1)
        elif text[at] == '"':
            return at
        at += 1
    raise ValueError(f"{_line(text, at)}: the quote is never closed")


def _line(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at + len(text[at:]) - len(text[at:].lstrip())) + 1}"
