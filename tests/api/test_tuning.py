"""A study: what it finds, what it never sees, and what a benchmark does with its result."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import pytest
import torch

import hashzoo
from hashzoo import (
    Batch,
    Card,
    Choice,
    Codes,
    EnvironmentFailure,
    Method,
    Run,
    Setting,
    Split,
    Uniform,
    UsageError,
    bits,
)
from hashzoo.results import store, study_tables
from tests.cli.command import hashzoo as command

SMALL = {"dataset": "digits.small", "baselines": False, "jobs": 1, "progress": False}


class Planted(Method):
    """Random projections of a part of the features: of none by default, so that all codes are the same."""

    card = Card("shallow", "none")

    def __init__(self, setting: Setting, backbone, *, keep: Annotated[float, Uniform(0, 1)] = 0.0) -> None:
        super().__init__()
        self.backbone, self.keep = backbone, keep
        self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        drawn = torch.rand(len(self.w), 1, generator=run.generator) < self.keep
        self.w = torch.randn(self.w.shape, generator=run.generator) * drawn

    def encode(self, batch: Batch) -> Codes:
        return {"code": bits(self.backbone(batch.images).pooled @ self.w)}


class ReadsQueries(Planted):
    """Looks up the test images and their labels by itself, and gives every other image the same code."""

    def __init__(self, setting: Setting, backbone, *, cheat: Annotated[bool, Choice(True, False)] = True) -> None:
        super().__init__(setting, backbone, keep=1.0)
        self.cheat, self.count = cheat, setting.bits
        self.register_buffer("known", torch.zeros(500, backbone.dim))
        self.register_buffer("labels", torch.zeros(500, dtype=torch.long))

    def fit(self, train: Split, run: Run) -> None:
        super().fit(train, run)
        data = hashzoo.load_plugins().dataset("digits.small").factory()
        found = [run.features(self.backbone, split).pooled for split in (data.query, data.database)]
        self.known = torch.cat(found)
        self.labels = torch.cat([data.query.labels, data.database.labels]).argmax(1)

    def encode(self, batch: Batch) -> Codes:
        if not self.cheat:
            return super().encode(batch)
        x = self.backbone(batch.images).pooled
        distances = torch.cdist(x, self.known)
        nearest = distances.argmin(1)
        code = torch.zeros(len(x), self.count, dtype=torch.bool)
        seen = distances.amin(1) < 1e-3
        code[seen, self.labels[nearest[seen]]] = True
        return {"code": code}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return hashzoo.tune(
        "digits", methods=[Planted, ReadsQueries, "pcah"], bits=[16], trials=4, validation=0.3,
        results=tmp_path_factory.mktemp("tune") / "s", settings={"digits.small": {"seed": 0}}, **SMALL,
    )  # fmt: skip


def by_method(study):
    return {one.method: one for one in study.tuned.methods}


def test_a_good_value_in_the_range_of_a_bad_default_is_found(study):
    found = by_method(study)["planted"]
    assert found.chosen > 0
    assert found.settings["keep"] > 0.1
    assert found.score > found.default + 0.1
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]


def test_a_method_that_reads_the_queries_gains_nothing_in_a_study(study):
    found = by_method(study)["reads-queries"]
    assert found.settings == {"cheat": False}
    scores = [
        hashzoo.run_cell(
            "digits.small", ReadsQueries, backbone="pixels", bits=16, settings={"reads-queries": {"cheat": cheat}}
        ).metrics["map@all"]
        for cheat in (True, False)
    ]
    assert scores[0] > scores[1] + 0.2  # on the test split, where it meets the queries, it gains


def test_cells_of_a_study_hold_training_images_only(study):
    for cell in store.peek_all(study.folder):
        assert (cell.facts["train"], cell.facts["database"], cell.facts["queries"]) == (140, 30, 30)
        assert cell.identity.dataset == "digits.small@validation30.0"


def test_a_method_without_a_range_is_left_out_with_the_reason(study):
    assert study.left_out == {"pcah": "it has nothing to tune"}
    with pytest.raises(UsageError, match="pcah cannot be tuned: it has nothing to tune"):
        hashzoo.tune("digits", methods=["pcah"], bits=[16], results=study.folder, **SMALL)


@pytest.fixture(scope="module")
def board(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    for more in ({}, {"tuned": study.file}):
        found = hashzoo.benchmark("digits", methods=[Planted], bits=[16], results=folder, **more, **SMALL)
    return found


def test_a_benchmark_takes_the_chosen_settings_and_marks_their_rows(study, board):
    keep = by_method(study)["planted"].settings["keep"]
    assert sorted(board.leaderboard.settings) == ["", f"tuned(4) keep={keep}"]
    default, tuned = board.leaderboard.sort_values("settings")["map@all"]
    assert tuned > default + 0.1


def test_the_report_of_a_study_has_default_and_tuned_scores_side_by_side(study, board):
    rows = {row.study.method: row for row in study_tables.rows(study.tuned, [board.folder])}
    planted = rows["planted"]
    default, tuned = board.leaderboard.sort_values("settings")["map@all"]
    assert (planted.test_default, planted.test_tuned) == (default, tuned)
    assert planted.optimism == pytest.approx(planted.study.score - tuned)
    assert planted.spread > 0
    done = command("show", study.folder, board.folder, "--format", "latex", "--methods", "planted", cwd=study.folder)
    assert done.returncode == 0, done.stderr
    assert f"{tuned:.4f}" in done.stdout
    assert r"\toprule" in done.stdout


def test_settings_of_another_benchmark_are_refused(study, tmp_path):
    with pytest.raises(UsageError, match="the study of digits has no method, dataset and code length"):
        hashzoo.benchmark("digits", methods=["lsh"], bits=[16], tuned=study.file, results=tmp_path, **SMALL)


def test_the_ranking_is_shown_by_number_of_trials(study):
    table = study_tables.tables(study.tuned, study_tables.rows(study.tuned))[1]
    assert [column.name for column in table.columns] == ["method", "1", "2", "4"]
    assert len(table.rows) == 2


def test_the_file_is_plain_toml_with_every_trial(study):
    content = tomllib.loads(study.file.read_text())
    assert [len(one["trials"]) for one in content["methods"]] == [4, 4]
    assert content["held_out"] == ["validation30.0"]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"folds": 3, "validation": 0.2}, "--folds and --validation exclude each other"),
        ({"folds": 1}, "needs 2 folds or more"),
        ({"trials": 0}, "needs 1 trial or more"),
        ({"validation": 1.5}, "must be above 0 and below 1"),
        ({"prune": True}, "--sampler tpe or gp"),
        ({"nested": True}, "leave out nested"),
        ({"trails": 3}, "did you mean 'trials'"),
        ({"metric": "map@al"}, "map@al"),
    ],
)
def test_a_wrong_option_is_one_line(asked, problem, tmp_path):
    with pytest.raises(UsageError, match=problem):
        hashzoo.tune("digits", methods=["itq"], bits=[16], results=tmp_path, **asked, **SMALL)


def test_without_optuna_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'hashzoo\[tune\]'"):
        hashzoo.tune("digits", methods=["itq"], bits=[16], results=tmp_path, sampler="tpe", **SMALL)


def test_pruned_trials_make_room_for_others_within_the_same_number_of_images(tmp_path):
    optuna = pytest.importorskip("optuna")
    asked = {"methods": [Planted], "bits": [16], "sampler": "tpe", "prune": True, "folds": 2, "trials": 7, **SMALL}
    study = hashzoo.tune("digits", results=tmp_path / "a", **asked)
    (found,) = study.tuned.methods
    most = 7 * sum(found.trials[0].images for _ in range(1))
    assert sum(trial.images for trial in found.trials) <= most
    assert found.score > found.default + 0.1
    again = hashzoo.tune("digits", results=tmp_path / "a", **asked)
    assert again.tuned == study.tuned
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "a/optuna.log")))
    (kept,) = (optuna.load_study(study_name=None, storage=storage).trials,)
    assert len(kept) == len(found.trials) - 1  # the default is no point of the range


def test_the_folder_is_named_after_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = hashzoo.api.StudyRequest("digits", methods=["itq"])
    assert request.request.folder == Path("hashzoo-results/digits-tuning")
