"""A cell is measured on an accelerator as on the CPU: training, features, selection, scores, resuming and encoding."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.datasets.composed import draw
from PIL import Image

from hashzoo import Card, Method, bits
from hashzoo.bench.measure import measure
from hashzoo.evaluation.scoring import encode_and_index, query_codes
from hashzoo.registry import saved_method, zoo
from hashzoo.results import store
from hashzoo.retrieval.encoder import load_encoder
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints
from tests.training.test_checkpoints import ended_after, job_of

JOBS = {
    "trained": job_of("tanh+dch", epochs=1),
    "in 16 bits": job_of("tanh+dch", epochs=1, precision="bf16", clip=1.0, optimizer="sgd"),
    "in 16 bits with a scaled loss": job_of("tanh+dch", epochs=1, precision="fp16", clip=1.0),
    "in parts of a batch": job_of("tanh+dch", epochs=1, accumulate=2),
    "with a frozen stage": job_of("tanh+dch", epochs=1, freeze="stages:1"),
    "selected by validation": job_of("tanh+dch", validation=0.2, epochs=2, select="map@all"),
    "on stored features": job_of("itq", epochs=1, backbone="stored"),
    "on frozen features in 16 bits": job_of("two-level-cam", epochs=1, backbone="frozen", precision="bf16"),
    "on views of a frozen backbone": job_of(
        "cibhash", epochs=1, backbone="frozen", draws=2, sets=[("cibhash", {"hidden": 16})]
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_cell_has_the_same_scores_on_the_accelerator(name, device, tmp_path):
    job = JOBS[name]
    there, _ = measure(job.on(device), keep=tmp_path / "cell.safetensors")
    assert there.status == "ok"
    assert (tmp_path / "cell.safetensors").is_file()
    if device != "cuda":  # whose sums have another order
        assert there.metrics == measure(job)[0].metrics


def test_a_training_that_was_interrupted_resumes_on_the_accelerator(device, tmp_path):
    job = job_of("tanh+dch", validation=0.2, select="map@all").on(device)
    ended_after(3, job, tmp_path / "kept")
    kept = Checkpoints(tmp_path / "kept", job.checkpoint_facts)
    resumed, _ = measure(job, checkpoints=kept)
    assert kept.epoch == 2
    assert resumed.metrics == measure(job)[0].metrics


class Composing(Method):
    """Composes codes with a buffer, as a learned operator does."""

    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train, run):
        self.w = torch.randn(self.w.shape, generator=run.generator).to(run.device)

    def encode(self, batch):
        relaxed = self.backbone(batch.images).pooled @ self.w
        return {"code": bits(relaxed), "relaxed": relaxed}

    def compose(self, operation, a, b):
        return {"code": bits(a["relaxed"] + b["relaxed"] + self.w.mean(0))}


def test_a_method_composes_codes_on_the_accelerator(device):
    data = draw(synthetic_splits(multilabel=True), "union", 20, 0, "proper")
    run = Run(Budget(epochs=1), 0, to=Probe().input, device=device)
    method = Composing(data.setting(8), Probe()).to(run.device)
    method.fit(data.train, run)
    _, query = encode_and_index(run, method, data, False)
    composed = query_codes(method, query, data, run.device)
    assert composed.keys() == {"", "first", "second", "bitwise"}
    assert {values.device.type for codes in composed.values() for values in codes.values()} == {"cpu"}


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """The JSON of a cell of a method with attention, and images."""
    folder, job = tmp_path_factory.mktemp("results"), job_of("two-level-cam", epochs=1)
    store.prepare(folder)
    path = store.path(folder, job.identity, job.benchmark)
    made, arrays = measure(job, keep=saved_method.path_of(path))
    images = zoo.load_plugins().dataset("digits.small").factory().database.images[:3, 0]
    return store.write(folder, made, arrays), [Image.fromarray(image.numpy()) for image in images]


def test_a_saved_method_encodes_searches_and_explains_on_the_accelerator(cell, device):
    here, there = load_encoder(cell[0]), load_encoder(cell[0], device=device)
    assert here.describe() == there.describe()
    codes = there.encode(cell[1])
    assert codes.keys() == here.encode(cell[1]).keys()
    assert {values.device.type for values in codes.values()} == {"cpu"}
    assert there.search(codes, cell[1], 2).rows[:, 0].tolist() == [0, 1, 2]
    assert there.compose("union", codes, codes).keys() == codes.keys()
    shown, maps = there.heatmaps(cell[1])
    assert shown.device.type == maps.device.type == "cpu"
