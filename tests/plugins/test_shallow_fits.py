"""What the closed-form methods store after a fit is what their steps end with."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hashzoo_plugins.shallow import anchors, ksh, sdh
from hashzoo_plugins.shallow.cca_itq import CCAITQ
from hashzoo_plugins.shallow.cosdish import COSDISH
from hashzoo_plugins.shallow.fsdh import FSDH
from hashzoo_plugins.shallow.ridge import ridge
from hashzoo_plugins.shallow.similarity import balanced
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

from hashzoo.evaluation.scoring import encode
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import signs

DATA = synthetic_splits()


class Recording(Run):
    """A run that keeps everything that was logged."""

    def __init__(self):
        super().__init__(Budget(), 0)
        self.path = []

    def log(self, values):
        self.path.append({name: float(value) for name, value in values.items()})
        super().log(values)


def fitted(factory, bits=8, data=DATA, **options):
    torch.manual_seed(0)
    method, run = factory(data.setting(bits), Probe(), **options), Recording()
    method.fit(data.train, run)
    return method, run, run.features(method.backbone, data.train).pooled


def test_ksh_encodes_its_training_sample_as_the_bits_that_it_found(monkeypatch):
    found = []
    greedy = ksh.greedy

    def recorded(*given):
        for a, h, r in greedy(*given):
            found.append(h)
            yield a, h, r

    monkeypatch.setattr(ksh, "greedy", recorded)
    rows = torch.arange(len(DATA.train))
    monkeypatch.setattr(ksh.labelled, "sample", lambda count, most, generator: rows)
    method, run, _ = fitted(ksh.KSH)
    codes = encode(run, method, DATA.train)["code"]
    assert float((codes == (torch.stack(found, 1) > 0)).float().mean()) > 0.999


@pytest.mark.parametrize("rows", [torch.arange(0, 24, 6), torch.arange(0, 48, 6)], ids=["4 images", "8 images"])
def test_ksh_survives_one_class_and_features_that_are_all_alike(rows):
    from dataclasses import replace

    one_class = replace(DATA, train=DATA.train.take(rows))
    assert one_class.train.labels[:, 0].all()
    method, run, _ = fitted(ksh.KSH, 12, one_class)
    assert method.coefficients.isfinite().all()
    assert encode(run, method, DATA.query)["code"].shape == (80, 12)
    alike = replace(DATA, train=replace(DATA.train, images=torch.full_like(DATA.train.images, 128)))
    assert fitted(ksh.KSH, 12, alike)[0].coefficients.isfinite().all()


def test_what_sdh_stores_is_the_regression_of_its_last_codes_and_no_iteration_raises_its_objective(monkeypatch):
    seen = []
    descent = sdh.descent

    def recorded(b, q, w, sweeps):
        seen.append((w, descent(b, q, w, sweeps)))
        return seen[-1][1]

    monkeypatch.setattr(sdh, "descent", recorded)
    method, run, x = fitted(sdh.SDH)
    phi = anchors.lifted(x, normalize(x), 0.4)
    stored = method.anchors[: len(x)]
    order = torch.cdist(normalize(x), stored).argmin(1)  # which anchor each image is
    p = ridge(phi[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + order.argsort()])], seen[-1][1], 1e-2)
    assert torch.allclose(phi @ ridge(phi, seen[-1][1], 1e-2), anchors.lifted(x, stored, 0.4) @ p, atol=1e-2)
    assert torch.allclose(
        method.projection[: 1 + len(x)], ridge(anchors.lifted(x, stored, 0.4), seen[-1][1], 1e-2), atol=1e-3
    )
    assert not torch.equal(seen[0][0], seen[-1][0])  # the classifier moves with the codes
    path = [step["objective"] for step in run.path]
    assert all(after <= before + 1e-6 for before, after in pairwise(path))
    agreement = (encode(run, method, DATA.train)["code"] == (seen[-1][1] > 0)).float().mean()
    assert float(agreement) > 0.95


def test_what_fsdh_stores_is_the_regression_of_its_last_codes(monkeypatch):
    from hashzoo_plugins.shallow import fsdh

    seen = []
    codes = fsdh.codes

    def recorded(y, w, f, nu):
        assert nu == 1e-5
        seen.append(codes(y, w, f, nu))
        return seen[-1]

    monkeypatch.setattr(fsdh, "codes", recorded)
    method, run, x = fitted(FSDH)
    phi = anchors.lifted(x, method.anchors[: len(x)], 0.4)
    assert torch.allclose(method.projection[: 1 + len(x)], ridge(phi, seen[-1], 1e-2), atol=1e-3)
    path = [step["objective"] for step in run.path]
    assert all(after <= before + 1e-6 for before, after in pairwise(path))


def test_cosdish_stores_the_ridge_of_standardised_features(monkeypatch):
    from hashzoo_plugins.shallow import cosdish

    seen = []
    monkeypatch.setattr(cosdish, "ridge", lambda z, b, weight: seen.append(b) or ridge(z, b, weight))
    method, _, x = fitted(COSDISH)
    live = x.std(0) > 1e-6 * x.std(0).max()
    scaler = StandardScaler().fit(x.double().numpy())
    correction = (len(x) / (len(x) - 1)) ** 0.5  # their deviation divides by N
    z = scaler.transform(x.double().numpy()) / correction
    theirs = torch.from_numpy(
        Ridge(1.0, fit_intercept=False).fit(z[:, live.numpy()], seen[-1].double().numpy()).coef_.T
    )
    mine = method.projection[live].double() * x[:, live].double().std(0)[:, None]
    assert torch.allclose(mine, theirs, atol=1e-3)


def test_the_weight_of_dissimilar_pairs_is_capped():
    s = torch.tensor([[1.0, 1.0, 1.0, -1.0]])
    assert balanced(s)[0, 3] == -1


def test_cca_itq_stores_the_rotation_that_it_ended_with():
    method, run, x = fitted(CCAITQ)
    embedded = ((x - method.mean) @ method.projection).double()
    error = (signs(embedded) - embedded).square().sum(1).mean()
    assert float(error) == pytest.approx(run.logged["quantization"], rel=1e-4)
