"""The toy batch that reference values are given for, and how a loss is asked for its value."""

from __future__ import annotations

import pytest
import torch

from hashzoo.types import Batch, Output, Setting

D = torch.float64
Z = torch.tensor([[0.9, -0.8, 0.7, -0.6], [0.8, -0.9, -0.5, -0.7], [-0.6, 0.5, 0.9, 0.4]], dtype=D)
Y = torch.eye(2, dtype=D)[[0, 0, 1]]
SETTING = Setting(4, 2, False, torch.tensor([2, 1]), 3)
CENTERS = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]], dtype=D)


def t(*rows):
    return torch.tensor(rows, dtype=D)


def batch(labels, progress=0.0):
    return Batch((None,), labels, torch.arange(len(labels)), progress)


def terms(loss, code, labels, progress=0.0, **extra):
    return loss(Output(code, extra=extra), batch(labels, progress))


def near(found, expected, places=1e-6):
    found, expected = (torch.as_tensor(side, dtype=D).detach().flatten().tolist() for side in (found, expected))
    assert found == pytest.approx(expected, abs=places)


def made(seed, images, bits, classes=3, multilabel=False):
    """Random codes (n, K) and labels (n, C) of a seed, in float64."""
    draw = torch.Generator().manual_seed(seed)
    code = torch.randn(images, bits, generator=draw, dtype=D)
    labels = torch.eye(classes, dtype=D)[torch.randint(classes, (images,), generator=draw)]
    if multilabel:
        labels = ((labels + (torch.rand(images, classes, generator=draw) < 0.3)) > 0).to(D)
    return code, labels, draw
