"""Heads and losses, as classes of the facade or as plain modules, compose into a method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo import Batch, Budget, Head, Loss, Method, Output, Run, bits, check_head, check_loss, deep, encode
from hashzoo.method import values_of_bits
from hashzoo.testing import Probe, synthetic_splits


class PlainHead(nn.Module):
    def __init__(self, setting, backbone, *, scale: float = 1.0):
        super().__init__()
        self.scale, self.layer = scale, nn.Linear(backbone.dim, setting.bits)

    def forward(self, features):
        return Output(torch.tanh(self.scale * self.layer(features.pooled)))


class PlainLoss(nn.Module):
    def __init__(self, setting, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, output, batch):
        agreement = output.code @ output.code.T / output.code.shape[1]
        return {"pair": self.weight * (agreement - (2 * batch.similar - 1)).square().mean()}


class TypedHead(PlainHead, Head):
    pass


class TypedLoss(PlainLoss, Loss):
    pass


class OldOrder(nn.Module):
    def __init__(self, backbone, setting):
        super().__init__()
        self.layer = nn.Linear(backbone.dim, setting.bits)

    def forward(self, features):
        return Output(self.layer(features.pooled))


@pytest.mark.parametrize("head", [PlainHead, TypedHead])
def test_a_head_extends_the_base_class_or_is_a_plain_module(head):
    assert [one for one in check_head(head) if not one.ok] == []


@pytest.mark.parametrize("loss", [PlainLoss, TypedLoss])
def test_a_loss_extends_the_base_class_or_is_a_plain_module(loss):
    assert [one for one in check_loss(loss) if not one.ok] == []


def test_a_plain_module_trains_to_the_same_codes_as_the_base_class():
    codes = []
    for head, loss in ((PlainHead, PlainLoss), (TypedHead, TypedLoss)):
        torch.manual_seed(0)
        data, backbone = synthetic_splits(), Probe()
        run = Run(Budget(epochs=1), seed=0)
        method = deep(head, loss)(data.setting(bits=8), backbone, scale=2.0)
        method.fit(data.train, run)
        codes.append(encode(run, method, data.query)["code"])
    assert torch.equal(*codes)


@pytest.mark.parametrize("base", [Head, Loss])
def test_a_part_without_forward_cannot_be_built(base):
    with pytest.raises(TypeError, match="forward"):
        type("Empty", (base,), {})()


def test_a_head_with_the_arguments_in_the_old_order_is_named_with_its_cure():
    (finding,) = check_head(OldOrder)
    assert not finding.ok
    assert finding.why == (
        "its arguments (backbone, setting) are in the wrong order: "
        "hashzoo calls it with (setting, backbone, *, hyperparameters)"
    )


def test_the_terms_of_a_loss_have_names():
    setting, code = synthetic_splits().setting(bits=4), torch.randn(3, 4)
    terms = TypedLoss(setting, weight=0.5)(Output(code), Batch((None,), torch.eye(3), torch.arange(3)))
    assert list(terms) == ["pair"]


class Coded(Method):
    """Codes as a function of the batch gives them."""

    def __init__(self, codes):
        super().__init__()
        self.codes = codes

    def fit(self, train, run):
        pass

    def encode(self, batch):
        return self.codes(batch.images)


VALUES = torch.tensor([[0.5, -2.0], [-0.1, 3.0]])


@pytest.mark.parametrize(
    ("codes", "known"),
    [
        (lambda x: {"code": bits(x)}, True),
        (lambda x: {"code": bits(x), "norm": x.norm(dim=1)}, True),
        (lambda x: {"code": x >= 0}, False),
        (lambda x: {"code": ~bits(x)}, False),
        (lambda x: {"a": bits(x), "b": bits(x)}, False),
        (lambda x: {"code": torch.cat([bits(x), bits(-x)], 1)}, False),
    ],
)
def test_the_values_of_bits_are_known_if_one_call_binarizes_them(codes, known):
    found = values_of_bits(Coded(codes), Batch((VALUES,), torch.zeros(2, 0), torch.arange(2)))
    assert (found is not None) == known
    if known:
        assert found.tolist() == VALUES.tolist()
    assert bits(VALUES).tolist() == [[True, False], [False, True]]  # nothing is collected any more
