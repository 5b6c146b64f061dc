"""The version of a file's layout: a newer one is refused by name, a former one is brought up to date step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from hashzoo.errors import EnvironmentFailure

Content = TypeVar("Content")
Record = TypeVar("Record")

RESULTS = "choose another results folder"
CACHE = "set HASHZOO_CACHE to another folder"


class NewerSchemaError(EnvironmentFailure):
    """A file that a later hashzoo wrote."""

    def __init__(self, path: Path, schema: int, reads: int, cure: str = RESULTS) -> None:
        super().__init__(
            f"{path} has schema {schema} and this hashzoo reads up to {reads}; install a newer hashzoo or {cure}"
        )


def known(schema: object, reads: int, steps: Mapping[int, Callable[[Content], Content]]) -> bool:
    """Whether a schema is the present one, or steps lead from it to there.

    >>> known(3, 3, {}), known(1, 3, {1: dict, 2: dict}), known(1, 3, {2: dict}), known(True, 1, {})
    (True, True, False, False)
    """
    return type(schema) is int and schema <= reads and all(version in steps for version in range(schema, reads))


def lifted(content: Content, schema: int, reads: int, steps: Mapping[int, Callable[[Content], Content]]) -> Content:
    """The content of a file of a :func:`known` schema, in the present layout. ``steps[n]`` leads from n to n + 1.

    >>> lifted({"a": 1}, 1, 3, {1: lambda c: {"b": c["a"]}, 2: lambda c: c | {"c": 0}})
    {'b': 1, 'c': 0}
    """
    for version in range(schema, reads):
        content = steps[version](content)
    return content


def typed(record: Record) -> Record:
    """A dataclass whose fields hold what their annotations say. ValueError names the first that does not.

    >>> from dataclasses import make_dataclass
    >>> typed(make_dataclass("Count", [("of", int)])("many"))
    Traceback (most recent call last):
        ...
    ValueError: of: Input should be a valid integer
    """
    of: Any = type(record)
    for name, kind in _kinds(of).items():
        try:
            kind.validate_python(getattr(record, name), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, [name, *first['loc']]))}: {first['msg']}") from None
    return record


@cache
def _kinds(of: Any) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(of, include_extras=True).items()}


def refuse_newer(path: Path, schema: object, reads: int, cure: str) -> None:
    """NewerSchemaError for a schema above the one that is read."""
    if type(schema) is int and schema > reads:
        raise NewerSchemaError(path, schema, reads, cure)
