"""Downloads of image archives and list files from their publishers, by name.

Sources of the checksums: torchvision for VOC 2012 and ImageNette, TensorFlow Datasets for COCO, the official page for
MIRFLICKR-25k, and public code for its annotations (no page gives one). An archive is removed after it is unpacked.
"""

from __future__ import annotations

from pathlib import Path

import filelock

from hashzoo import EnvironmentFailure, unknown_name
from hashzoo_plugins.datasets.download import Remote, data_folder, require_network
from hashzoo_plugins.datasets.published_lists import LISTS
from hashzoo_plugins.datasets.unpack import unpack

_COCO = "http://images.cocodataset.org"
_MIRFLICKR = "http://press.liacs.nl/mirflickr/mirflickr25k.v3b"

#: Name -> the files of its folder.
ARCHIVES: dict[str, tuple[Remote, ...]] = {
    "imagenette": (
        Remote(
            ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",),
            "imagenette2-320.tgz",
            size=341553947,
            md5="3df6f0d01a2c9592104656642f5e78a3",
            makes="imagenette2-320",
        ),
    ),
    "voc2012": (
        Remote(
            (
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            ),
            "VOCtrainval_11-May-2012.tar",
            size=1999639040,
            md5="6cd6e144f989b92b3379bac3b3de84fd",
            makes="VOCdevkit",
        ),
    ),
    "coco": (
        Remote(
            (f"{_COCO}/zips/train2014.zip",),
            "train2014.zip",
            size=13510573713,
            sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            makes="train2014",
        ),
        Remote(
            (f"{_COCO}/zips/val2014.zip",),
            "val2014.zip",
            size=6645013297,
            sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            makes="val2014",
        ),
        Remote(
            (f"{_COCO}/annotations/annotations_trainval2014.zip",),
            "annotations_trainval2014.zip",
            size=252872794,
            sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            makes="annotations",
        ),
    ),
    "mirflickr": (
        Remote(
            (f"{_MIRFLICKR}/mirflickr25k.zip",),
            "mirflickr25k.zip",
            size=3069184257,
            md5="a23d0a8564ee84cda5622a6c2f947785",
            makes="mirflickr",
        ),
        Remote(
            (f"{_MIRFLICKR}/mirflickr25k_annotations_v080.zip",),
            "mirflickr25k_annotations_v080.zip",
            size=207220,
            md5="aa0138c79892b1b670184d142380948f",
            makes="mirflickr25k_annotations_v080",
        ),
    ),
    **LISTS,
}


def fetch_folder(name: str) -> Path:
    """The folder of an entry with all its files, which are downloaded and unpacked if necessary.

    voc2012: ``VOCdevkit/VOC2012/JPEGImages/*.jpg``. coco: ``train2014/*.jpg``, ``val2014/*.jpg``, ``annotations``.
    mirflickr: ``mirflickr/im*.jpg``, ``mirflickr25k_annotations_v080/*.txt``. imagenette: ``imagenette2-320``.
    Lists: ``train.txt`` and the others, as in their repository.

    Raises:
        EnvironmentFailure: If a file cannot be downloaded or unpacked.
    """
    if name not in ARCHIVES:
        raise ValueError(unknown_name("archive", name, ARCHIVES))
    place, remotes = data_folder(name), ARCHIVES[name]
    if all((place / (remote.makes or remote.path)).exists() for remote in remotes):
        return place
    for remote in remotes:
        if not (place / (remote.makes or remote.path)).exists():
            require_network(place / remote.path)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(place / ".lock"):
            for remote in remotes:
                _fetch_and_unpack(remote, place, [other.path for other in remotes])
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write {place}: {error.strerror or error}; set HASHZOO_DATA to a writable folder with enough free "
            "space"
        ) from error
    return place


def _fetch_and_unpack(remote: Remote, place: Path, files: list[str]) -> None:
    target = place / (remote.makes or remote.path)
    if target.exists():
        return
    shown = [*files[:6], f"{len(files) - 6} more"] if len(files) > 7 else files
    archive = remote.fetch(place, shown)
    if remote.makes:
        unpack(archive, target)
        archive.unlink()
