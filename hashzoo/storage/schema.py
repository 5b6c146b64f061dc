"""Schema versions of files: newer schemas are refused, older ones are migrated step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from hashzoo.errors import EnvironmentFailure

if TYPE_CHECKING:  # pydantic takes as long to import as a search in a million codes
    from pydantic import TypeAdapter

Content = TypeVar("Content")
Record = TypeVar("Record")

RESULTS = "choose another results folder"
CACHE = "set HASHZOO_CACHE to another folder"


class NewerSchemaError(EnvironmentFailure):
    """A file has a schema that only a later version of hashzoo can read."""

    def __init__(self, path: Path, schema: int, current: int, alternative: str = RESULTS) -> None:
        super().__init__(
            f"{path} has schema {schema} and this hashzoo reads up to {current}; "
            f"install a newer hashzoo or {alternative}"
        )


Migrations = Mapping[int, Callable[[Content], Content]]


def is_readable(schema: object, current: int, migrations: Migrations[Content]) -> bool:
    """Whether a schema is the current one or can be migrated to it.

    >>> is_readable(3, 3, {}), is_readable(1, 3, {1: dict, 2: dict}), is_readable(1, 3, {2: dict})
    (True, True, False)
    >>> is_readable(True, 1, {})
    False
    """
    return (
        type(schema) is int and schema <= current and all(version in migrations for version in range(schema, current))
    )


def migrate(content: Content, schema: int, current: int, migrations: Migrations[Content]) -> Content:
    """Content of a :func:`readable <is_readable>` schema in the current one. ``migrations[n]`` leads from n to n + 1.

    >>> migrate({"a": 1}, 1, 3, {1: lambda c: {"b": c["a"]}, 2: lambda c: c | {"c": 0}})
    {'b': 1, 'c': 0}
    """
    for version in range(schema, current):
        content = migrations[version](content)
    return content


def check_types(record: Record) -> Record:
    """The given dataclass instance, its fields checked against their annotations.

    Raises ValueError, which names the first field whose value has another type.

    >>> from dataclasses import make_dataclass
    >>> check_types(make_dataclass("Count", [("of", int)])("many"))
    Traceback (most recent call last):
        ...
    ValueError: of: Input should be a valid integer
    """
    from pydantic import ValidationError

    cls: Any = type(record)
    for name, adapter in _field_adapters(cls).items():
        try:
            adapter.validate_python(getattr(record, name), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, [name, *first['loc']]))}: {first['msg']}") from None
    return record


@cache
def _field_adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:
    from pydantic import TypeAdapter

    return {name: TypeAdapter(hint) for name, hint in get_type_hints(cls, include_extras=True).items()}


def refuse_newer(path: Path, schema: object, current: int, alternative: str) -> None:
    """Raise NewerSchemaError if a file's schema is above the current one."""
    if type(schema) is int and schema > current:
        raise NewerSchemaError(path, schema, current, alternative)
