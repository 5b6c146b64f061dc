"""Lines of list files in the format of HashNet (Cao et al., ICCV 2017) and later benchmarks: a path, then its labels.

The labels are one 0 or 1 per class, or a single class number, from 0. They are the integers at the end of a line, so a
path can contain spaces but cannot end with a space and a number. Carriage returns, empty lines, tabs, repeated or
trailing spaces, and a byte order mark are ignored.
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

MAX_CLASSES = 1 << 16  # larger class numbers indicate a damaged line, not a table with that many columns

#: The folders of the images on the machines of the authors of published lists.
_MACHINE_FOLDER = re.compile(
    r"(?:.*/)?(?:data|datasets?)/(?:coco|imagenet|nus_?wide(?:_\d+)?(?:_m)?|cifar-?10|mirflickr|voc2012)/"
)
_NUMBER = re.compile(rb"-?\d+")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """The content of one list file with N images.

    Args:
        file: The file.
        numbers: The line number of each image, from 1.
        paths: The path of each image.
        labels: (N, C) of 0 and 1, or (N, 1) class numbers.
    """

    file: Path
    numbers: list[int]
    paths: list[str]
    labels: NDArray[np.int32] | NDArray[np.uint8]


def read_list(file: Path) -> Lines:
    """Read a list file. Raises EnvironmentFailure with the file and the line if it is not one."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {file}: {error.strerror or error}") from error
    stripped = [line.rstrip() for line in data.removeprefix(_BYTE_ORDER_MARK).splitlines()]
    numbers = [number for number, line in enumerate(stripped, 1) if line]
    lines = [stripped[number - 1] for number in numbers]
    if not lines:
        raise EnvironmentFailure(f"{file} lists no images; a line has a path and its labels")
    columns = _count_labels(lines[0])
    if not columns:
        raise EnvironmentFailure(f"{file} line {numbers[0]} has no labels; a line has a path, a space and its labels")
    heads, labels, irregular = _split_columns(lines, columns)
    for row in irregular:
        try:
            heads[row], labels[row] = _parse_line(lines[row], columns, numbers[0])
        except ValueError as error:
            raise EnvironmentFailure(f"{file} line {numbers[row]}: {error}") from error
    return Lines(file, numbers, [_decode(file, n, head) for n, head in zip(numbers, heads, strict=True)], labels)


def _count_labels(line: bytes) -> int:
    """The number of integers at the end of a line."""
    words = line.split()[1:]
    return next((n for n, word in enumerate(reversed(words)) if not _NUMBER.fullmatch(word)), len(words))


def _split_columns(
    lines: list[bytes], columns: int
) -> tuple[list[bytes], NDArray[np.int32] | NDArray[np.uint8], Iterator[int]]:
    """The text before the labels, the labels, and the rows that must be parsed one by one.

    This is much faster than :func:`_parse_line` for lines with single spaces and labels of one digit.
    """
    if columns == 1:
        return [b""] * len(lines), np.zeros((len(lines), 1), np.int32), iter(range(len(lines)))
    width = 2 * columns  # a space and a digit each
    tails = b"".join(line[-width:].rjust(width, b"?") for line in lines)
    characters = np.frombuffer(tails, np.uint8).reshape(len(lines), columns, 2)
    labels = characters[:, :, 1] - np.uint8(ord("0"))
    regular = ((characters[:, :, 0] == ord(" ")) & (labels <= 1)).all(1)
    heads = [line[:-width] for line in lines]
    irregular = (row for row, head in enumerate(heads) if not regular[row] or not head or _count_labels(head))
    return heads, labels, irregular


def _parse_line(line: bytes, columns: int, first: int) -> tuple[bytes, list[int]]:
    """The path and the labels of a line. Raises ValueError if they do not have the form of those in the first line."""
    count = _count_labels(line)
    if count != columns:
        before = line.split()[-count - 1].decode(errors="replace")
        raise ValueError(f"{count} labels after {before!r}, but {columns} in line {first}")
    head, *words = line.rsplit(None, columns)
    values = [int(word) for word in words]
    for at, value in enumerate(values, 1):
        if columns > 1 and value not in (0, 1):
            raise ValueError(f"label {at} is {value}; labels are 0 or 1")
        if not 0 <= value < MAX_CLASSES:
            raise ValueError(f"the class is {value}; class numbers are 0 to {MAX_CLASSES - 1}")
    return head, values


def _decode(file: Path, number: int, head: bytes) -> str:
    """The path of a line as text."""
    head = head.strip()
    try:
        if not _CONTROL.search(head):
            return head.decode()
    except UnicodeDecodeError:
        pass
    raise EnvironmentFailure(f"{file} line {number}: the path is not plain text in UTF-8; save the list as UTF-8")


def image_name(path: str, strip: str = "") -> str:
    """The name of an image, which is the same in lists from different machines: its path without their folders.

    The path is normalized (``\\`` to ``/``, no ``.``, no ``//``). Then everything up to the folder of the dataset in
    published lists is removed: ``data/``, ``dataset/`` or ``datasets/`` and the name of a known dataset. With ``strip``
    everything up to the first folder (or folders) of that name is removed instead. Two images with the same file name
    in different folders have different names.

    >>> image_name("/home/caozhangjie/run-czj/dataset/coco/train2014/1.jpg"), image_name("./data/coco/train2014/1.jpg")
    ('train2014/1.jpg', 'train2014/1.jpg')
    >>> image_name("/mnt/disk/mine/cats/1.jpg", strip="mine"), image_name("mine/cats/1.jpg")
    ('cats/1.jpg', 'mine/cats/1.jpg')
    """
    path = posixpath.normpath(path.replace("\\", "/"))
    if not strip:
        return _MACHINE_FOLDER.sub("", path, count=1) if _MACHINE_FOLDER.match(path) else path
    _, separator, rest = f"/{path}".partition(f"/{strip.strip('/')}/")
    return rest if separator else path
