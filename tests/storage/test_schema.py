"""Schema versions of files: older ones are migrated, newer ones refused with the fix."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hashzoo.cli.main import main
from hashzoo.data import split_file
from hashzoo.data.integrity import SCHEMA, Scan, read_scan, write_scan
from hashzoo.errors import EnvironmentFailure
from hashzoo.registry import saved_method
from hashzoo.results import csv_file, packed, store
from hashzoo.results.board import write_board
from hashzoo.results.cell import Cell, Identity
from hashzoo.storage.schema import NewerSchemaError
from hashzoo.testing import synthetic_splits
from hashzoo.training import feature_store
from hashzoo.types import Features
from tests.registry.test_saved_method import cell_of
from tests.results.test_store import a_cell

RESULTS = Path(__file__).parents[2] / "results"
SHIPPED = [packed.files(folder)[0] for folder in sorted(RESULTS.iterdir()) if folder.is_dir()]


@pytest.fixture
def second(monkeypatch):
    """A made-up next schema: cells have a reason in capitals, boards have one more column."""
    steps = {1: lambda content: content | {"cell": content["cell"] | {"reason": content["cell"]["status"].upper()}}}
    monkeypatch.setattr(store, "SCHEMA", 2)
    monkeypatch.setattr(store, "MIGRATIONS", steps)
    monkeypatch.setattr(csv_file, "SCHEMA", 2)
    monkeypatch.setattr(csv_file, "MIGRATIONS", {1: lambda row: row | {"schema": "2", "added": "0.5"}})


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parts[-3])
def test_a_shipped_cell_of_the_older_schema_is_migrated(file, second):
    assert store.read(file) == replace(written_as_it_is(file), reason="OK")


def written_as_it_is(file):
    content = json.loads(packed.line(file))["cell"]
    return Cell(**content | {"identity": Identity(**content["identity"])})


def test_a_cell_of_the_older_schema_is_found_and_rewritten_in_the_current_one(tmp_path, monkeypatch):
    file = store.write(tmp_path, a_cell(), {"map@all": np.ones(3)})
    monkeypatch.setattr(store, "SCHEMA", 2)
    monkeypatch.setattr(store, "MIGRATIONS", {1: lambda content: content})
    found, _ = store.find(tmp_path, a_cell().identity, "digits")
    assert found == a_cell()
    assert store.read_all(tmp_path) == ([a_cell()], [])
    assert json.loads(store.write(tmp_path, found, {}).read_text())["schema"] == 2
    assert [one.name for one in (tmp_path / "cells").iterdir()] == [file.name]  # the older arrays are gone


def test_a_schema_without_a_migration_is_damage(tmp_path, monkeypatch):
    file = store.write(tmp_path, a_cell(), {})
    monkeypatch.setattr(store, "SCHEMA", 3)
    monkeypatch.setattr(store, "MIGRATIONS", {2: lambda content: content})
    with pytest.raises(store.DamagedError):
        store.read(file)


@pytest.mark.parametrize("folder", sorted(f.name for f in RESULTS.iterdir() if f.is_dir()))
def test_a_shipped_board_of_the_older_schema_is_migrated(folder, second):
    frame = csv_file.read_csv(RESULTS / folder / "leaderboard.csv")
    assert set(frame["schema"]) == {2}
    assert set(frame["added"]) == {0.5}


def test_a_board_of_an_unknown_schema_is_refused(tmp_path):
    write_board(tmp_path, [a_cell()])
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    with (tmp_path / "leaderboard.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row | {"schema": "0"})
    with pytest.raises(EnvironmentFailure, match="schema 0, which no hashzoo wrote"):
        csv_file.read_csv(tmp_path / "leaderboard.csv")


def test_a_newer_cell_is_an_error_of_one_line_and_exit_code_3(tmp_path, capsys):
    file = store.write(tmp_path, a_cell(), {})
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 9'))
    for arguments in (["show", str(file)], ["bench", "digits", "--quick", "--results", str(tmp_path)]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 3
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "has schema 9 and this hashzoo reads up to 1; install a newer hashzoo" in line


def test_saved_splits_have_a_schema_and_are_read_without_one(tmp_path):
    file = tmp_path / "parts.npz"
    split_file.save(synthetic_splits(), file)
    with np.load(file) as stored:
        arrays = dict(stored)
    assert arrays.pop("schema") == split_file.SCHEMA
    np.savez(file, **arrays)
    assert split_file.read(file).digest == split_file.split_digest(synthetic_splits())
    np.savez(file, **arrays, schema=9)
    with pytest.raises(NewerSchemaError, match=r"parts.npz has schema 9 .*newer hashzoo"):
        split_file.read(file)


def test_stored_features_have_a_schema_and_are_read_without_one(tmp_path):
    kept = tmp_path / "kept"
    request = feature_store.FeatureRequest([np.arange(3)], 3, maps=False)
    feature_store.extract([lambda rows: Features(torch.ones(len(rows), 2))], request, kept)
    about = json.loads((kept / "features.json").read_text())
    assert about.pop("schema") == feature_store.SCHEMA
    (kept / "features.json").write_text(json.dumps(about))
    assert len(feature_store.read(kept, 3)) == 1
    (kept / "features.json").write_text(json.dumps(about | {"schema": 9}))
    with pytest.raises(NewerSchemaError, match="set HASHZOO_CACHE to another folder"):
        feature_store.read(kept, 3)


def test_cached_scans_have_a_schema_are_read_without_one_and_replaced_if_damaged(tmp_path):
    file = tmp_path / "seen.npz"
    scanned = Scan(np.zeros((2, 16), np.uint8), {1: "cut off"})
    write_scan(file, scanned)
    with np.load(file) as stored:
        arrays = dict(stored)
    assert arrays.pop("schema") == SCHEMA
    np.savez(file, **arrays)
    assert read_scan(file, 2).bad == scanned.bad
    np.savez(file, **arrays, schema=9)
    with pytest.raises(NewerSchemaError, match="set HASHZOO_CACHE to another folder"):
        read_scan(file, 2)
    for damage in (b"", b"PK nonsense", file.read_bytes()[:-9]):
        file.write_bytes(damage)
        assert read_scan(file, 2) is None


def test_saved_weights_have_a_schema_and_are_read_without_one(tmp_path):
    path = cell_of(tmp_path, "lsh", train={"epochs": 1})
    file = saved_method.path_of(path)
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["hashzoo"])
    assert about.pop("schema") == saved_method.SCHEMA
    tensors = load_file(file)
    save_file(tensors, file, {"hashzoo": json.dumps(about)})
    assert saved_method.read(path).cell.identity.method == "lsh"
    save_file(tensors, file, {"hashzoo": json.dumps(about | {"schema": 9})})
    with pytest.raises(NewerSchemaError, match="has schema 9"):
        saved_method.read(path)


def test_the_scores_of_external_codes_have_a_schema(tmp_path):
    codes, labels = np.eye(4, dtype=bool), np.arange(4)
    file = tmp_path / "codes.npz"
    np.savez(file, query_codes=codes, database_codes=codes, query_labels=labels, database_labels=labels)
    main(["evaluate", str(file)])
    assert json.loads((tmp_path / "codes.metrics.json").read_text())["schema"] == 1
