"""Lines of list files, as HashNet (Cao et al., ICCV 2017) and its descendants have them: a path, then its labels.

The labels are as many 0 and 1 as there are classes, or one class number, from 0. They are the run of whole numbers at
the end of a line, so a path may hold blanks but may not end in a blank and a number. Carriage returns, blank lines,
tabs, several blanks, blanks at the end and a byte order mark do no harm.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashzoo import EnvironmentFailure

CLASSES = 1 << 16  # class numbers from here on are taken for a damaged line, not for a table of so many columns

#: Where published lists have the images on the machines of their authors.
_MACHINE = re.compile(
    r"(?:.*/)?(?:data|datasets?)/(?:coco|imagenet|nus_?wide(?:_\d+)?(?:_m)?|cifar-?10|mirflickr|voc2012)/"
)
_NUMBER = re.compile(rb"-?\d+")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_MARK = b"\xef\xbb\xbf"  # what some editors write before the first line


@dataclass(frozen=True)
class Lines:
    """One list file: the path (N) and the labels (N, C) of each line, and its number in the file, from 1.

    With one column it holds class numbers, otherwise 0 and 1.
    """

    file: Path
    numbers: list[int]
    paths: list[str]
    labels: NDArray[np.int32] | NDArray[np.uint8]


def read(file: Path) -> Lines:
    """A list file. EnvironmentFailure naming the file and the line where it is none."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {file}: {error.strerror or error}") from error
    stripped = [line.rstrip() for line in data.removeprefix(_MARK).splitlines()]
    numbers = [number for number, line in enumerate(stripped, 1) if line]
    lines = [stripped[number - 1] for number in numbers]
    if not lines:
        raise EnvironmentFailure(f"{file} lists no image; a line is a path and its labels")
    columns = _count(lines[0])
    if not columns:
        raise EnvironmentFailure(f"{file} line {numbers[0]} has no labels; a line is a path, a blank and its labels")
    heads, labels, odd = _columns(lines, columns)
    for row in odd:
        try:
            heads[row], labels[row] = _odd(lines[row], columns, numbers[0])
        except ValueError as error:
            raise EnvironmentFailure(f"{file} line {numbers[row]}: {error}") from error
    return Lines(file, numbers, [_text(file, n, head) for n, head in zip(numbers, heads, strict=True)], labels)


def _count(line: bytes) -> int:
    """How many whole numbers a line ends in."""
    words = line.split()[1:]
    return next((n for n, word in enumerate(reversed(words)) if not _NUMBER.fullmatch(word)), len(words))


def _columns(
    lines: list[bytes], columns: int
) -> tuple[list[bytes], NDArray[np.int32] | NDArray[np.uint8], Iterator[int]]:
    """What stands before the labels, the labels, and the rows that have to be looked at one by one."""
    if columns == 1:
        return [b""] * len(lines), np.zeros((len(lines), 1), np.int32), iter(range(len(lines)))
    width = 2 * columns  # a blank and a digit each
    tails = b"".join(line[-width:].rjust(width, b"?") for line in lines)
    signs = np.frombuffer(tails, np.uint8).reshape(len(lines), columns, 2)
    labels = signs[:, :, 1] - np.uint8(ord("0"))
    plain = ((signs[:, :, 0] == ord(" ")) & (labels <= 1)).all(1)
    heads = [line[:-width] for line in lines]
    whole = (row for row, head in enumerate(heads) if not plain[row] or not head or _count(head))
    return heads, labels, whole


def _odd(line: bytes, columns: int, first: int) -> tuple[bytes, list[int]]:
    """Path and labels of a line in any form. ValueError where they are not as in the first line."""
    count = _count(line)
    if count != columns:
        before = line.split()[-count - 1].decode(errors="replace")
        raise ValueError(f"{count} labels stand after {before!r}, but {columns} in line {first}")
    head, *words = line.rsplit(None, columns)
    values = [int(word) for word in words]
    for at, value in enumerate(values, 1):
        if columns > 1 and value not in (0, 1):
            raise ValueError(f"label {at} is {value}; labels are 0 or 1")
        if not 0 <= value < CLASSES:
            raise ValueError(f"the class is {value}; class numbers go from 0 to {CLASSES - 1}")
    return head, values


def _text(file: Path, number: int, head: bytes) -> str:
    head = head.strip()
    try:
        if not _CONTROL.search(head):
            return head.decode()
    except UnicodeDecodeError:
        pass
    raise EnvironmentFailure(f"{file} line {number}: the path is not plain text in UTF-8; save the list as UTF-8")


def name(path: str, strip: str = "") -> str:
    """What an image is called in every list, whatever machine the list was written on: its path without the machine's.

    Paths are made plain (``\\`` to ``/``, no ``.``, no ``//``); then the folder that published lists have the dataset
    in is left out with all before it: ``data/``, ``dataset/`` or ``datasets/`` and the name of a known dataset. With
    ``strip`` it is the first folder of that name, or those several, instead. Nothing else is guessed: two images with
    the same file name in different folders stay two.

    >>> name("/home/caozhangjie/run-czj/dataset/coco/train2014/1.jpg"), name("./data/coco/train2014/1.jpg")
    ('train2014/1.jpg', 'train2014/1.jpg')
    >>> name("/mnt/disk/mine/cats/1.jpg", strip="mine"), name("mine/cats/1.jpg")
    ('cats/1.jpg', 'mine/cats/1.jpg')
    """
    path = posixpath.normpath(path.replace("\\", "/"))
    if not strip:
        return _MACHINE.sub("", path, count=1) if _MACHINE.match(path) else path
    _, found, rest = f"/{path}".partition(f"/{strip.strip('/')}/")
    return rest if found else path
