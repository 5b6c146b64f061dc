"""How an image reaches a backbone."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from hashzoo.data.image_files import ImageFiles, decode
from hashzoo.data.transforms import AUGMENTATIONS, as_tensor, augmentation, load_views, prepare
from hashzoo.training.budget import Budget
from hashzoo.types import Input, Rows, Split
from tests.data.odd_images import scene, stored, turned


@pytest.mark.parametrize("shape", [(3, 40, 60), (3, 60, 40), (1, 8, 8), (3, 224, 224), (3, 17, 301)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_any_image_becomes_the_square_that_the_backbone_takes(shape, crop):
    image = torch.randint(256, shape, dtype=torch.uint8)
    ready = prepare(image, Input(size=32, channels=3, crop=crop))
    assert ready.shape == (3, 32, 32)
    assert -1 <= float(ready.min()) <= float(ready.max()) <= 1


def test_the_crop_keeps_the_middle_of_the_shorter_side():
    image = torch.zeros(1, 40, 80, dtype=torch.uint8)
    image[:, :, 20:60] = 255  # the middle square of a wide image
    assert (prepare(image, Input(size=40)) == 1).all()
    framed = torch.zeros(1, 32, 32, dtype=torch.uint8)
    framed[:, 2:30, 2:30] = 255  # 28 of 32 are kept
    assert (prepare(framed, Input(size=28, crop=0.875)) == 1).all()


def test_an_image_of_the_right_size_is_only_scaled_and_normalised():
    image = torch.randint(256, (3, 9, 7), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = (image.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(prepare(image, Input(mean=mean, std=std)), expected)


def test_grey_images_are_repeated_for_a_network_that_wants_colour():
    image = torch.randint(256, (2, 1, 5, 5), dtype=torch.uint8)
    ready = prepare(image, Input(channels=3))
    assert ready.shape == (2, 3, 5, 5)
    assert torch.equal(ready[:, 0], ready[:, 2])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1"])
def test_a_file_of_any_mode_becomes_three_channels(mode):
    assert as_tensor(Image.new(mode, (6, 4))).shape == (3, 4, 6)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_an_augmentation_belongs_to_the_image_and_its_seed_not_to_the_batch(name):
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.zeros(6, 2), torch.arange(6))
    seeds = torch.arange(100, 106)

    def seen(groups):
        parts = [torch.tensor(g) for g in groups]
        batches = load_views(split, parts, [seeds[p] for p in parts], [augmentation(name)], Input())
        order = torch.cat(parts).argsort()
        return torch.cat([views[0] for views in batches])[order]

    whole = seen([[0, 1, 2, 3, 4, 5]])
    assert whole.shape == (6, 3, 8, 8)
    assert torch.equal(whole, seen([[5, 0], [3, 1, 2], [4]]))


@pytest.mark.parametrize(
    ("sides", "side", "expected"),
    [
        ((400, 300), 150, (200, 150)),
        ((400, 300), 151, (400, 300)),
        ((400, 300), 30, (50, 38)),
        ((300, 400), 75, (75, 100)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_fraction_that_has_the_size(sides, side, expected):
    image = scene(1, sides)
    assert decode(stored(image, "JPEG"), side).size == expected
    assert decode(stored(image, "JPEG")).size == decode(stored(image, "PNG"), side).size == sides
    upright = decode(stored(image, "JPEG", **turned(image, 6)), side)  # by a quarter, the sides are exchanged
    assert upright.size == expected[::-1]


class Photographs(ImageFiles):
    def __len__(self):
        return 3

    def read(self, row):
        return stored(scene(row, (400, 300)), "JPEG", quality=95)

    def name(self, row):
        return f"photograph {row}"

    stamp = name


@pytest.mark.parametrize("size", [32, 150, 224])
def test_a_drafted_image_is_close_to_the_resized_one_and_the_same_if_it_is_not_large_enough(size):
    images = Rows(Rows(Photographs(), [2, 1, 0]), [1, 2])
    split = Split(images, torch.zeros(2, 1), torch.arange(2))

    def first(target):
        return next(load_views(split, [torch.tensor([1])], [torch.tensor([0])], [None], target))[0]

    plain, drafted = first(Input(size=size, channels=3)), first(Input(size=size, channels=3, draft=True))
    assert drafted.shape == plain.shape
    assert torch.equal(drafted, plain) == (size == 224)
    assert (drafted - plain).abs().mean() < 0.06


def test_a_budget_without_drafts_has_the_key_that_it_had():
    assert "draft" not in Budget().recorded()
    assert Budget(draft=True).recorded()["draft"] is True
    assert repr(Input(draft=True)) == repr(Input())
