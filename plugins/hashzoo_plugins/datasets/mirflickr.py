"""Labels of MIRFLICKR-25k from its official annotations (Huiskes & Lew, MIR 2008), version 0.80.

There is one text file per concept with the numbers of the images that show it. The annotations of 24 concepts are in
the wide sense; 14 of these have a second file ``_r1`` with the images for which the concept is relevant. Papers use 24
or all 38 concepts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hashzoo import EnvironmentFailure

IMAGES = 25_000
FOLDER = "mirflickr25k_annotations_v080"
PUBLISHED = "https://press.liacs.nl/mirflickr/mirdownload.html"

_POTENTIAL = """
animals baby bird car clouds dog female flower food indoor lake male night people plant_life portrait river sea sky
structures sunset transport tree water
"""
_RELEVANT = "baby bird car clouds dog female flower male night people portrait river sea tree"

POTENTIAL = tuple(_POTENTIAL.split())
RELEVANT = tuple(f"{name}_r1" for name in _RELEVANT.split())
ALL = tuple(sorted(POTENTIAL + RELEVANT))


def read_annotations(root: Path, concepts: Sequence[str]) -> Tensor:
    """The annotations of all images, (25000, C) float; row 0 is ``im1.jpg``.

    Args:
        root: The folder of the files, or one with a folder of the official name or ``annotations``.
        concepts: The C concepts.

    Raises:
        EnvironmentFailure: If a file is missing or damaged.
    """
    place = next((p for p in (root / FOLDER, root / "annotations", root) if (p / "sky.txt").is_file()), root / FOLDER)
    labels = torch.zeros(IMAGES, len(concepts))
    for column, concept in enumerate(concepts):
        file = place / f"{concept}.txt"
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot read {file}: {error.strerror or error}; unpack {FOLDER}.zip of {PUBLISHED} there"
            ) from error
        for number, line in enumerate(map(bytes.strip, lines), 1):
            if not line:
                continue
            if not re.fullmatch(rb"\d{1,5}", line) or not 1 <= int(line) <= IMAGES:
                raise EnvironmentFailure(
                    f"{file} line {number} is not an image number, 1 to {IMAGES}; unpack the file again"
                )
            labels[int(line) - 1, column] = 1
    return labels


def image_annotations(names: Sequence[str], root: Path, concepts: Sequence[str]) -> Tensor:
    """The annotations (N, C) of the images with these names, which end with ``im1.jpg`` and so on.

    Raises:
        EnvironmentFailure: If a name has another form, or see :func:`read_annotations`.
    """
    rows = []
    for name in names:
        match = re.fullmatch(r"(?:.*/)?im(\d{1,5})\.jpg", name)
        if match is None or not 1 <= int(match[1]) <= IMAGES:
            raise EnvironmentFailure(
                f"the lists contain {name!r}, which is not one of im1.jpg to im{IMAGES}.jpg of MIRFLICKR-25k"
            )
        rows.append(int(match[1]) - 1)
    return read_annotations(root, concepts)[torch.tensor(rows)]
