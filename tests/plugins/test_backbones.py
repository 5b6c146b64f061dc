"""Backbones by name, their maps, and weights from files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hashzoo_plugins.backbones import fully_connected, timm, torchvision, weights
from hashzoo_plugins.backbones.pixels import Pixels
from hashzoo_plugins.backbones.scattering import LIGHT, ORIENTATIONS, Scattering, modulus
from hashzoo_plugins.backbones.vision_transformer import with_patch_tokens
from PIL import Image
from safetensors.torch import save_file
from torchvision import models as torchvision_models

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.registry import zoo
from hashzoo.registry.source import code_digest
from hashzoo.retrieval.heatmaps import grad_cam
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Split
from tests.oracles.toy import SETTING
from tests.shared_data import SHARED, needs

HOUSE = zoo.load_plugins()
needs_shared = needs("weights")


@pytest.mark.parametrize(
    ("family", "name", "dim", "maps"),
    [
        (torchvision, "resnet18", 512, (128, 256, 512)),
        (torchvision, "mobilenet_v2", 1280, (32, 96, 1280)),
        (torchvision, "squeezenet1_1", 512, (128, 256, 512)),
        (torchvision, "swin_t", 768, (192, 384, 768)),
        (torchvision, "vit_b_16", 768, ()),
        (timm, "resnet10t", 512, (128, 256, 512)),
        (timm, "swin_tiny_patch4_window7_224", 768, (192, 384, 768)),
        (timm, "vit_tiny_patch16_224", 192, ()),
    ],
)
def test_a_network_by_name_gives_pooled_features_and_its_last_three_maps(family, name, dim, maps):
    backbone = family.build(name, (3, 32, 32), weights="random").eval()
    assert name in family.names()
    side = backbone.input.size
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, side, side))
    assert features.pooled.shape == (2, dim) == (2, backbone.dim)
    assert tuple(m.shape[1] for m in features.maps) == maps == backbone.map_dims
    sides = [m.shape[2] for m in features.maps]
    assert sides == sorted(sides, reverse=True)
    assert backbone.weights == "random"


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "test_vit_relpos"])
def test_the_patch_tokens_of_a_vision_transformer_are_its_map_and_its_features_are_the_same(name):
    plain = timm.build(name, (3, 32, 32), weights="random").eval()
    images = torch.randn(2, 3, plain.input.size, plain.input.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled, keys = plain(images).pooled, list(plain.state_dict())
        backbone = with_patch_tokens(lambda: plain)().eval()
        features, tokens = backbone(images), backbone.network.forward_features(images)
    assert torch.equal(features.pooled, pooled)
    assert features.maps[0].shape == (2, *backbone.map_dims, 10, 10)
    assert torch.equal(features.maps[0][:, :, 1, 2], tokens[:, 12 - 100])  # the class token comes first
    assert list(backbone.state_dict()) == keys
    assert (backbone.dim, backbone.weights, backbone.input) == (plain.dim, plain.weights, plain.input)


def test_grad_cam_looks_at_the_patches_of_a_network_whose_features_are_its_class_token():
    factory = HOUSE.backbone("timm/test_vit").factory
    torch.manual_seed(0)
    method = HOUSE.method("linear+dch").factory(SETTING, factory((3, 32, 32), weights="random")).eval()
    seen = grad_cam(method, Batch((torch.randn(2, 3, 160, 160),), torch.eye(2), torch.arange(2)))
    assert seen.shape == (2, 10, 10)
    assert float(seen.amax()) > 0


def test_other_networks_of_timm_and_the_keys_of_cells_stay_as_they_are():
    made = with_patch_tokens(timm.build)
    assert type(made("resnet10t", (3, 32, 32), weights="random")) is timm.Timm
    assert code_digest(made) == code_digest(timm.build)


def test_resnet18_without_its_classifier_has_the_parameters_of_the_source():
    backbone = torchvision.build("resnet18", (3, 32, 32), weights="random")
    assert sum(p.numel() for p in backbone.parameters()) == 11_176_512


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]),
        ("resnet50", ["layer4.2.conv1", "layer4.2.conv2", "layer4.2.conv3"]),
        ("vgg11", ["features.13", "features.16", "features.18"]),
    ],
)
def test_the_last_three_convolutions_are_on_the_way_and_change_no_pooled_feature(name, expected):
    torch.manual_seed(0)
    stages = torchvision.build(name, (3, 32, 32), weights="random").eval()
    torch.manual_seed(0)
    taken = torchvision.build(name, (3, 32, 32), weights="random", taps="convolutions").eval()
    assert [found[0] for found in taken._tap._found] == expected
    with torch.no_grad():
        x = torch.randn(1, 3, 96, 96)
        kept = {}
        module = dict(taken.network.named_modules())[expected[-1]]
        module.register_forward_hook(lambda m, i, out: kept.update(last=out))
        torch.testing.assert_close(taken(x).pooled, stages(x).pooled)
        assert torch.equal(taken(x).maps[-1], kept["last"])


@pytest.mark.parametrize(("layer", "after"), [("fc6", 3), ("fc7", 6)])
def test_alexnet_with_its_fully_connected_layers_gives_the_output_of_the_layer_after_its_relu(layer, after):
    torch.manual_seed(0)
    backbone = fully_connected.build("alexnet", (3, 32, 32), layer=layer, weights="random", size=64).eval()
    torch.manual_seed(0)
    whole = torchvision_models.alexnet().eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone(x)
        expected = whole.classifier[:after](torch.flatten(whole.avgpool(whole.features(x)), 1))
    torch.testing.assert_close(features.pooled, expected)
    assert (features.pooled >= 0).all()
    assert (backbone.dim, backbone.input.size) == (4096, 64)
    assert tuple(found.shape[1] for found in features.maps) == backbone.map_dims == (192, 256, 256)


@pytest.mark.parametrize("name", ["vgg16", "vgg11_bn"])
def test_vgg_ends_with_the_relu_of_the_layer(name):
    for layer, kinds in (("fc6", ["Linear", "ReLU"]), ("fc7", ["Linear", "ReLU", "Dropout", "Linear", "ReLU"])):
        with torch.device("meta"):
            network = fully_connected.cut(torchvision_models.get_model(name), layer)
        assert [type(one).__name__ for one in network.classifier] == kinds
    assert {"alexnet", name} <= {*fully_connected.names()}


def test_pixels_are_the_flattened_image():
    x = torch.arange(8.0).view(2, 1, 2, 2)
    assert torch.equal(Pixels((1, 2, 2))(x).pooled, x.view(2, 4))


@pytest.fixture
def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_either_kind_of_file_in_half_precision_too(network, suffix, tmp_path):
    state = {name: value.half() for name, value in network.state_dict().items()}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    other = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    weights.load(other, path, ())
    assert torch.equal(other[0].weight, state["0.weight"].float())
    assert other[0].weight.dtype == torch.float32


def test_missing_unexpected_and_misshapen_keys_are_listed(network, tmp_path):
    save_file(
        {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "new": torch.zeros(1)}, tmp_path / "w.safetensors"
    )
    with pytest.raises(UsageError, match=r"2 missing \(1.bias, 1.weight\); 1 unexpected \(new\); 1 of another shape"):
        weights.load(network, tmp_path / "w.safetensors", ())


def test_keys_that_may_be_missing_keep_their_values(network, tmp_path):
    save_file({"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    before = network[1].weight.clone()
    weights.load(network, tmp_path / "w.safetensors", ("1.*",))
    assert torch.equal(network[1].weight, before)
    assert not network[0].weight.any()


def test_code_in_a_weights_file_is_never_run(network, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(EnvironmentFailure, match=r"evil\.pth"):
        weights.load(network, tmp_path / "evil.pth", ())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["none.pth", "junk.safetensors", "junk.pth", "empty.pth"])
def test_a_file_that_is_no_weights_is_named(network, name, tmp_path):
    if name.startswith("junk"):
        (tmp_path / name).write_bytes(b"junk" * 100)
    if name.startswith("empty"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=name):
        weights.load(network, tmp_path / name, ())


@needs_shared
def test_a_file_that_lacks_the_classifier_says_so_until_it_may():
    file = str(SHARED / "weights" / "mobilenet_v2_features_imagenet_bnfolded_fp16.safetensors")
    with pytest.raises(UsageError, match=r"classifier\.1\.bias"):
        torchvision.build("mobilenet_v2", (3, 224, 224), weights=file)
    backbone = torchvision.build("mobilenet_v2", (3, 224, 224), weights=file, allow_missing=("classifier.*",))
    assert backbone.trained_on == "ImageNet"
    assert weights.digest(Path(file)) in backbone.weights


@needs_shared
def test_real_weights_tell_real_images_apart_and_random_ones_hardly():
    stored = np.load(SHARED / "data" / "imagenette224_val.npz", allow_pickle=False)
    rows = np.linspace(0, len(stored["labels"]) - 1, 240).astype(int)
    jpeg, offsets = stored["jpeg"], stored["offsets"]
    images = [Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())) for i in rows]
    classes = torch.from_numpy(stored["labels"][rows].astype(np.int64))
    split = Split(images, torch.eye(10)[classes], torch.arange(len(rows)))

    def hits(which: str) -> float:
        backbone = torchvision.build("squeezenet1_1", (3, 224, 224), weights=which)
        x = Run(Budget(), 0, to=backbone.input).features(backbone, split).pooled
        x = torch.nn.functional.normalize(x, dim=1)
        nearest = (x @ x.T - 2 * torch.eye(len(x))).argmax(1)
        return float((classes[nearest] == classes).float().mean())

    real = hits(str(SHARED / "weights" / "squeezenet1_1_imagenet_fp16.safetensors"))
    assert real > 0.75
    assert real > hits("random") + 0.3


def test_wavelets_answer_to_edges_of_their_orientation_and_not_to_even_light():
    network = Scattering((1, 16, 16), grid=1)
    for scale in (0, 1):
        kernels = network.get_buffer(f"wavelets_{scale}")
        assert kernels.sum((1, 2, 3)).abs().max() < 1e-6
    even = network(torch.full((1, 1, 16, 16), 0.7))
    assert even.pooled[0, 0] == pytest.approx(LIGHT * 0.7)
    assert even.pooled[0, 1:].abs().max() < 0.1
    stripes = (torch.arange(16) // 2 % 2).float().expand(1, 1, 16, 16)  # upright: they vary along x
    fine = modulus(stripes, network.get_buffer("wavelets_0")).mean((2, 3))[0]
    assert int(fine.argmax()) == 0
    assert fine[0] > 3 * fine[ORIENTATIONS // 2]


def test_a_quarter_turn_of_the_image_turns_the_orientations():
    network = Scattering((1, 16, 16), grid=1)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    first, turned = (
        modulus(p, network.get_buffer("wavelets_0")).mean((2, 3))[0] for p in (image, image.rot90(1, (2, 3)))
    )
    assert torch.allclose(turned, first.roll(ORIENTATIONS // 2), atol=1e-5)


def test_scattering_does_not_see_contrast_and_hardly_a_shift():
    network = Scattering((1, 16, 16), grid=1)
    blob = torch.zeros(1, 1, 16, 16)
    blob[0, 0, 5:9, 6:8] = 0.8
    plain, faint, moved = (network(p).pooled[0, 1:] for p in (blob, 0.5 * blob, blob.roll((1, 1), (2, 3))))
    assert torch.cosine_similarity(plain, faint, dim=0) > 0.97
    assert torch.cosine_similarity(plain, moved, dim=0) > 0.999


def test_scattering_takes_colours_and_refuses_images_too_small_to_have_any_structure():
    colour = Scattering((3, 8, 8))
    assert colour(torch.rand(2, 3, 8, 8)).pooled.shape == (2, colour.dim)
    with pytest.raises(ValueError, match="4 x 4 pixels or more, not 3 x 8"):
        Scattering((1, 8, 3))
    with pytest.raises(ValueError, match="the grid must be at least 1, not 0"):
        Scattering((1, 8, 8), grid=0)


def test_timm_without_a_network_fails_at_once_in_one_line(monkeypatch, capfd):
    def refused(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("hashzoo_plugins.backbones.hub.getproxies", dict)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits"))
    with pytest.raises(EnvironmentFailure, match=r"timm/resnet10t: huggingface\.co cannot be reached") as failed:
        zoo.load_plugins().backbone("timm/resnet10t").factory((3, 32, 32))
    assert "\n" not in str(failed.value)
    assert capfd.readouterr() == ("", "")
