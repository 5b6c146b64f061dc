"""Losses that are not finite end the training; on an accelerator they are looked for once per epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo import NonFiniteError
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, pretended_accelerator, synthetic_splits
from hashzoo.training.budget import Budget

DATA = synthetic_splits()


def reads(method, device_reads, name, **budget):
    """The number of reads of an epoch of training."""
    run = Run(Budget(epochs=1, **budget), 0, to=Probe().input, device=name)
    made = zoo.load_plugins().method(method).factory(DATA.setting(16), Probe()).to(run.device).train()
    device_reads.clear()
    made.fit(DATA.train, run)
    return device_reads.total()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_the_accelerator_reads_no_value(precision):
    with pretended_accelerator() as accelerator:
        few, many = (
            reads("tanh+hashnet", accelerator.reads, accelerator.name, batch=size, clip=1.0, precision=precision)
            for size in (120, 10)
        )
    assert few == many <= 5


def steps(device, bad, batch=60):
    """Three epochs of four steps; the values of one step are bad."""
    run = Run(Budget(epochs=3, batch=batch), 0, to=Probe().input, device=device)
    layer = nn.Linear(1, 1).to(run.device)
    optimizer, taken = run.optimizer(layer), 0
    for number, _ in enumerate(run.batches(DATA.train), start=1):
        factor = torch.tensor(bad if number == 6 else 1.0, device=run.device)
        taken = number
        try:
            run.step(optimizer, {"first": layer.weight.sum(), "second": factor * layer.bias.sum()})
        except NonFiniteError:
            assert number == 6
            raise
    return taken


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_term_and_step_that_are_not_finite_are_named_on_every_device(bad, device):
    for place in ("cpu", device):
        with pytest.raises(NonFiniteError, match=r"loss term 'second' is -?(nan|inf) at step 6, 42% of the training;"):
            steps(place, bad)


def test_finite_losses_do_not_end_the_training(device):
    assert steps(device, 2.0) == 12
