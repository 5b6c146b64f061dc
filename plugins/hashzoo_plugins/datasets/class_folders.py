"""A folder with one folder per class, or one folder per part with one folder per class in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo import EnvironmentFailure, FolderFiles, SourceFinding, UsageError, list_folder, printable
from hashzoo_plugins.datasets.image_table import Table
from hashzoo_plugins.datasets.part_names import describe_parts, part_of, read_parts

EXAMPLES = 3


def read_class_folders(root: Path) -> Table:
    """The images in the class folders of ``root``, sorted by the bytes of their paths.

    If all images are directly in ``root``, they have no labels.

    Folders that are named after parts, each with class folders, are read as parts, and so are folders of that kind in
    every class folder.

    Raises:
        EnvironmentFailure: If there is no such folder, or it has no images in folders.
        UsageError: If folders look like parts and cannot be read as such.
    """
    if not root.is_dir():
        raise EnvironmentFailure(f"there is no folder {printable(root)}; set --root to the folder of your images")
    found = list_folder(root)
    inside = [relative for relative in found.images if len(relative.parts) > 1]
    if not inside and found.images:
        return _flat(root, found)
    if not inside:
        raise EnvironmentFailure(f"no images found in folders of {printable(root)}: {_hint(found)}")
    parts, level = _parts(root, inside)
    names = [relative.parts[level] for relative in inside]
    classes = sorted(set(names), key=os.fsencode) if parts else list(dict.fromkeys(names))
    column = {name: number for number, name in enumerate(classes)}
    numbers = torch.tensor([column[name] for name in names])
    return Table(
        [root / relative for relative in inside],
        torch.eye(len(classes))[numbers],
        tuple(printable(name) for name in classes),
        _part_of_each(inside, parts, 1 - level) if parts else None,
        findings=_findings(root, found, parts, level, classes),
        parts_from=f"the folder {printable(root)}, which has a folder for each part,",
    )


def _flat(root: Path, found: FolderFiles) -> Table:
    """The images directly in a folder, without labels."""
    findings = [
        one for one in _findings(root, replace(found, images=[]), {}, 0, ()) if one.name != "class-without-images"
    ]
    labels, paths = torch.zeros(len(found.images), 0), [root / relative for relative in found.images]
    return Table(paths, labels, (), findings=tuple(findings))


def _part_of_each(inside: Sequence[PurePath], parts: Mapping[str, str], level: int) -> NDArray[np.str_]:
    return np.array([parts[relative.parts[level]] for relative in inside])


def _parts(root: Path, inside: Sequence[PurePath]) -> tuple[dict[str, str], int]:
    """The part of each folder that is one, and the level of the class folders: 0, or 1 below the parts.

    Empty if all folders are classes.
    """
    tops = list(dict.fromkeys(relative.parts[0] for relative in inside))
    named = [name for name in tops if part_of(name)]
    if len(named) > 1:
        return _upper_parts(root, inside, tops, named), 1 if len(named) == len(tops) else 0
    below = {name: {r.parts[1] for r in inside if r.parts[0] == name and len(r.parts) > 2} for name in tops}
    split = [name for name, folders in below.items() if len({part_of(f) for f in folders} - {""}) > 1]
    if not split:
        return {}, 0
    loose = next((r for r in inside if len(r.parts) < 3 or not part_of(r.parts[1])), None)
    if loose is not None:
        raise UsageError(
            f"{printable(root / split[0])} has folders named after parts ({', '.join(sorted(below[split[0]]))}), but "
            f"{printable(root / loose)} is in none; move it into one, or rename the folders if they are no parts"
        )
    return read_parts(sorted(set().union(*below.values()), key=os.fsencode), printable(root)), 0


def _upper_parts(root: Path, inside: Sequence[PurePath], tops: Sequence[str], named: Sequence[str]) -> dict[str, str]:
    """The parts that the folders directly in ``root`` stand for; empty if they are classes."""
    below = [{r.parts[1] for r in inside if r.parts[0] == name and len(r.parts) > 2} for name in named]
    shared = sorted(name for name, count in Counter(f for folders in below for f in folders).items() if count > 1)
    others = [name for name in tops if name not in named]
    names = " and ".join(map(printable, named))
    if others:
        if not shared:
            return {}
        raise UsageError(
            f"{printable(root)} has the folders {names}, which look like parts with the same classes "
            f"({', '.join(map(printable, shared[:EXAMPLES]))}), and {printable(others[0])}, which does not; move it "
            "elsewhere, or rename the others if they are classes"
        )
    loose = next((r for r in inside if len(r.parts) < 3), None)
    if loose is not None:
        raise UsageError(
            f"{printable(root)} has the folders {names}, which look like parts, but {printable(root / loose)} is in no "
            "class folder of its part; put it into one, or rename the folders if they are classes"
        )
    return read_parts(named, printable(root))


def _findings(
    root: Path, found: FolderFiles, parts: Mapping[str, str], level: int, classes: Sequence[str]
) -> tuple[SourceFinding, ...]:
    """What is said about the files that are not part of the dataset, and about folders that are parts."""
    left_out = dict(found.left_out)
    direct = [relative for relative in found.images if len(relative.parts) == 1]
    left_out |= dict.fromkeys(direct, "directly in the folder and in no folder of a class")
    kinds = Counter(
        (what if path in direct else f"{path.suffix.lower() or 'no suffix'}: {what}") for path, what in left_out.items()
    )
    examples = [f"{printable(root / path)}: {what}" for path, what in left_out.items()]
    lost = _lost_classes(root, parts if level else {}, classes)
    findings = [
        SourceFinding(
            "left-out-files",
            len(left_out),
            len(left_out) + len(found.images) - len(direct),
            tuple(examples[:EXAMPLES]),
            ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        ),
        SourceFinding("class-without-images", len(lost), len(lost) + len(classes), tuple(map(printable, lost))),
        SourceFinding(
            "passed-over",
            sum(found.passed_over.values()),
            sum(found.passed_over.values()) + len(found.images),
            tuple(f"{name} ({count} image files)" for name, count in found.passed_over.items()),
        ),
        SourceFinding("read-as-parts", len(parts), len(parts), (), describe_parts(dict(parts))),
    ]
    return tuple(finding for finding in findings if finding.count)


def _lost_classes(root: Path, parts: Iterable[str], classes: Sequence[str]) -> list[str]:
    """The folders of classes that hold image files, of which none is part of the dataset."""
    places = [root / part for part in parts] or [root]
    folders = (entry for place in places for entry in os.scandir(place) if entry.is_dir())
    names = {entry.name: entry.path for entry in folders if entry.name not in classes}
    return sorted(name for name, path in names.items() if not _hidden(name) and _holds_images(Path(path)))


def _hidden(name: str) -> bool:
    return name.startswith((".", "@", "#", "$", "__"))


def _holds_images(place: Path) -> bool:
    """Whether there are image files of any kind below a folder, those of sidecar folders and hidden ones included."""
    try:
        found = list_folder(place)
    except EnvironmentFailure:
        return False
    return bool(found.images or found.left_out or found.passed_over)


def _hint(found: FolderFiles) -> str:
    """What a folder without images in class folders has instead, and what to do."""
    if found.left_out:
        path, what = next(iter(found.left_out.items()))
        return f"{len(found.left_out)} image files are not decoded, such as {printable(path)}: {what}"
    (suffix, count), *_ = Counter(path.suffix.lower() for path in found.files).most_common(1) or [("", 0)]
    others = f"it has {count} files that end with {printable(suffix)!r}; " if suffix else ""
    return f"{others}put JPEG, PNG, GIF, WebP, TIFF or BMP files into folders named after their classes"
