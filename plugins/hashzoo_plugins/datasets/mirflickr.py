"""Labels of MIRFLICKR-25k from its official annotations (Huiskes & Lew, MIR 2008), version 0.80.

One text file a concept lists the numbers of the images that show it. 24 concepts are annotated in the wide sense; of
14 there is a second file ``_r1`` with the images that the concept is relevant for. Papers use 24 or all 38.
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


def annotated(root: Path, concepts: Sequence[str]) -> Tensor:
    """Which concepts are annotated, (25000, C) float; the row of ``im1.jpg`` is 0.

    The files lie in ``root`` or in its folder of the official name. EnvironmentFailure naming the file, and the line,
    where one is missing or damaged.
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
                    f"{file} line {number} is no number of an image, 1 to {IMAGES}; unpack it anew"
                )
            labels[int(line) - 1, column] = 1
    return labels


def of_images(names: Sequence[str], root: Path, concepts: Sequence[str]) -> Tensor:
    """The annotations (N, C) of images named ``im1.jpg`` and so on. EnvironmentFailure naming one that is called
    otherwise.

    Errors as of ``annotated``.
    """
    rows = []
    for name in names:
        found = re.fullmatch(r"(?:.*/)?im(\d{1,5})\.jpg", name)
        if found is None or not 1 <= int(found[1]) <= IMAGES:
            raise EnvironmentFailure(
                f"the lists name {name!r}, which is none of im1.jpg to im{IMAGES}.jpg of MIRFLICKR-25k"
            )
        rows.append(int(found[1]) - 1)
    return annotated(root, concepts)[torch.tensor(rows)]
