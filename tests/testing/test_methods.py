"""The contract fails broken methods for the right reason and passes correct ones."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch

from hashzoo import Card, Hamming, Method, Scan, bits
from hashzoo.registry import zoo
from hashzoo.testing import check_backbone, check_head, check_loss, check_method, methods, synthetic_splits
from hashzoo.testing.fixtures import range_findings
from hashzoo.testing.methods import fit_and_encode, most_frequent
from hashzoo.testing.parts import head_forward_backward, loss_forward_backward
from tests.accelerators import require_gpu

HOUSE = zoo.load_plugins()
SMALLER = {"dcoh": {"hidden": 128}, "lthnet": {"width": 64}, "cibhash": {"hidden": 64}}  # the papers' take a minute


class Sound(Method):
    """Random hyperplanes."""

    card = Card("shallow", "none")
    width = 1

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("w", torch.zeros(backbone.dim, self.width * setting.bits))

    def fit(self, train, run):
        self.mean = run.features(self.backbone, train).pooled.mean(0)
        self.w = torch.randn(self.w.shape, generator=run.generator).to(self.mean)

    def relaxed(self, batch):
        return (self.backbone(batch.images).pooled - self.mean) @ self.w

    def encode(self, batch):
        return {"code": bits(self.relaxed(batch))}


class WrongRows(Sound):
    def encode(self, batch):
        return {"code": bits(self.relaxed(batch))[:-1]}


class NoBits(Sound):
    def encode(self, batch):
        return {"code": self.relaxed(batch)}


class Unseeded(Sound):
    def fit(self, train, run):
        super().fit(train, run)
        self.w = torch.tensor([[random.gauss(0, 1) for _ in range(self.bits)] for _ in range(self.backbone.dim)])


class Stateless(Sound):
    def fit(self, train, run):
        super().fit(train, run)
        self.hidden, self.w = self.w, torch.zeros_like(self.w)

    def encode(self, batch):
        w = getattr(self, "hidden", self.w)
        return {"code": bits((self.backbone(batch.images).pooled - self.mean) @ w)}


class BatchDependent(Sound):
    def encode(self, batch):
        x = self.relaxed(batch)
        return {"code": x > x.mean(0)}


class OverBudget(Sound):
    width = 2


class LabelDependent(Sound):
    def encode(self, batch):
        code = bits(self.relaxed(batch))
        code[:, : batch.labels.shape[1]] ^= batch.labels.bool()
        return {"code": code}


class RemembersIds(Sound):
    def encode(self, batch):
        code = bits(self.relaxed(batch))
        known = (batch.ids >= 0) & (batch.ids < 240)  # the ids of train
        return {"code": torch.where(known[:, None], ~code, code)}


class ChanceLevel(Sound):
    def encode(self, batch):
        noise = batch.images.flatten(1).sum(1, keepdim=True) * 1e4
        return {"code": (torch.sin(noise * torch.arange(1, self.bits + 1)) > 0)}


class OneCode(Sound):
    def encode(self, batch):
        return {"code": bits(self.relaxed(batch) + 1e4)}


class OneCodeAfterTraining(OneCode):
    card = Card("deep", "none")


class Explained(OneCodeAfterTraining):
    card = Card("deep", "none", collapses="it is made to")


class Exits(Sound):
    def fit(self, train, run):
        raise SystemExit(1)


def failures(factory, **how):
    return {f.check: f.why for f in check_method(factory, **how) if not f.ok}


def test_a_correct_method_passes_every_check():
    assert failures(Sound) == {}


@pytest.mark.parametrize(
    ("method", "check", "says"),
    [
        (WrongRows, "rows", "79 rows of 'code' for 80 images"),
        (NoBits, "bits", "encode returned no bits"),
        (Unseeded, "seeded", "run.generator"),
        (Stateless, "state", "register_buffer"),
        (BatchDependent, "batch", "other images of a batch"),
        (OverBudget, "budget", "32 bits per image are stored, but 16 were requested"),
        (LabelDependent, "labels", "labels or ids"),
        (RemembersIds, "labels", "labels or ids"),
        (ChanceLevel, "level", "where chance is"),
        (OneCode, "collapse", "100% of the images have one code: center"),
        (OneCodeAfterTraining, "collapse", "one code of 16 bits after a short training at the rate 0.01: normalize"),
        (Exits, "fit and encode", "SystemExit"),
    ],
)
def test_a_broken_method_fails_the_right_check_with_the_reason(method, check, says):
    found = failures(method)
    assert check in found
    assert says in found[check]


def test_a_card_that_says_why_codes_collapse_is_accepted():
    assert failures(Explained).keys() == {"level"}


def test_a_mask_and_a_code_shorter_than_asked_for_do_not_count_as_codes():
    codes = {"code": torch.eye(4, dtype=torch.bool), "mask": torch.ones(4, 4, dtype=torch.bool)}
    index = Scan(Hamming("code"))
    index.add(codes)
    assert most_frequent(index, codes, 4) == 0.25
    assert most_frequent(index, codes | {"code": torch.eye(4, dtype=torch.bool)[[0, 0, 0, 1]]}, 4) == 0.75
    assert most_frequent(index, codes, 5) == 0.0


def test_the_state_of_the_callers_generators_is_preserved():
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    check_method(Sound)
    assert (torch.rand(1), random.random()) == expected


def method_for(name, multilabel):
    """The factory of a method, or skip: it does not take such labels."""
    entry = HOUSE.method(name)
    if not (entry.card.multilabel if multilabel else entry.card.single):
        pytest.skip("not for this kind of labels")
    if name not in SMALLER:
        return entry.factory  # a composition itself, whose options a partial would hide
    factory = partial(entry.factory, **SMALLER[name])
    factory.card = entry.card
    return factory


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", sorted(HOUSE.methods))
def test_every_built_in_method_passes_the_contract(name, multilabel, monkeypatch):
    # one short training a method, which takes a second; hashzoo check has four
    short = ((True, 16, 1e-4),) if multilabel else () if HOUSE.method(name).card.multilabel else ((False, 16, 1e-2),)
    monkeypatch.setattr(methods, "SHORT", short)
    found = failures(method_for(name, multilabel), multilabel=multilabel)
    assert found == ({"ranges": found["ranges"]} if name in SMALLER and "ranges" in found else {})


@pytest.mark.parametrize("name", sorted(HOUSE.methods))
def test_the_default_of_every_declared_range_of_a_built_in_method_is_inside(name):
    assert [one.why for one in range_findings(HOUSE.method(name).factory) if not one.ok] == []


@pytest.mark.parametrize("name", sorted(HOUSE.heads))
def test_every_built_in_head_passes_the_contract(name):
    assert [f for f in check_head(HOUSE.heads[name].factory) if not f.ok] == []


def extra_for(name):
    """What only the own head of a loss provides."""
    own = {"two-level": lambda code: {"local": code}, "wch": lambda code: {"patches": code[:, None]}}
    return own.get(name, lambda code: {"features": code})


@pytest.mark.parametrize("name", sorted(HOUSE.losses))
def test_every_built_in_loss_passes_the_contract(name):
    found = check_loss(HOUSE.losses[name].factory, extra=extra_for(name))
    assert [f for f in found if not f.ok] == []


@pytest.mark.gpu
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", sorted(HOUSE.methods))
def test_every_built_in_method_runs_on_a_gpu(name, multilabel):
    require_gpu()
    assert fit_and_encode(method_for(name, multilabel), synthetic_splits(multilabel), 16, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(HOUSE.heads))
def test_every_built_in_head_runs_on_a_gpu(name):
    require_gpu()
    head_forward_backward(HOUSE.heads[name].factory, 16, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(HOUSE.losses))
def test_every_built_in_loss_runs_on_a_gpu(name):
    require_gpu()
    loss_forward_backward(HOUSE.losses[name].factory, 16, extra_for(name), "cuda")


@pytest.mark.parametrize("name", ["tiny", "pixels", "scattering"])
def test_every_small_backbone_passes_the_contract(name):
    assert [f for f in check_backbone(HOUSE.backbones[name].factory) if not f.ok] == []


def test_a_method_that_requires_several_labels_is_checked_with_such_images():
    class Several(Sound):
        card = Card("shallow", "none", single=False)

        def __init__(self, setting, backbone):
            assert setting.multilabel
            super().__init__(setting, backbone)

    assert failures(Several) == {}


def test_a_loss_that_changes_labels_fails():
    class Greedy(torch.nn.Module):
        def __init__(self, setting):
            super().__init__()

        def forward(self, output, batch):
            batch.labels.div_(2)
            return {"x": (output.code.sum(1) * batch.labels.sum(1)).sum()}

    assert "twice" in {f.check for f in check_loss(Greedy) if not f.ok}
