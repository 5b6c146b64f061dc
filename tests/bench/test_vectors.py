"""A benchmark of vectors: exact neighbors as the truth, with and without labels, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import hashzoo
from hashzoo.bench.benchmark_file import checked, read
from hashzoo.bench.measure import measure
from hashzoo.bench.overrides import Overrides
from hashzoo.bench.plan import plan
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.execution.prefetch import shared_features
from hashzoo.registry.open_dataset import reload_data
from hashzoo.registry.zoo import load_plugins
from hashzoo.storage.cache import cache_folder

ZOO = load_plugins()
FREE = ["lsh", "itq", "sh", "pcah", "imh", "bihalf", "greedyhash-u", "cibhash", "crovca", "sdc", "unquantized", "pq"]
REAL = {"unquantized", "pq"}  # whose queries are real anyway


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    centers, classes = rng.normal(size=(4, 16)), rng.integers(0, 4, 300)
    np.save(place / "emb.npy", (centers[classes] + rng.normal(size=(300, 16))).astype(np.float16))
    np.save(place / "classes.npy", classes)
    return place


def jobs(folder, methods, metrics=("recall@5", "recall@5:f3"), **options):
    file = read("vectors")
    values = file.model_dump(exclude_unset=True) | {
        **{"methods": list(methods), "metrics": list(metrics), "bits": [8], "baselines": [], "controls": []},
        "train": {**file.train.model_dump(), "epochs": 1},
        "set": {"vectors": {"root": str(folder / "emb.npy"), **options}},
    }
    return plan(checked(values, "test"), ZOO)


def test_a_method_that_stores_the_same_at_every_length_is_measured_at_the_first_one(folder):
    values = {"name": "two", "dataset": "vectors", "methods": ["sq", "bq"], "bits": [8, 16], "backbone": "identity"}
    values |= {"metrics": ["recall@5"], "set": {"vectors": {"root": str(folder / "emb.npy")}}}
    planned = [
        (job.identity.method, job.identity.bits) for job in plan(checked({**values, "once": ["sq"]}, "two"), ZOO)
    ]
    assert planned == [("sq", 8), ("bq", 8), ("bq", 16)]
    with pytest.raises(UsageError, match="float3"):
        plan(checked({**values, "once": ["float3"]}, "two"), ZOO)


@pytest.mark.parametrize("name", FREE)
def test_every_method_without_labels_is_measured_on_vectors(name, folder):
    (job,) = jobs(folder, [name], ["recall@5", "recall@5:f3", "factor@5:0.9", "recall@5/asym"])
    assert job.refusal == ""
    cell, arrays = measure(job)
    assert cell.identity.backbone == "identity"
    assert 0 < cell.metrics["recall@5"] <= cell.metrics["recall@5:f3"] <= 1
    assert 1 <= cell.metrics["factor@5:0.9"] <= 270 / 5
    assert np.isnan(cell.metrics["recall@5/asym"]) == (name in REAL)
    assert arrays["recall@5"].shape == (30,)
    factors, curve = arrays["recall_factors@5"], arrays["recall_curve@5"]
    assert curve[factors == 3][0] == pytest.approx(cell.metrics["recall@5:f3"])
    assert (np.diff(curve) >= -1e-9).all()
    assert curve[-1] == pytest.approx(1)
    assert cell.facts["truth_ties@5"] == 0
    assert cell.facts["truth_margin@5"] > 0


def test_recall_is_that_of_plain_numpy(folder):
    (job,) = jobs(folder, ["pcah"])
    cell, _ = measure(job)
    x = np.load(folder / "emb.npy").astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    data = hashzoo.load_plugins().dataset("vectors").factory(root=folder / "emb.npy")
    query, database = x[data.query.ids.numpy()], x[data.database.ids.numpy()]
    truth = np.argsort(-(query @ database.T), axis=1)[:, :5]
    mean = database.mean(0)
    axes = np.linalg.eigh((database - mean).T @ (database - mean))[1][:, -8:]
    codes = [(side - mean) @ axes >= 0 for side in (query, database)]
    distances = (codes[0][:, None] != codes[1][None]).sum(2)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):  # random orders of ties
        order = np.lexsort((rng.random(distances.shape), distances), axis=1)[:, :5]
        shares.append(np.mean([np.isin(truth[q], order[q]).mean() for q in range(len(query))]))
    assert cell.metrics["recall@5"] == pytest.approx(np.mean(shares), abs=0.01)


def test_labels_add_metrics_of_labels_and_methods_that_learn_from_them(folder):
    asked = jobs(folder, ["lsh", "ksh"], ["map@all", "recall@5"], labels=folder / "classes.npy")
    assert [job.refusal for job in asked] == ["", ""]
    cells = [measure(job)[0] for job in asked]
    assert cells[1].metrics["map@all"] > cells[0].metrics["map@all"] > 0.25
    assert all(0 < cell.metrics["recall@5"] < 1 for cell in cells)
    assert cells[0].identity.key != measure(jobs(folder, ["lsh"])[0])[0].identity.key


def test_a_method_that_learns_from_labels_is_refused_without_them(folder):
    (job,) = jobs(folder, ["ksh"])
    assert "ksh learns from labels and this dataset has none" in job.refusal


def test_nothing_of_vectors_is_extracted_and_the_truth_is_stored(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    (job,) = jobs(folder, ["lsh"])
    assert shared_features(job) == ""
    measure(job)
    assert list((cache_folder() / "truth").glob("*.npz"))
    assert not (cache_folder() / "features").exists()


def test_a_measured_cell_finds_its_data_again(folder):
    cell, _ = measure(jobs(folder, ["lsh"])[0])
    assert len(reload_data(cell, (), folder / "emb.npy").database) == 270


REFUSED = {
    "labels": (["map@all"], {}, "vectors has no labels, which map@all needs"),
    "neighbours": (["recall@270"], {}, "270 neighbours of each query, and the database of vectors has 270 items"),
    "groups": (["recall@5", "p@h2"], {}, "which p@h2 needs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_metrics_that_the_vectors_do_not_allow_are_refused(name, folder):
    metrics, options, said = REFUSED[name]
    with pytest.raises(UsageError, match=said):
        jobs(folder, ["lsh"], metrics, **options)


def test_images_without_a_truth_refuse_metrics_of_exact_neighbors():
    file = checked({"name": "x", "dataset": "digits.small", "backbone": "pixels", "metrics": ["recall@5"]}, "test")
    with pytest.raises(UsageError, match=r"digits\.small has no exact neighbours"):
        plan(file, ZOO)


def test_unusable_vectors_are_an_error_or_left_out(folder, tmp_path):
    array = np.load(folder / "emb.npy")
    array[17, 3] = np.nan
    np.save(tmp_path / "emb.npy", array)
    with pytest.raises(EnvironmentFailure, match=r"row 17 of .*emb.npy has nan in column 3; .*--on-bad-image skip"):
        jobs(tmp_path, ["lsh"])


def test_another_backbone_is_replaced_with_a_note(folder):
    values = {"name": "x", "dataset": "vectors", "backbone": "tiny", "metrics": ["recall@5"], "methods": ["lsh"]}
    file = checked(values | {"set": {"vectors": {"root": str(folder / "emb.npy")}}}, "test")
    job = plan(file, ZOO)[0]
    assert job.identity.backbone == "identity"
    assert any("backbone identity, not tiny" in note for note in job.inputs.notes)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    place = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(0)
    for row in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{row}.png")
    return place


def unlabelled_jobs(flat, **asked):
    options = {"folder": {"root": str(flat), "size": 16}}
    overrides = Overrides(bits=[8], backbone="pixels", epochs=1, settings=options, **asked)
    ((file, base),) = overrides.apply(read("folder"), ZOO)
    return plan(file, ZOO, base=base)


def test_a_folder_without_labels_is_measured_by_the_neighbors_of_its_features(flat):
    planned = unlabelled_jobs(flat)
    assert all(not job.refusal for job in planned)
    assert {job.identity.method for job in planned} >= {"lsh", "itq", "bihalf", "unquantized"}
    job = next(job for job in planned if job.identity.method == "pcah")
    assert any("truth of recall@k are the database images with the nearest features" in n for n in job.inputs.notes)
    assert "truth=backbone" in job.row.settings
    cell, _ = measure(job)
    data = ZOO.dataset("folder").factory(root=flat, size=16)
    sides = [
        np.stack([np.asarray(image, float).ravel() for image in part.images]) for part in (data.query, data.database)
    ]
    query, database = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    margins = -np.sort(-(query @ database.T), axis=1)
    assert cell.facts["truth_margin@10"] == pytest.approx(np.median(margins[:, 9] - margins[:, 10]), abs=1e-6)
    assert 10 / 16 * 0.5 < cell.metrics["recall@10"] <= 1


def test_what_the_command_line_asks_for_holds_without_labels_too(flat):
    planned = unlabelled_jobs(flat, methods=["sh"], metrics=["recall@3"])
    assert {job.metrics for job in planned} == {("recall@3",)}
    assert "pcah" not in {job.identity.method for job in planned}
    with pytest.raises(UsageError, match="folder has no labels, which map@all needs"):
        unlabelled_jobs(flat, metrics=["map@all"])


def test_the_truth_is_part_of_the_key_of_images_and_of_no_other_cell():
    values = {"name": "x", "dataset": "digits.small", "backbone": "pixels", "methods": ["lsh"], "bits": [8]}
    plain, truth = (
        plan(checked(values | more, "test"), ZOO)[0] for more in ({}, {"truth": {"neighbours": "backbone"}})
    )
    assert "truth" not in plain.identity.dataset_options
    assert truth.identity.dataset_options == {**plain.identity.dataset_options, "truth": "backbone"}
    assert plain.identity.key != truth.identity.key


def test_a_table_of_changes_without_labels_that_changes_something_else_is_refused(tmp_path):
    (tmp_path / "x.toml").write_text('dataset = "folder"\nunlabelled = { bits = [8] }\n')
    with pytest.raises(UsageError, match="unlabelled: no key 'bits'"):
        read(str(tmp_path / "x.toml"))
