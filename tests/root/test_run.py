"""What a fit may use: batches, schedules, optimizers, steps, features."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hashzoo_plugins.backbones.tiny import Tiny
from PIL import Image
from pydantic import ValidationError
from torch import nn

from hashzoo.backbone import Backbone
from hashzoo.bench.frozen_features import Freezer
from hashzoo.data.integrity import drop_bad_images, inspect_splits
from hashzoo.data.transforms import augmentation
from hashzoo.errors import NonFiniteError
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Features, Input, Split, Splits


def split(count=20, side=6):
    images = torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Split(images, torch.eye(4)[torch.arange(count) % 4], torch.arange(count))


class Lazy(list):
    """PIL images that stand for files."""


def lazy(count=12):
    generator = np.random.default_rng(0)
    images = Lazy(Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count))
    return Split(images, torch.eye(4)[torch.arange(count) % 4], torch.arange(count))


def a_run(seed=0, **train):
    return Run(Budget(**{"epochs": 3, "batch": 4, "lr": 0.1, **train}), seed)


def rates(schedule, epochs=5):
    run = a_run(schedule=schedule, epochs=epochs)
    layer = nn.Linear(1, 1)
    optimizer = run.optimizer(layer)
    seen = []
    for _ in run.batches(split()):
        run.step(optimizer, {"x": layer.weight.sum()})
        seen.append(optimizer.param_groups[0]["lr"])
    return seen, optimizer.param_groups[0]["lr"]


def test_the_cosine_ends_at_zero_and_falls_every_step():
    seen, last = rates("cosine")
    assert seen[0] == 0.1
    assert all(b < a for a, b in pairwise(seen))
    assert last == 0


def test_the_rate_rises_linearly_over_the_epochs_of_the_warm_up():
    run = a_run(schedule="constant", epochs=4, warmup=1.5)
    layer = nn.Linear(1, 1)
    optimizer = run.optimizer(layer)
    seen = []
    for _ in run.batches(split()):
        run.step(optimizer, {"loss": layer.weight.sum()})
        seen.append(optimizer.param_groups[0]["lr"] / run.train.lr)
    steps = len(seen) // 4
    warm = 1.5 * steps
    assert seen == pytest.approx([min(1.0, (step + 1) / warm) for step in range(len(seen))])
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("values", "says"),
    [({"patience": 3}, "patience needs select"), ({"warmup": 9.0, "epochs": 3}, "warmup of 9 epochs is longer")],
)
def test_values_of_a_budget_that_exclude_each_other_are_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        Budget(**values)


def test_the_step_schedule_divides_by_ten_twice_and_the_constant_stays():
    seen, last = rates("step")
    assert np.unique(np.round(seen, 6)).tolist() == [0.001, 0.01, 0.1]
    assert last == pytest.approx(0.001)
    assert set(rates("constant")[0]) == {0.1}


def test_the_backbone_trains_at_its_own_fraction_and_modules_at_theirs():
    run = a_run(backbone_lr=0.1)
    optimizer = run.optimizer(Tiny((1, 6, 6)), nn.Linear(2, 2), (nn.Linear(2, 2), 0.5), nn.ReLU(), lr=2)
    assert [group["base"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.2, 0.1])


def test_a_parameter_shared_by_two_modules_is_trained_once():
    layer = nn.Linear(2, 2)
    optimizer = a_run().optimizer(layer, nn.Sequential(layer, nn.Linear(2, 2)))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]


def test_every_image_comes_once_an_epoch_and_progress_runs_from_0_to_1():
    run = a_run()
    found = list(run.batches(split()))
    assert len(found) == 15
    assert sorted(torch.cat([b.ids for b in found[:5]]).tolist()) == list(range(20))
    assert found[0].progress == 0
    assert found[-1].progress == pytest.approx(14 / 15)
    assert run.progress == 1


def test_the_last_batch_of_every_pass_says_so_also_where_one_of_one_is_dropped():
    for images, size, batches in ((40, 20, 2), (41, 20, 2), (50, 20, 3)):
        found = [b.ends_epoch for b in a_run(epochs=3, batch=size).batches(split(images))]
        assert found == ([False] * (batches - 1) + [True]) * 3


def test_a_last_batch_of_one_is_dropped():
    assert [len(b) for b in a_run(epochs=1).batches(split(9))] == [4, 4]
    assert [len(b) for b in a_run(epochs=1).batches(split(10))] == [4, 4, 2]


def test_weights_draw_in_proportion():
    weights = torch.tensor([1.0, 3.0, 0.0, 0.0] * 5)
    drawn = torch.cat([b.ids for b in a_run(epochs=200).batches(split(), weights=weights)])
    assert not ((drawn % 4) > 1).any()
    share = float((drawn % 4 == 1).float().mean())
    assert share == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / len(drawn)) ** 0.5)


def test_two_samplers_run_side_by_side():
    run, data = a_run(), split()
    pairs = list(zip(run.batches(data), run.batches(data, weights=torch.ones(20)), strict=True))
    assert len(pairs) == 15
    assert all(a.progress == b.progress for a, b in pairs)


def test_one_seed_gives_one_order_and_another_seed_another():
    orders = [torch.cat([b.ids for b in a_run(seed).batches(split())]).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_batches_do_not_depend_on_the_number_of_workers(augment):
    def images(workers):
        run = Run(Budget(epochs=2, batch=4, augment=augment), 0, to=Input(size=6, channels=3), workers=workers)
        return torch.cat([batch.images for batch in run.batches(lazy())])

    assert torch.equal(images(0), images(2))


def test_augmentation_is_each_images_own_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same = Split(split(1).images.repeat(64, 1, 1, 1), torch.ones(64, 1), torch.arange(64))
    (batch,) = a_run(epochs=1, batch=64, augment="flip").batches(same)
    assert torch.equal(torch.rand(3), expected)
    assert len({p.numpy().tobytes() for p in batch.images}) == 2


def test_several_views_of_a_image_come_together():
    (batch,) = a_run(epochs=1, batch=64).batches(split(), views=[None, augmentation("flip")])
    plain, flipped = batch.views
    assert all(torch.equal(a, b) or torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True))
    assert not torch.equal(plain, flipped)


def test_a_loss_that_is_not_finite_names_its_term():
    run, layer = a_run(), nn.Linear(1, 1)
    with pytest.raises(NonFiniteError, match="'second' is nan"):
        run.step(run.optimizer(layer), {"first": layer.weight.sum(), "second": layer.bias.sum() * float("nan")})


def test_clipping_bounds_the_step():
    run, layer = a_run(optimizer="sgd", momentum=0.0, clip=1e-3, schedule="constant"), nn.Linear(1, 1)
    before = layer.weight.detach().clone()
    run.step(run.optimizer(layer), {"x": 1e6 * layer.weight.sum()})
    assert float((layer.weight.detach() - before).abs()) == pytest.approx(1e-4, rel=1e-3)


def test_features_restore_the_mode_and_are_kept_until_the_weights_change():
    run, data, backbone = a_run(), split(), Tiny((1, 6, 6), width=4)
    first = run.features(backbone, data)
    assert backbone.training
    assert not first.pooled.requires_grad
    assert run.features(backbone, data) is first
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    assert run.features(backbone, data) is not first


def test_encoding_sees_neither_labels_nor_ids():
    for batch in a_run().blank(split()):
        assert not batch.labels.any()
        assert (batch.ids == -1).all()
    for batch in a_run().blank(split(), ids=True):  # for databases of methods that learn codes of single images
        assert not batch.labels.any()
        assert (batch.ids >= 0).all()


class Counting(Backbone):
    """Counts the images it is shown."""

    def __init__(self):
        super().__init__()
        self.dim, self.map_dims, self.seen = 36, (1,), 0

    def forward(self, images):
        self.seen += len(images)
        return Features(images.flatten(1), (images,))


def frozen(backbone, data, run):
    whole = Splits(data, data, data, multilabel=False, class_names=())
    return Freezer(run, backbone, ["counting"]).frozen(whole, inspect_splits(whole))[0].train


def test_frozen_features_are_those_of_the_backbone_and_are_extracted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    run, data, backbone = a_run(epochs=1, batch=20), split(), Counting()
    expected = run.features(backbone, data)
    backbone.seen = 0
    kept = frozen(backbone, data, run)
    again = frozen(backbone, data, run)
    assert backbone.seen == len(data)
    assert isinstance(again.images, StoredFeatures)
    found = run.features(PrecomputedBackbone(backbone, maps=True), kept)
    assert torch.equal(found.pooled, expected.pooled)
    (batch,) = run.batches(kept)
    assert torch.equal(batch.images.maps[0], data.images[batch.ids].float() / 127.5 - 1)
    assert torch.equal(batch.images.pooled, expected.pooled[batch.ids])
    other = Split(255 - data.images, data.labels, data.ids)
    frozen(backbone, other, run)
    assert backbone.seen == 2 * len(data)


def test_a_damaged_feature_file_is_extracted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    run, data, backbone = a_run(), split(), Counting()
    frozen(backbone, data, run)
    (file,) = tmp_path.rglob("pooled.npy")
    file.write_bytes(file.read_bytes()[:-5])
    assert torch.equal(
        frozen(backbone, data, run).images[np.arange(len(data))].pooled, run.features(backbone, data).pooled
    )


def test_bf16_features_come_back_as_float32_and_near():
    data, backbone = split(), Tiny((1, 6, 6), width=4).eval()
    exact = a_run().features(backbone, data).pooled
    run = a_run(precision="bf16")
    near = run.features(run.place(backbone), data).pooled
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert torch.allclose(near, exact, atol=0.05)


def test_an_image_that_does_not_decode_is_found_by_its_row():
    class Damaged(list):
        def __getitem__(self, row):
            if row == 3:
                raise OSError("image file is truncated")
            return super().__getitem__(row)

    data = lazy()
    damaged = Split(Damaged(data.images), data.labels, data.ids)
    whole = Splits(damaged, data, data, multilabel=False, class_names=())
    assert inspect_splits(whole).bad == {"train": {3: "image file is truncated"}, "database": {}, "query": {}}
    assert drop_bad_images(whole, inspect_splits(whole)).train.ids.tolist() == [
        row for row in data.ids.tolist() if row != 3
    ]
