"""What methods need of a training set, declared by plugins and checked before anything is trained."""

from __future__ import annotations

import pytest
import torch

from hashzoo import Split, Splits, TrainingFacts
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.plan import plan
from hashzoo.registry.zoo import Entry, load_plugins

PLUGIN = """
from hashzoo import Card, Method, TrainingFacts, bits, hookimpl


class Mine(Method):
    \"\"\"One bit per feature.\"\"\"

    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.bits = backbone, setting.bits

    def fit(self, train, run):
        raise AssertionError("trained")

    def encode(self, batch):
        return {"code": bits(self.backbone(batch.images).pooled[:, : self.bits])}


@hookimpl
def hashzoo_methods():
    return {"mine": Mine}


@hookimpl
def hashzoo_requirements():
    def check(facts: TrainingFacts) -> str:
        return "" if facts.batch >= facts.classes else f"a batch of {facts.classes} is needed, not {facts.batch}"

    return {"mine": check}
"""


def few(images: int, unlabelled: int = 0):
    """A dataset of so many training images in three classes."""

    def dataset() -> Splits:
        def split(count: int, blank: int = 0) -> Split:
            labels = torch.eye(3)[torch.arange(count) % 3]
            labels[:blank] = 0
            return Split(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), labels, torch.arange(count))

        return Splits(split(images, unlabelled), split(9), split(3), bool(unlabelled), ("a", "b", "c"))

    return dataset


def reason(method: str, bits: int, dataset, zoo=None, batch: int = 64, **options) -> str:
    zoo = zoo or load_plugins()
    zoo.datasets["few"] = Entry("few", dataset, "test", "")
    values = {"name": "x", "dataset": "few", "backbone": "tiny", "bits": [bits], "methods": [method]}
    file = Benchmark.model_validate(values | {"train": {"batch": batch}, "set": {method: options} if options else {}})
    (job,) = plan(file, zoo)
    return job.refusal


@pytest.mark.parametrize("method", ["itq", "pcah", "ssh"])
def test_a_direction_per_bit_needs_as_many_training_images(method):
    assert "as many training images as bits: 24 bits, 17 images" in reason(method, 24, few(17))
    assert reason(method, 17, few(17)) == ""


@pytest.mark.parametrize("method", ["bre", "cosdish", "fsdh", "ksh", "lsh", "s3plh", "sdh", "sh"])
def test_a_closed_form_that_trains_on_fewer_images_than_bits_is_not_refused(method):
    assert reason(method, 24, few(5)) == ""


def test_a_laplacian_embedding_needs_more_anchors_than_bits():
    assert "more training images than bits" in reason("imh", 24, few(24), embedding="laplacian")
    assert reason("imh", 24, few(25), embedding="laplacian") == ""
    assert reason("imh", 24, few(24)) == ""


@pytest.mark.parametrize("method", ["imh", "cca-itq", "dhn", "tanh+csq"])
def test_a_single_training_image_is_too_few(method):
    assert method in reason(method, 8, few(1))
    assert reason(method, 8, few(2)) == ""


@pytest.mark.parametrize("method", ["csq", "dhd", "dpn", "orthohash", "orthohash-arc", "shc", "tanh+csq"])
def test_a_center_for_each_image_needs_a_label_for_each(method):
    text = reason(method, 8, few(30, unlabelled=4))
    assert "at least one label per image, and 4 of the 30 training images have none" in text
    assert method in text
    assert reason(method, 8, few(30)) == ""


def test_a_plugin_declares_what_its_method_needs(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    zoo = load_plugins([str(tmp_path / "mine.py")])
    assert reason("mine", 8, few(9), zoo, batch=2) == "mine: a batch of 3 is needed, not 2"
    assert reason("mine", 8, few(9), zoo, batch=3) == ""
    assert zoo.plugins[-1].offers == ("method mine",)


@pytest.mark.parametrize("method", sorted(load_plugins().requirements))
def test_a_requirement_says_nothing_of_what_is_not_known(method):
    assert load_plugins().unmet(method, TrainingFacts(bits=64, batch=8, options={})) == ""


def test_a_requirement_or_an_outline_that_raises_is_passed_over():
    zoo = load_plugins()
    for name, broken in (("lsh", lambda facts: 1 / 0), ("few", lambda name, options: 1 / 0)):
        zoo.requirements[name] = zoo.outlines[name] = Entry(name, broken, "test", "")
    assert reason("lsh", 8, few(9), zoo) == ""
    assert zoo.outline("dataset", "few", {}) is None
