"""Who is in which part: the same on every machine and in every version, and known to be."""

from __future__ import annotations

import pytest

from hashzoo.data.split_file import split_digest
from hashzoo.registry import zoo
from tests.shared_data import SHARED

HOUSE = zoo.load_plugins()
IN_FILES = ("cifar10", "imagenette", "miml")
DIGESTS = {
    "cifar10.disjoint": "87cf20fab6c1",
    "cifar10.inside": "965c2d69af38",
    "cifar10.lt10": "8b10062b7193",
    "cifar10.lt100": "760d3c6ffcd4",
    "cifar10.lt50": "3b43134f8b41",
    "cifar10.official": "35758da98662",
    "cifar10.seen-all": "ed5de34806ba",
    "cifar10.unseen": "1227379df9a7",
    "cifar10.unseen-all": "4a3e9b011a5e",
    "cifar10.unseen-pair2": "80317cb09126",
    "cifar10.unseen-pair3": "d1d8b84e92c9",
    "cifar10.unseen-pair4": "78f04c3a83e5",
    "cifar10.unseen-pair5": "c7a481f5d567",
    "digits.inside": "d5925785e507",
    "digits.lt10": "624bd8158b0d",
    "digits.lt100": "5e878475f55c",
    "digits.lt50": "cfe66adf311e",
    "digits.seen-all": "c6e159978824",
    "digits.small": "ad3d3b2c26d6",
    "digits.standard": "f8392d66ee71",
    "digits.unseen": "1e302f5fdb5d",
    "digits.unseen-all": "5ed5410cabf7",
    "imagenette.lt10": "ae546447bdca",
    "imagenette.lt100": "cf6d4289b969",
    "imagenette.lt50": "81f7a3a008f0",
    "imagenette.standard": "e62b88cf7c46",
    "miml.split1": "df81e2fb3b15",
    "miml.split2": "9ac9080ac583",
    "miml.split3": "05534ff0a5f1",
    "miml.split4": "3686a2a25d3b",
    "miml.split5": "79477d255c53",
    "scenes.difference": "fa1104b32877",
    "scenes.intersection": "2d3bc2dfd661",
    "scenes.small": "5c1fd5ffb626",
    "scenes.standard": "bc6132572ab2",
    "scenes.union": "41c8a87aa627",
}


def test_every_protocol_of_these_images_is_held():
    known = {name for name in HOUSE.datasets if name.partition(".")[0] in {one.partition(".")[0] for one in DIGESTS}}
    assert known == set(DIGESTS)


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_parts_are_those_that_scores_were_published_for(name):
    given = {}
    if name.startswith(IN_FILES):
        if not (SHARED / "data" / "cifar10_jpeg.npz").is_file():
            pytest.skip("needs the images of ../shared/data or $HASHZOO_SHARED/data")
        given = {"root": SHARED / "data"}
    assert split_digest(HOUSE.dataset(name).factory(**given)) == DIGESTS[name]
