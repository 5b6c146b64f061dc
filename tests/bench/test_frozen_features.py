"""Features of frozen backbones: computed once, by any number of threads, and views of images stored as draws."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hashzoo_plugins.backbones.tiny import Tiny
from hashzoo_plugins.pointwise.views import Views
from PIL import Image
from torchvision.transforms import v2

from hashzoo.backbone import Backbone
from hashzoo.bench.frozen_features import Freezer, view_name
from hashzoo.data.image_files import ImageFiles
from hashzoo.data.integrity import drop_bad_images, inspect_splits
from hashzoo.data.transforms import augmentation
from hashzoo.errors import EnvironmentFailure
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import StoredFeatures
from hashzoo.types import Features, Input, Split, Splits


class Drawer(ImageFiles):
    """PNG files in memory; some rows may be damaged."""

    def __init__(self, count, damaged=(), version=0):
        self.damaged, self.version, self.reads = damaged, version, 0
        noise = np.random.default_rng(version)
        self.files = [self._file(noise.integers(0, 256, (10, 12, 3), dtype=np.uint8)) for _ in range(count)]

    @staticmethod
    def _file(pixels):
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "PNG")
        return packed.getvalue()

    def __len__(self):
        return len(self.files)

    def read(self, row):
        self.reads += 1
        return b"nothing" if row in self.damaged else self.files[row]

    def name(self, row):
        return f"drawer/{row}.png"

    def stamp(self, row):
        return f"{self.version} {self.damaged} {row}"


class Counting(Backbone):
    """A small network that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.inner = Tiny((3, 8, 8), width=4)
        self.dim, self.map_dims, self.input = self.inner.dim, self.inner.map_dims, Input(size=8, channels=3)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.inner(images)


def data_of(files):
    whole = Split(files, torch.eye(2)[torch.arange(len(files)) % 2], torch.arange(len(files)))
    third = len(files) // 3
    rows = torch.arange(len(files)).flip(0)
    parts = [whole.take(part) for part in (rows[:third], rows[third : 2 * third], rows[2 * third :])]
    return Splits(*parts, multilabel=False, class_names=("a", "b"))


def run_of(draws=0):
    return Run(Budget(backbone="frozen", batch=8, epochs=2, draws=draws), 0, to=Input(size=8, channels=3))


def alike(count):
    torch.manual_seed(5)
    first = Counting()
    others = [Counting() for _ in range(count - 1)]
    for other in others:
        other.load_state_dict(first.state_dict())
    return [first, *others]


def freezer(run, backbones):
    first, *others = backbones
    return Freezer(run, first, ["x"], copies=lambda: others)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))


def test_image_files_are_looked_at_once_until_one_changes():
    files = Drawer(30)
    first = inspect_splits(data_of(files))
    assert files.reads == 30
    again = inspect_splits(data_of(files))
    assert files.reads == 30
    assert first == again
    other = inspect_splits(data_of(Drawer(30, version=1)))
    assert other.digests["train"] != first.digests["train"]


def test_images_that_do_not_decode_are_named_and_left_out():
    data = data_of(Drawer(30, damaged=(0, 29)))
    found = inspect_splits(data)
    assert found.left_out == 2
    assert list(found.bad["train"]) == [0]
    assert found.bad["train"][0].startswith("drawer/29.png: ")
    left = drop_bad_images(data, found)
    assert [len(part) for part in left.parts().values()] == [9, 10, 9]
    nothing = data_of(Drawer(30, damaged=tuple(range(20, 30))))
    found = inspect_splits(nothing)
    with pytest.raises(EnvironmentFailure, match="no image of the train split decodes"):
        drop_bad_images(nothing, found)


@pytest.mark.parametrize("threads", [2, 3])
def test_what_is_extracted_does_not_depend_on_the_number_of_threads(threads, tmp_path, monkeypatch):
    data = data_of(Drawer(300, damaged=(7,)))
    found = inspect_splits(data)
    sound = drop_bad_images(data, found)
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "one"))
    one, _ = Freezer(run_of(), *alike(1), ["x"]).frozen(sound, found)
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "more"))
    more, _ = freezer(run_of(), alike(threads)).frozen(sound, found)
    for part in one.parts():
        a, b = (side.parts()[part].images[np.arange(len(one.parts()[part]))] for side in (one, more))
        assert torch.equal(a.pooled, b.pooled)
        assert all(torch.equal(x, y) for x, y in zip(a.maps, b.maps, strict=True))


def test_each_image_file_is_seen_once_whatever_parts_it_is_in():
    data = data_of(Drawer(60))
    data = replace(data, database=data.train)
    backbones = alike(1)
    frozen, _ = Freezer(run_of(), *backbones, ["x"]).frozen(data, inspect_splits(data))
    Freezer(run_of(), *backbones, ["x"]).frozen(data, inspect_splits(data))
    assert backbones[0].seen == 60
    (batch,) = run_of().batches(frozen.train, epochs=1, size=100, shuffle=False)
    assert len(batch) == len(data.train)
    direct = next(run_of().blank(data.train, size=100)).images
    assert torch.allclose(batch.images.pooled, backbones[0].eval()(direct).pooled, atol=1e-6)


def test_a_damaged_map_is_refused_when_it_is_read_and_extracted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    data, backbones = data_of(Drawer(30)), alike(1)
    found = inspect_splits(data)

    def batch():
        frozen, _ = Freezer(run_of(), *backbones, ["x"]).frozen(data, found)
        return frozen.train.images[np.arange(3)]

    sound = batch().maps[0]
    (file,) = tmp_path.glob("features/*/map0.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert torch.equal(batch().pooled, batch().pooled)
    with pytest.raises(EnvironmentFailure, match=f"{file} were damaged and are removed"):
        batch().maps[0]
    assert torch.equal(batch().maps[0], sound)


def test_a_part_of_stored_features_is_stored_features():
    data = data_of(Drawer(60))
    frozen, _ = Freezer(run_of(), *alike(1), ["x"]).frozen(data, inspect_splits(data))
    rows = torch.tensor([3, 1, 1])
    some = frozen.train.take(rows)
    assert isinstance(some.images, StoredFeatures)
    assert torch.equal(some.images[np.arange(3)].pooled, frozen.train.images[rows.numpy()].pooled)
    assert len(list(run_of().batches(some, epochs=1, size=3))) == 1


def test_draws_of_a_view_are_stored_once_and_each_is_one_of_them():
    data = data_of(Drawer(60))
    backbones, run = alike(1), run_of(draws=3)
    view = v2.RandomResizedCrop(8, antialias=True)
    frozen, _ = Freezer(run, *backbones, ["x"]).frozen(data, inspect_splits(data))
    before = backbones[0].seen
    images = frozen.train.images
    rows = torch.arange(20)
    drawn = [images.under_view(view, rows, torch.full((20,), seed)).pooled for seed in range(6)]
    assert backbones[0].seen == before + 3 * 20
    for first, second in zip(drawn[:3], drawn[3:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], images[rows.numpy()].pooled)
    assert torch.equal(images.under_view(None, rows, rows).pooled, images[rows.numpy()].pooled)
    again, _ = Freezer(run_of(draws=3), *backbones, ["x"]).frozen(data, inspect_splits(data))
    assert torch.equal(again.train.images.under_view(view, rows, torch.full((20,), 1)).pooled, drawn[1])
    assert backbones[0].seen == before + 3 * 20
    first, second = next(iter(run.batches(frozen.train, views=[view, None], size=20))).views
    assert isinstance(first, Features)
    assert not torch.equal(first.pooled, second.pooled)


def test_two_views_of_a_image_are_two_draws():
    data = data_of(Drawer(60))
    view, run = v2.RandomResizedCrop(8, antialias=True), run_of(draws=2)
    frozen, _ = Freezer(run, *alike(1), ["x"]).frozen(data, inspect_splits(data))
    for batch in run.batches(frozen.train, views=[view, view]):
        first, second = (features.pooled for features in batch.views)
        assert (first != second).any(1).all()


def test_draws_of_images_cut_to_another_size_or_of_other_rows_are_other_draws():
    view, rows = v2.RandomHorizontalFlip(0.5), torch.arange(10)
    found = []
    for form, order in (("", 1), ("cut to 4", 1), ("", -1)):
        files = Drawer(60)
        files.form = form
        data = data_of(files)
        data = replace(data, train=data.train.take(torch.arange(20) if order == 1 else torch.arange(10, 20)))
        backbones, run = alike(1), run_of(draws=1)
        frozen, _ = Freezer(run, *backbones, ["x"]).frozen(data, inspect_splits(data))
        before = backbones[0].seen
        frozen.train.images.under_view(view, rows, rows)
        found.append(backbones[0].seen - before)
    assert found == [20, 20, 10]


def test_without_draws_every_view_is_the_image_itself():
    data = data_of(Drawer(60))
    frozen, _ = Freezer(run_of(), *alike(1), ["x"]).frozen(data, inspect_splits(data))
    rows = torch.arange(20)
    seen = frozen.train.images.under_view(v2.RandomHorizontalFlip(), rows, rows)
    assert torch.equal(seen.pooled, frozen.train.images[rows.numpy()].pooled)


def test_a_view_that_cannot_be_told_from_others_is_refused():
    assert view_name(v2.RandomHorizontalFlip(0.3)) != view_name(v2.RandomHorizontalFlip(0.4))
    assert view_name(augmentation("crop-flip")).startswith("hashzoo.data.transforms.crop_flip ")
    assert view_name(Views(1.0, flip=True, crop=0.5)) != view_name(Views(1.0, flip=True, crop=0.6))
    module = torch.nn.Identity()
    for view in (lambda image: image, module, module.forward, v2.Lambda(lambda image: image)):
        with pytest.raises(ValueError, match="draws = 0"):
            view_name(view)


def test_what_could_not_be_read_this_time_is_looked_at_again_the_next_time():
    class Locked(Drawer):
        locked = True

        def read(self, row):
            if self.locked and row == 3:
                raise PermissionError("it is locked")
            return super().read(row)

    files = Locked(30)
    assert inspect_splits(data_of(files)).left_out == 1
    files.locked = False
    assert inspect_splits(data_of(files)).left_out == 0


def test_features_left_half_written_by_a_killed_process_are_cleared_away(tmp_path):
    data = data_of(Drawer(60))
    Freezer(run_of(), *alike(1), ["x"]).frozen(data, inspect_splits(data))
    (folder,) = [found for found in (tmp_path / "features").iterdir() if found.is_dir()]
    left = folder.with_name(f"{folder.name}.abc.tmp")
    folder.rename(left)
    Freezer(run_of(), *alike(1), ["x"]).frozen(data, inspect_splits(data))
    assert folder.is_dir()
    assert not left.exists()
