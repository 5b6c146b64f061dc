"""Copies of images that differ in their bytes: which are found, and which are not taken for copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from hashzoo.data import copies
from hashzoo.data.copies import PARTS, Pair, clusters, find_pairs, print_images
from hashzoo.errors import EnvironmentFailure


def photograph(seed, side=200):
    """An image with edges and brightness at several scales, as photographs have."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for size in (0.6, 0.4, *[0.25] * 4, *[0.1] * 20):
        x, y = rng.uniform(0, side, 2)
        w, h = rng.uniform(0.3, 1, 2) * size * side
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image.filter(ImageFilter.GaussianBlur(1))


def recompressed(image, quality=25):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def marked(image):
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle((130, 172, 195, 190), fill=(240, 240, 240))
    return copy


CHANGES = {
    "recompressed": recompressed,
    "smaller": lambda image: image.resize((90, 70)),
    "larger": lambda image: image.resize((500, 500)),
    "in gray": lambda image: image.convert("L").convert("RGB"),
    "darker": lambda image: image.point(lambda value: value * 0.7),
    "marked": marked,
    "cropped in the middle": lambda image: image.crop((10, 10, 190, 190)),
    "cropped at a corner": lambda image: image.crop((0, 20, 180, 200)),
    "cropped at a side": lambda image: image.crop((14, 0, 200, 200)),
}
assert clusters(1, []) == []  # imports SciPy, before examples are timed
STOCK = [photograph(seed) for seed in range(40)]


def pairs_of(images, **options):
    return find_pairs(print_images(len(images), images.__getitem__, 1), **options)


def test_different_images_are_no_copies():
    assert pairs_of(STOCK) == []
    assert pairs_of(STOCK, flips=True) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found(change):
    changed = [CHANGES[change](image) for image in STOCK[:10]]
    found = {frozenset((pair.first, pair.second)) for pair in pairs_of([*STOCK, *changed])}
    wanted = {frozenset((row, 40 + row)) for row in range(10)}
    assert found <= wanted
    assert len(found) >= 9


def test_of_a_crop_the_part_is_known_and_the_first_image_shows_more():
    (pair,) = pairs_of([STOCK[0].crop((0, 20, 180, 200)), *STOCK[:3]])
    assert (pair.first, pair.second) == (1, 0)
    assert pair.part == pytest.approx((0.0, 0.1, 0.9, 1.0), abs=0.04)


def test_a_mirrored_copy_is_found_on_request():
    images = [*STOCK[:5], ImageOps.mirror(STOCK[2])]
    assert pairs_of(images) == []
    (pair,) = pairs_of(images, flips=True)
    assert (pair.first, pair.second, pair.mirrored, pair.part) == (2, 5, True, PARTS[0])


def test_images_that_show_nothing_are_copies_if_they_are_equally_bright():
    plain = [Image.new("RGB", (30, 30), color) for color in ("white", "white", "black")]
    assert [(pair.first, pair.second) for pair in pairs_of(plain)] == [(0, 1)]


def test_an_image_that_cannot_be_read_is_named_and_in_no_pair():
    def read(row):
        if row == 1:
            raise EnvironmentFailure("b.jpg does not decode")
        return STOCK[0]

    prints = print_images(3, read, 2)
    assert prints.reasons == {1: "b.jpg does not decode"}
    assert [(pair.first, pair.second) for pair in find_pairs(prints)] == [(0, 2)]


def test_the_blocks_of_a_comparison_are_squares():
    image = np.arange(copies.FINE**2, dtype=float).reshape(copies.FINE, copies.FINE)
    rng = np.random.default_rng(0)
    other = image + rng.normal(0, 1e-3, image.shape)
    other[: copies.FINE // 2, : copies.FINE // 2 - copies.EDGE] = rng.normal(0, 100, (16, 8))  # two blocks of 16
    assert copies.agreement(image, other) > 0.99


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] != pair[1])))
def test_groups_are_the_connected_images(edges):
    groups: list[set[int]] = [{row} for row in range(12)]
    for first, second in edges:
        one = next(group for group in groups if first in group)
        other = next(group for group in groups if second in group)
        if one is not other:
            groups.remove(other)
            one |= other
    found = clusters(12, [Pair(first, second, 0, 1.0, PARTS[0], False) for first, second in edges])
    assert found == sorted(sorted(group) for group in groups if len(group) > 1)
