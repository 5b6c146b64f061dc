"""Two streams on one image, and the views that teach each other."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest
import torch
from hashzoo_plugins.backbones.dual_stream import build, renormalised, resized, small
from hashzoo_plugins.pointwise.views import Views

from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.types import Input


def test_the_small_pair_joins_both_streams_and_gives_the_local_maps():
    torch.manual_seed(0)
    pair = small((1, 8, 8)).eval()
    with torch.no_grad():
        features = pair(torch.randn(2, 3, 32, 32))
        assert features.pooled.shape == (2, pair.dim) == (2, pair.local.dim + pair.context.dim)
        pair.alpha.fill_(0.0)
        assert (pair(torch.randn(2, 3, 32, 32)).pooled[:, : pair.local.dim] == 0).all()
    assert tuple(m.shape[1] for m in features.maps) == pair.map_dims
    assert [m.shape[2] for m in features.maps] == [16, 8, 4]
    assert pair.eyes == (*pair.local.eyes, *pair.context.eyes)


def test_any_two_backbones_join_and_a_pair_of_pairs_is_refused():
    pair = build(
        (3, 64, 64),
        local="torchvision/squeezenet1_1",
        context="timm/resnet10t",
        size=64,
        local_weights="random",
        context_weights="random",
    ).eval()
    with torch.no_grad():
        assert pair(torch.randn(1, 3, 64, 64)).pooled.shape == (1, 1024)
    assert pair.weights == "random + random"
    with pytest.raises(UsageError, match=r"dual-stream cannot contain dual-stream\.small"):
        build((3, 64, 64), local="dual-stream.small")


@pytest.mark.parametrize(
    ("options", "local", "context"),
    [({}, 300, 224), ({"local_size": 96}, 96, 224), ({"size": 64}, 64, 64), ({"size": 64, "local_size": 80}, 80, 64)],
)
def test_the_local_stream_sees_300_pixels_beside_224_or_what_is_asked_for(options, local, context):
    pair = build((3, 32, 32), local="tiny", context="tiny", **options).eval()
    assert pair.input.size == max(local, context)
    seen = []
    for stream in (pair.local, pair.context):
        stream.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    images = torch.rand(1, 3, pair.input.size, pair.input.size)
    with torch.no_grad():
        pair(images)
    assert [tuple(given.shape[2:]) for given in seen] == [(local, local), (context, context)]
    larger = seen[0] if local >= context else seen[1]
    assert torch.equal(larger, images)


def test_a_stream_of_half_the_side_sees_triangular_means():
    row = torch.tensor([0.0, 0, 8, 0, 0, 0])  # antialiased: weights 1/8, 3/8, 3/8, 1/8 of four pixels, 1/2 of three
    image = row.expand(1, 1, 6, 6)
    assert resized(image, None) is image
    assert resized(image, 6) is image
    torch.testing.assert_close(resized(image, 3)[0, 0, 0], torch.tensor([8 / 7, 3.0, 0.0]))


def test_weights_that_no_stream_takes_and_sizes_that_one_refuses_are_named():
    with pytest.raises(UsageError, match="tiny takes no weights, but '/no/such/file' was given"):
        build((3, 64, 64), local="tiny", context="tiny", size=64, local_weights="/no/such/file")
    with pytest.raises(UsageError, match="does not accept images of 256 pixels"):
        build(
            (3, 64, 64),
            local="tiny",
            context="timm/swin_tiny_patch4_window7_224",
            size=256,
            context_weights="random",
        )


def test_each_stream_sees_images_normalised_its_own_way():
    now, wanted = Input(mean=(0.5,), std=(0.5,)), Input(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    plain = torch.rand(2, 3, 4, 4)
    given = (plain - 0.5) / 0.5
    expected = (plain - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    torch.testing.assert_close(renormalised(given, now, wanted), expected)
    assert renormalised(given, now, now) is given


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 48, 31), (1, 1, 1)])
def test_a_view_keeps_shape_and_type_of_any_image(shape):
    image = torch.randint(256, shape, dtype=torch.uint8)
    for seed in range(20):
        torch.manual_seed(seed)
        view = Views(1.0, True, 0.08)(image)
        assert (view.shape, view.dtype) == (shape, torch.uint8)


def test_a_view_of_strength_0_is_the_image_and_one_of_a_seed_is_the_same_twice():
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    assert torch.equal(Views(0.0, True, 0.08)(image), image)
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seen.append(Views(1.0, True, 0.08)(image))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_strength_scales_how_often_a_view_differs_and_not_how_much():
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8)

    def changed(strength):
        torch.manual_seed(0)
        return sum(not torch.equal(Views(strength, False, 1.0)(image), image) for _ in range(400)) / 400

    # color jitter and grayscale remain: no flip, a crop of all of a square, and a blur too small for 16 pixels
    for strength in (0.2, 0.5, 1.0):
        expected = 1 - (1 - 0.8 * strength) * (1 - 0.2 * strength)
        assert changed(strength) == pytest.approx(expected, abs=0.06)


def test_a_strength_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"in 0\.\.1, not 2"):
        Views(2, True, 0.08)


REAL = textwrap.dedent("""
    import resource, torch
    from hashzoo import zoo
    from hashzoo.run import Run
    from hashzoo.training.budget import Budget
    from hashzoo.types import Split, Splits

    backbone = zoo.load().backbone("dual-stream").factory(
        (3, 224, 224), local_weights="random", context_weights="random"
    )
    count = lambda module: sum(p.numel() for p in module.parameters())
    print("parameters", count(backbone.local), count(backbone.context), backbone.dim, *backbone.map_dims)
    images = torch.randint(256, (4, 3, 224, 224), dtype=torch.uint8)
    part = Split(images, torch.eye(2)[torch.arange(4) % 2], torch.arange(4))
    data = Splits(part, part, part, False, ("a", "b"))
    method = zoo.load().method("swin-dual-stream").factory(data.setting(64), backbone)
    run = Run(Budget(epochs=1, batch=4, lr=1e-4), 0, to=backbone.input)
    before = [p.detach().clone() for p in (backbone.alpha, *list(backbone.context.parameters())[:1])]
    method.fit(part, run)
    after = [backbone.alpha, *list(backbone.context.parameters())[:1]]
    print("moved", *(not torch.equal(a, b) for a, b in zip(before, after)))
    print("input", backbone.input.size, *backbone.sides)
    print("code", tuple(encode(run, method, part)["code"].shape))
    print("GiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
""")


@pytest.mark.slow
def test_the_papers_pair_trains_a_step_and_encodes_at_300_and_224_pixels_within_8_gib():
    assert resource.getpagesize() > 0  # ru_maxrss is in KiB on Linux, where this runs
    found = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True).stdout
    lines = dict(line.split(" ", 1) for line in found.strip().splitlines())
    assert lines["parameters"] == "10696232 86743224 2560 48 136 1536"
    assert lines["moved"] == "True True"
    assert lines["input"] == "300 300 224"
    assert lines["code"] == "(4, 64)"
    assert float(lines["GiB"]) < 8


def test_the_pair_is_listed_with_what_it_is():
    assert "EfficientNet-B3 and Swin-B" in zoo.load_plugins().backbone("dual-stream").doc
