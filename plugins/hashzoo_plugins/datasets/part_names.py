"""Names of the parts of a dataset as folders and columns spell them: train, training_set, val, Test, gallery."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hashzoo import UsageError, printable

PARTS = ("train", "database", "query", "validation")

_SPELLINGS = {
    "train": "train training trn tr trainval fit learn learning",
    "validation": "validation valid val validate dev devel development",
    "query": "query queries test testing tst tests holdout heldout eval evaluation probe",
    "database": "database db gallery retrieval reference references base index",
}
_PART = {spelling: part for part, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_FILLERS = ("dataset", "set", "data", "images", "image", "imgs", "img", "photos", "pictures", "split", "files")
_BESIDE = {*_FILLERS, "part", "folder", "bounding", "box", "x", "my", "the", "full", "all"}


def part_of(name: str) -> str:
    """The part of a dataset that a name means, such as ``validation`` for ``val``; empty for any other name.

    >>> [part_of(name) for name in ("Train", "train_images", "valset", "test2017", "gallery", "steam train", "cat")]
    ['train', 'train', 'validation', 'query', 'database', '', '']
    """
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word and word not in _BESIDE]
    if len(words) != 1:
        return ""
    (word,) = words
    for filler in ("", *_FILLERS):
        if word.endswith(filler) and (part := _PART.get(word.removesuffix(filler))):
            return part
        if filler and word.startswith(filler) and (part := _PART.get(word.removeprefix(filler))):
            return part
    return ""


def read_parts(names: Iterable[str], where: str) -> dict[str, str]:
    """The part of each name. Without queries, the validation images are the queries.

    Args:
        names: Names of which each stands for a part.
        where: What has the names, for messages.

    Raises:
        UsageError: If two names stand for one part, or none for the training images.

    >>> read_parts(["Train", "val"], "a folder")
    {'Train': 'train', 'val': 'query'}
    """
    parts = {name: part_of(name) for name in names}
    for part in PARTS:
        if len(same := [printable(name) for name, other in parts.items() if other == part]) > 1:
            raise UsageError(f"{where} has {' and '.join(same)}, which both stand for {part} images; keep one of them")
    if "train" not in parts.values():
        found = ", ".join(map(printable, parts))
        raise UsageError(f"{where} has the parts {found} and no training images; add a part named train")
    if "query" not in parts.values():
        return {name: "query" if part == "validation" else part for name, part in parts.items()}
    return parts


def describe_parts(parts: dict[str, str]) -> str:
    """The part of each name in one line.

    >>> describe_parts({"Train": "train", "val": "query"})
    'Train is train, val is query'
    """
    return ", ".join(f"{printable(name)} is {part}" for name, part in parts.items())
