"""Gradients of every loss, registered or inside a method: finite differences at ordinary points, finite at corners."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.longtail import bbn, tsc
from hashzoo_plugins.pairwise import adsh, cnnh, dqn, dsdh
from hashzoo_plugins.pointwise import cibhash, shc

from hashzoo.registry import zoo
from hashzoo.testing import pretended_accelerator
from hashzoo.types import Batch, Output, Setting
from tests.oracles.toy import D

HOUSE = zoo.load_plugins()
BITS, CLASSES, BATCH = 4, 3, 6


def given_codes(loss):
    """A loss whose table of codes is full, as after an epoch."""
    draw = torch.Generator().manual_seed(3)
    loss.codes.copy_(torch.randint(0, 2, loss.codes.shape, generator=draw) * 2.0 - 1)
    return loss


def with_words(loss):
    loss.codebook.copy_(torch.randn(loss.codebook.shape, generator=torch.Generator().manual_seed(3)))
    return loss


def with_targets(loss):
    loss.targets.copy_(torch.eye(BITS)[:CLASSES])
    return loss


#: Losses that only their own method can use.
INSIDE = {
    "adsh (inside)": lambda setting: given_codes(adsh.Asymmetric(setting, gamma=2.0)),
    "bbn (inside)": bbn.Classification,
    "cibhash (inside)": lambda setting: cibhash.CIBHashLoss(0.3, 0.1),
    "cnnh (inside)": cnnh.Given,
    "dqn (inside)": lambda setting: with_words(dqn.DQNLoss(2, 4, BITS, 0.1)),
    "dsdh (inside)": lambda setting: given_codes(dsdh.TowardCodes(setting, eta=0.5)),
    "shc (inside)": lambda setting: shc.SHCLoss(setting, 0.1),
    "tsc (inside)": lambda setting: with_targets(
        tsc.Targeted(setting, k=2, temperature=0.1, pull=0.2, momentum=0.9, quantization=0.1)
    ),
}
LOSSES = sorted(HOUSE.losses) + sorted(INSIDE)

#: Losses of codes that their heads keep in (-1, 1).
BOUNDED = {"adsh (inside)", "bbn (inside)", "bcl", "csq", "dcoh", "dhd", "dnnh", "hybrid-sc", "lthnet", "sfdh"}
BOUNDED |= {"shc (inside)", "tsc (inside)", "two-level"}

#: The gradient that these pass on is not that of their value, by design; what it is, their own tests say.
STRAIGHT_THROUGH = {"bihalf", "cibhash (inside)", "greedyhash", "greedyhash-u", "knn-sign", "mdsh", "sprch", "wch"}


def loss_of(name, multilabel=False):
    torch.manual_seed(0)
    setting = Setting(BITS, CLASSES, multilabel, torch.tensor([20, 8, 2]), BATCH)
    try:
        factory = INSIDE[name] if name in INSIDE else HOUSE.losses[name].factory
        return factory(setting).double().eval()
    except ValueError as refused:
        pytest.skip(str(refused))


def value(loss, code, labels, progress=0.3):
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(BITS, CLASSES, generator=draw, dtype=D).to(code.device)
    extra = {"features": torch.randn(len(code), 5, generator=draw, dtype=D).to(code.device), "local": code}
    extra["patches"] = torch.randn(len(code), 3, 2, generator=draw, dtype=D).to(code.device)
    output, ids = Output(code, code @ mixing, extra), torch.arange(len(code), device=code.device)
    return sum(loss(output, Batch((None,), labels, ids, progress)).values())


def ordinary(count=BATCH):
    draw = torch.Generator().manual_seed(2)
    return 0.9 * torch.tanh(torch.randn(count, BITS, generator=draw, dtype=D))


def classes(*rows):
    return torch.eye(CLASSES, dtype=D)[list(rows)]


MIXED = classes(0, 0, 1, 1, 2, 0)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - STRAIGHT_THROUGH))
def test_the_gradient_of_every_loss_agrees_with_finite_differences(name):
    loss = loss_of(name)
    loss.train()
    code = ordinary().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: value(loss, c, MIXED), code, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e3])
def test_the_gradient_of_every_loss_is_finite_at_zero_and_far_out(name, size):
    far = ordinary().sign() * size
    if name in BOUNDED:  # what their heads make of an output as far as that
        far = torch.tanh(far)
    code = far.requires_grad_()
    for labels in (MIXED, classes(*[0] * BATCH)):
        found = value(loss_of(name), code, labels)
        (slope,) = torch.autograd.grad(found, code)
        assert torch.isfinite(found)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [classes(0, 0), classes(0, 1)], ids=["one similar pair", "one dissimilar pair"])
def test_every_loss_is_finite_for_a_batch_of_one_pair(name, labels):
    code = ordinary(2).requires_grad_()
    found = value(loss_of(name), code, labels)
    (slope,) = torch.autograd.grad(found, code)
    assert torch.isfinite(found)
    assert torch.isfinite(slope).all()


#: Losses of pairs, which one image cannot teach.
PAIRS = {n for n, entry in HOUSE.losses.items() if entry.factory.__module__.startswith("hashzoo_plugins.pairwise")} | {
    "cibhash (inside)",
    "dqn (inside)",
    "dsdh (inside)",
    "bihalf",
    "contrastive",
    "hswd",
    "two-level",
    "greedyhash-u",
    "knn-sign",
    "nsh",
    "sdc",
    "uhscm",
    "wch",
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_one_image_or_says_that_it_needs_two(name):
    loss, code = loss_of(name), ordinary(1).requires_grad_()
    if name in PAIRS:
        with pytest.raises(ValueError, match="two images"):
            value(loss, code, classes(0))
    else:
        (slope,) = torch.autograd.grad(value(loss, code, classes(0)), code)
        assert torch.isfinite(slope).all()


#: The numbers of images that these select from a batch are read.
SELECT = {"dcoh"}


@pytest.mark.parametrize(
    ("name", "labels"),
    [(name, MIXED) for name in sorted(set(LOSSES) - SELECT)]
    + [(name, classes(*[0] * BATCH)) for name in ("dnnh", "dtsh")],  # without triplets
)
def test_a_loss_has_the_same_value_and_slope_on_a_gpu_without_waiting_for_it(name, labels):
    def found(device):
        loss, code = loss_of(name).train().to(device), ordinary().to(device).requires_grad_()
        with torch.no_grad():
            value(loss, code, labels.to(device))  # what is read once
        reads.clear()
        total = value(loss, code, labels.to(device))
        total.backward()
        waits = dict(reads)
        return torch.cat([total.reshape(1), code.grad.flatten()]).detach().cpu(), waits

    with pretended_accelerator() as accelerator:
        reads = accelerator.reads
        there, waits = found(accelerator.device)
        assert waits == {}
        torch.testing.assert_close(there, found("cpu")[0])
