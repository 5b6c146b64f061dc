"""The faults that public code is known for, each tried on every method, or every loss, that could have it."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from hashzoo.bench.job import Job, Row, load_job_data
from hashzoo.distance import Hamming
from hashzoo.evaluation.metrics import evaluate, score
from hashzoo.evaluation.scoring import encode
from hashzoo.hamming.relevance import relevance
from hashzoo.index import Scan
from hashzoo.method import Deep, bits
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Output, Setting, Split

HOUSE = zoo.load_plugins()
METHODS = sorted(HOUSE.methods)
LOSSES = sorted(HOUSE.losses)
SMALL = {"dcoh": {"hidden": 64}, "lthnet": {"width": 64}, "cibhash": {"hidden": 64}}  # layers that take a minute
SINGLE = {name for name in METHODS if HOUSE.method(name).card.single}


class Fitted:
    """A method fitted for a moment, with codes of its queries and database."""

    def __init__(self, name):
        self.data = synthetic_splits(multilabel=name not in SINGLE)
        torch.manual_seed(0)
        self.run = Run(Budget(epochs=2, batch=32), 0)
        self.labels_before = self.data.train.labels.clone()
        self.method = HOUSE.method(name).factory(self.data.setting(16), Probe(), **SMALL.get(name, {}))
        self.method.train()
        self.method.fit(self.data.train, self.run)
        self.query = encode(self.run, self.method, self.data.query)
        self.database = encode(self.run, self.method, self.data.database)

    def counts(self, rows=None, wanted=None, labels=None):
        """Counts of the database in an order, for queries that want the classes ``wanted`` of items with ``labels``."""
        rows = torch.arange(len(self.data.database)) if rows is None else rows
        wanted = self.data.query.labels if wanted is None else wanted
        labels = self.data.database.labels if labels is None else labels
        index = self.method.index()
        index.add({name: values[rows] for name, values in self.database.items()})
        return index.counts(self.query, relevance(wanted.numpy(), labels[rows].numpy()))


@pytest.fixture(scope="module")
def fitted():
    made: dict[str, Fitted] = {}

    def get(name):
        if name not in made:
            with torch.random.fork_rng(devices=[]):
                made[name] = Fitted(name)
        return made[name]

    return get


@pytest.mark.parametrize("name", METHODS)
def test_the_last_item_of_the_database_is_never_dropped(name, fitted):
    it = fitted(name)
    index = it.method.index()
    index.add(it.database)
    found = index.search(it.query, len(it.data.database))
    assert torch.equal(found.rows.sort(1).values, torch.arange(200).expand(80, 200))
    last_only = torch.arange(200)[:, None] == 199
    reached = it.counts(wanted=torch.ones(80, 1, dtype=torch.bool), labels=last_only)
    assert (reached.positives == 1).all()
    assert (score(reached, ["map@all"])["map@all"] > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_code_of_exact_zeros_becomes_bits_that_are_one(name, fitted):
    it = fitted(name)
    for values in it.query.values():
        assert values.dtype in (torch.bool, torch.uint8) or values.is_floating_point()  # no signs, which have a zero
    if isinstance(it.method, Deep) and "code" in it.query and it.method.head.__class__.__name__ != "Bottleneck":
        at = it.method.head.register_forward_hook(lambda module, given, out: replace(out, code=out.code * 0))
        try:
            codes = encode(it.run, it.method, it.data.query)
        finally:
            at.remove()
        assert codes["code"].all()
    assert bits(torch.zeros(1, 3)).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_database_changes_no_score(name, fitted):
    it = fitted(name)
    order = torch.arange(200)
    by_class = it.data.database.labels.argmax(1).sort(stable=True).indices
    for other in (order.flip(0), by_class):
        scores = [score(it.counts(rows), ["map@all"])["map@all"] for rows in (order, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-12)


def test_average_precision_is_divided_by_what_could_have_been_found():
    codes = np.array([[0, 0], [1, 0], [1, 0], [1, 0], [1, 1]], bool)
    labels = np.array([1, 0, 1, 1, 0])
    found = evaluate(np.zeros((1, 2), bool), codes, np.array([1]), labels, metrics=("map@2", "map@2:hits"))
    assert found.means["map@2"] == pytest.approx(0.8333333333)
    assert found.means["map@2:hits"] == 1


def test_average_precision_counts_the_first_rank():
    codes, labels = np.array([[0, 0], [1, 0], [1, 1]], bool), np.array([1, 0, 1])
    found = evaluate(np.zeros((1, 2), bool), codes, np.array([1]), labels)
    assert found.means["map@all"] == pytest.approx(0.8333333333)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_of_the_queries_or_the_database_reaches_a_fit(name):
    factory = HOUSE.method(name).factory
    fit = Deep.fit if not inspect.isclass(factory) else factory.fit
    assert list(inspect.signature(fit).parameters) == ["self", "train", "run"]
    known = ["train", "seed", "to", "device", "workers", "process_group", "checkpoints"]  # none holds images
    assert list(inspect.signature(Run).parameters) == known


def test_the_epoch_that_is_scored_does_not_depend_on_the_queries(monkeypatch, tmp_path):
    from hashzoo.bench import measure
    from hashzoo.registry.source import code_digest
    from hashzoo.results.cell import Identity

    code = code_digest(HOUSE.method("csq").factory, HOUSE.backbone("pixels").factory)
    identity = Identity(
        dataset="digits.small", dataset_options={}, backbone="pixels", backbone_options={}, method="csq",
        hyperparameters={}, bits=8, seed=0, budget=Budget(epochs=2).model_dump(), protocol=1, code=code, data="",
    )  # fmt: skip
    job = Job(identity, Row("b"), ("map@all",))
    seen = {}

    def spy(method, query, data, device):
        seen[len(seen)] = query["code"]
        return {"": query}

    monkeypatch.setattr(measure, "query_codes", spy)
    measure.measure(job)
    data, found = load_job_data(job, HOUSE)
    mixed = replace(data.query, labels=data.query.labels.flip(0))
    monkeypatch.setattr(measure, "load_job_data", lambda *given: (replace(data, query=mixed), found))
    measure.measure(job)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("name", METHODS)
def test_encoding_is_never_done_in_training_mode(name, fitted):
    it = fitted(name)
    it.method.train()
    again = encode(it.run, it.method, it.data.query)
    assert not it.method.training
    for key, values in it.query.items():
        assert torch.equal(values, again[key])


@pytest.mark.parametrize("name", METHODS)
def test_no_fit_changes_the_labels(name, fitted):
    it = fitted(name)
    assert torch.equal(it.data.train.labels, it.labels_before)


def loss_of(name, pool=8, multilabel=False):
    torch.manual_seed(0)
    setting = Setting(8, 4, multilabel, torch.tensor([40, 20, 8, 2]), pool)
    try:
        return HOUSE.losses[name].factory(setting).eval()
    except ValueError as refused:
        pytest.skip(str(refused))


def value(loss, labels, code=None):
    draw = torch.Generator().manual_seed(1)
    code = torch.tanh(torch.randn(len(labels), 8, generator=draw)) if code is None else code
    extra = {"features": torch.randn(len(labels), 5, generator=draw), "local": code}
    output = Output(code, code @ torch.randn(8, 4, generator=draw), extra)
    extra["patches"] = torch.randn(len(labels), 3, 2, generator=draw)
    return {n: float(v.detach()) for n, v in loss(output, Batch((None,), labels, torch.arange(len(labels)))).items()}


LABELS = torch.eye(4)[[0, 0, 1, 1, 2, 3]]


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_changes_the_labels_it_is_given(name):
    loss, labels = loss_of(name), LABELS.clone()
    assert value(loss, labels) == value(loss, labels)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rows", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["all similar", "none similar"])
def test_a_batch_without_similar_or_without_dissimilar_pairs_has_a_finite_loss(name, rows):
    found = value(loss_of(name), torch.eye(4)[rows])
    assert all(np.isfinite(list(found.values())))


@pytest.mark.parametrize("name", LOSSES)
def test_no_memory_that_has_seen_no_image_takes_part_in_a_loss(name):
    assert value(loss_of(name, pool=8), LABELS) == value(loss_of(name, pool=500), LABELS)


def test_the_tables_of_methods_count_no_image_before_it_was_seen():
    from hashzoo_plugins.pairwise import adsh, dpsh, dsdh

    setting = Setting(8, 4, False, torch.tensor([2, 2, 1, 1]), 50)
    assert value(dsdh.TowardCodes(setting, eta=0.5), LABELS) == value(dpsh.DPSH(setting, eta=3.0), LABELS)  # 6 images
    assert value(adsh.Asymmetric(setting, gamma=0.0), LABELS)["pair"] == 0


#: What one dissimilar pair costs, as its formula has it; anything else would be the pairs of images with themselves.
ONE_PAIR = {
    "contrastive": lambda u, v: (16 - (u - v).square().sum()).clamp(min=0),
    "dsh": lambda u, v: (16 - (u - v).square().sum()).clamp(min=0) / 2,
    "dhn": lambda u, v: torch.log1p(torch.exp(u @ v)),
    "dhn-q": lambda u, v: torch.log1p(torch.exp(u @ v)),
    "dhn-e": lambda u, v: (-1 - u @ v / 8).square(),
    "dpsh": lambda u, v: torch.log1p(torch.exp(u @ v / 2)),
    "hashnet": lambda u, v: torch.log1p(torch.exp(10 / 8 * torch.tanh(u) @ torch.tanh(v))),
    "dch": lambda u, v: torch.log1p(20 / (4 * (1 - torch.cosine_similarity(u, v, dim=0)))),
    "dtsh": lambda u, v: u.sum() * 0,
    "dnnh": lambda u, v: u.sum() * 0,
    "mihash": lambda u, v: u.sum() * 0,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ONE_PAIR))
def test_no_image_is_its_own_similar_pair(name):
    draw = torch.Generator().manual_seed(4)
    code = torch.tanh(torch.randn(2, 8, generator=draw))
    found = value(loss_of(name), torch.eye(4)[[0, 1]], code)
    pair = next(found[key] for key in ("pair", "triplet", "information") if key in found)
    assert pair == pytest.approx(float(ONE_PAIR[name](code[0], code[1])), rel=1e-5, abs=1e-6)


def test_every_loss_of_pairs_is_among_those_tried_for_pairs_with_themselves():
    by_pairs = {name for name in LOSSES if HOUSE.losses[name].factory.__module__.startswith("hashzoo_plugins.pairwise")}
    with_prototypes = {"sprch"}  # a pair alone has no value; its loops are in tests/plugins/test_sprch.py
    assert by_pairs <= set(ONE_PAIR) | with_prototypes


def test_less_loss_of_mutual_information_is_more_separation():
    from hashzoo_plugins.pairwise.mihash import MIHash

    draw = torch.Generator().manual_seed(0)
    labels = torch.eye(2)[torch.arange(40) % 2]
    code = torch.randn(40, 8, generator=draw).requires_grad_()
    loss = MIHash(Setting(8, 2, False, torch.tensor([20, 20]), 40))
    batch = Batch((None,), labels, torch.arange(40))
    optimizer = torch.optim.Adam([code], 0.1)

    def gap():
        b = (code.detach() >= 0).float() * 2 - 1
        distance, alike = (8 - b @ b.T) / 2, batch.similar.bool()
        return float(distance[~alike].mean() - distance[alike & ~torch.eye(40, dtype=torch.bool)].mean())

    before, start = loss(Output(code), batch)["information"], gap()
    for _ in range(100):
        optimizer.zero_grad()
        loss(Output(code), batch)["information"].backward()
        optimizer.step()
    after = loss(Output(code), batch)["information"]
    assert after < before
    assert gap() > start + 2


UNLABELLED = (
    "bihalf",
    "crovca",
    "greedyhash-u",
    "hswd",
    "knn-sign",
    "nsh",
    "sdc",
    "uhscm",
    "wch",
)  # which read no labels
SEVERAL = [name for name in LOSSES if name not in UNLABELLED]


@pytest.mark.parametrize("name", SEVERAL)
def test_a_second_label_changes_every_loss_that_takes_several(name):
    loss = loss_of(name, multilabel=True)
    first = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
    second = first.clone()
    second[0, 1] = 1  # by argmax alone nothing has changed
    assert torch.equal(first.argmax(1), second.argmax(1))
    one, two = value(loss, first), value(loss, second)
    assert any(one[key] != pytest.approx(two[key], abs=1e-7) for key in one)


@pytest.mark.parametrize("name", [n for n in METHODS if HOUSE.method(n).card.kind == "deep"])
def test_the_rate_ends_where_its_schedule_does(name, fitted):
    optimizers = fitted(name).run.optimizers
    assert optimizers
    assert all(group["lr"] == 0 for made in optimizers for group in made.param_groups)


def test_every_name_stands_for_one_method():
    owners = {
        "adsh": "Jiang & Li, AAAI 2018",
        "bcl": "Zhu et al., CVPR 2022",
        "fsdh": "Gui et al., TPAMI 2018",
        "imh": "Shen et al., CVPR 2013",
        "sdh": "Shen et al., CVPR 2015",
        "tsc": "Li et al., CVPR 2022",
    }
    assert {name: HOUSE.method(name).card.paper for name in owners} == owners
    docs = [HOUSE.method(name).doc for name in METHODS]
    assert len(set(docs)) == len(docs)


def test_codes_do_not_change_when_labels_of_the_database_do(fitted):
    for name in METHODS:
        it = fitted(name)
        other = replace(it.data.database, labels=it.data.database.labels.flip(0))
        assert isinstance(other, Split)
        codes = encode(it.run, it.method, other)
        assert all(torch.equal(values, codes[key]) for key, values in it.database.items())


@pytest.mark.parametrize("name", METHODS)
def test_only_distances_that_count_bits_are_looked_at_within_a_radius(name, fitted):
    it = fitted(name)
    index = it.method.index()
    assert it.counts().hamming == (isinstance(index, Scan) and isinstance(index.distance, Hamming))
