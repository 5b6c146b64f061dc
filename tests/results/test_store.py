import contextlib
import errno
import json
import math
import os
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import store
from hashzoo.results.cell import Cell, Identity
from hashzoo.results.store import DamagedError, NewerSchemaError
from hashzoo.storage.files import canonical_json, sha256

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.text(), values, max_size=3)


def an_identity(**changes):
    given = {
        "dataset": "digits.small",
        "dataset_options": {},
        "backbone": "tiny",
        "backbone_options": {"width": 8},
        "method": "saliency+hashnet",
        "hyperparameters": {"weight": 0.2, "steps": 3},
        "bits": 32,
        "seed": 0,
        "budget": {"epochs": 2},
        "protocol": 1,
        "code": "c0de",
        "data": "da7a",
    }
    return Identity(**{**given, **changes})


def a_cell(**changes):
    given = {
        "identity": an_identity(),
        "benchmark": "digits",
        "status": "ok",
        "metrics": {"map@all": 0.1 + 0.2, "p@10": 1.0},
        "facts": {"stored_bits": 32, "bytes_per_item": 4.5, "note": "ü"},
        "timings": {"fit_seconds": 0.25},
        "settings": "weight=0.2",
        "provenance": {"host": {"cores": 2}},
        "created": "2026-01-01T00:00:00.000000+00:00",
    }
    return Cell(**{**given, **changes})


SCORES = {"map@all": np.linspace(0, 1, 7), "relevant": np.arange(7)}


@pytest.fixture
def written(tmp_path):
    return store.write(tmp_path, a_cell(), SCORES)


def names(folder):
    return sorted(file.name for file in (folder / "cells").iterdir())


def arrays_of(file):
    [beside] = file.parent.glob(f"{file.stem}.*.npz")
    return beside


def test_what_is_read_is_what_was_written(tmp_path, written):
    assert store.read(written) == a_cell()
    assert store.read_all(tmp_path) == ([a_cell()], [])
    found = store.arrays(written)
    assert found.keys() == SCORES.keys()
    assert all(np.array_equal(found[name], SCORES[name]) and found[name].dtype == SCORES[name].dtype for name in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    hyperparameters=tables,
    options=tables,
    method=st.text(),
    metrics=st.dictionaries(st.text(), st.floats(allow_infinity=False), max_size=3),
    reason=st.text(st.characters()),
    bits=st.integers(1, 4096),
)
def test_any_cell_survives_the_disk(tmp_path, hyperparameters, options, method, metrics, reason, bits):
    identity = an_identity(hyperparameters=hyperparameters, dataset_options=options, method=method, bits=bits)
    cell = a_cell(identity=identity, metrics=metrics, reason=reason, provenance=options)
    back = store.read(store.write(tmp_path, cell, {}))
    assert back.identity == identity
    assert back.identity.key == identity.key
    assert replace(back, metrics={}) == replace(cell, metrics={})
    np.testing.assert_equal(back.metrics, metrics)


def test_scores_that_are_not_finite_are_stored_as_null_and_come_back_as_nan(tmp_path):
    cell = a_cell(metrics={"a": math.nan, "b": math.inf}, timings={"fit_seconds": -math.inf})
    file = store.write(tmp_path, cell, {})
    assert json.loads(file.read_text())["cell"]["metrics"] == {"a": None, "b": None}
    back = store.read(file)
    assert [math.isnan(value) for value in [*back.metrics.values(), *back.timings.values()]] == [True] * 3


def test_scores_of_numpy_are_stored_as_plain_numbers(tmp_path):
    cell = a_cell(metrics={"a": np.float32(0.5)}, facts={"stored_bits": np.int64(7), "kept": np.bool_(True)})
    back = store.read(store.write(tmp_path, cell, {}))
    assert (back.metrics, back.facts) == ({"a": 0.5}, {"stored_bits": 7, "kept": True})
    assert back.facts["kept"] is True


def test_a_cell_without_arrays_has_none(tmp_path):
    file = store.write(tmp_path, a_cell(status="failed", reason="no luck"), {})
    assert store.arrays(file) == {}
    assert len(names(tmp_path)) == 1


def test_arrays_of_objects_are_refused_before_they_are_pickled(tmp_path):
    with pytest.raises(TypeError, match="'codes' holds Python objects"):
        store.write(tmp_path, a_cell(), {"codes": np.array([{}], dtype=object)})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "digits.large"},
        {"dataset_options": {"a": 1}},
        {"backbone": "resnet"},
        {"backbone_options": {"width": 9}},
        {"method": "dhn"},
        {"hyperparameters": {"weight": 0.2, "steps": 4}},
        {"hyperparameters": {"weight": 0.2, "steps": 3.0}},
        {"hyperparameters": {"weight": 0.2}},
        {"bits": 16},
        {"seed": 1},
        {"budget": {"epochs": 3}},
        {"protocol": 2},
        {"code": "other"},
        {"data": "other"},
    ],
    ids=str,
)
def test_whatever_can_change_the_score_changes_the_key(change):
    assert an_identity(**change).key != an_identity().key


@given(st.lists(st.tuples(st.text(), values), max_size=4, unique_by=lambda pair: pair[0]))
def test_the_order_of_hyperparameters_does_not_change_the_key(pairs):
    forth, back = dict(pairs), dict(reversed(pairs))
    assert an_identity(hyperparameters=forth).key == an_identity(hyperparameters=back).key


def test_one_and_one_point_zero_and_true_and_text_have_different_keys():
    keys = {an_identity(hyperparameters={"a": value}).key for value in (1, 1.0, True, "1", None)}
    assert len(keys) == 5


def test_the_key_is_the_same_in_every_release():
    assert an_identity().key == "692a7d72aeeb88b2"


def test_a_list_changed_afterwards_does_not_change_the_identity():
    layers = [1, 2]
    identity = an_identity(hyperparameters={"layers": layers})
    layers.append(3)
    assert identity == an_identity(hyperparameters={"layers": (1, 2)})


@pytest.mark.parametrize("value", [math.nan, math.inf, Path("x"), {1: 2}, b"x", [object()]])
def test_a_hyperparameter_that_json_cannot_hold_is_refused_by_name(value):
    with pytest.raises(UsageError, match="hyperparameters holds"):
        an_identity(hyperparameters={"a": value})


@pytest.mark.parametrize("change", [{"status": "fine"}, {"role": "king"}, {"budget_kind": "endless"}])
def test_a_word_that_the_board_does_not_know_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        a_cell(**change)


@given(st.text(), st.text())
def test_every_name_makes_a_plain_file_name(benchmark, method):
    name = store.path(Path("x"), an_identity(method=method), benchmark).name
    assert set(name) <= set(string.ascii_letters + string.digits + "+_-.")
    assert len(name) < 255 - len(".0123456789ab.npz.bad")
    assert name.endswith(f".32.0.{an_identity(method=method).key}.json")


def test_the_file_name_says_what_was_measured():
    name = store.path(Path("x"), an_identity(method="torchvision/dhn"), "digits.v1").name
    assert name.startswith("digits_v1.torchvision_dhn.32.0.")


# --- damage ---


def test_a_cell_cut_off_anywhere_is_never_read(written):
    whole = written.read_bytes()
    for length in range(len(whole)):
        written.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            store.read(written)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_what_is_read(written, place, bit):
    whole = written.read_bytes()
    changed = bytearray(whole)
    changed[place % len(whole)] ^= 1 << bit
    written.write_bytes(changed)
    try:
        read = store.read(written)
    except (DamagedError, NewerSchemaError):
        read = a_cell()
    finally:
        written.write_bytes(whole)
    assert read == a_cell()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_arrays_is_seen(written, place, bit):
    beside = arrays_of(written)
    whole = beside.read_bytes()
    changed = bytearray(whole)
    changed[place % len(whole)] ^= 1 << bit
    beside.write_bytes(changed)
    try:
        for reader in (store.read, store.arrays):
            with pytest.raises(DamagedError, match="arrays"):
                reader(written)
    finally:
        beside.write_bytes(whole)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"schema": 1}', '{"schema": true}', "\xff", "[" * 10**5, '{"schema": NaN}'],
)
def test_a_file_that_is_no_cell_is_damaged(written, text):
    written.write_text(text, encoding="latin-1")
    with pytest.raises(DamagedError, match="delete it and run the benchmark again"):
        store.read(written)


def sealed(written, change):
    content = json.loads(written.read_text())
    del content["checksum"]
    change(content)
    content["checksum"] = sha256(canonical_json(content).encode())
    written.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("cell"),
        lambda content: content["cell"].pop("metrics"),
        lambda content: content["cell"].pop("benchmark"),
        lambda content: content["cell"]["identity"].pop("seed"),
        lambda content: content["cell"].update(status="fine"),
        lambda content: content.update(cell=3),
        lambda content: content["cell"]["identity"].update(bits="many"),
        lambda content: content["cell"]["identity"].update(seed=2**60),
        lambda content: content["cell"]["metrics"].update({"map@all": "good"}),
        lambda content: content["cell"]["timings"].update(fit_seconds=[1.0]),
        lambda content: content["cell"]["facts"].update(train=10**400),
        lambda content: content["cell"].update(contaminated="no"),
    ],
)
def test_a_cell_that_lacks_a_part_or_holds_another_kind_is_damaged_though_its_checksum_fits(written, change):
    sealed(written, change)
    with pytest.raises(DamagedError):
        store.read(written)


def test_a_damaged_cell_is_set_aside_with_its_arrays_and_not_counted(tmp_path, written):
    whole = store.write(tmp_path, a_cell(identity=an_identity(seed=1)), {})
    written.write_bytes(written.read_bytes()[:-9])
    found, messages = store.read_all(tmp_path)
    assert [cell.identity.seed for cell in found] == [1]
    assert len(messages) == 1
    assert "renamed to" in messages[0]
    assert "\n" not in messages[0]
    assert [name.endswith(".bad") for name in names(tmp_path) if name != whole.name] == [True, True]
    assert store.read_all(tmp_path)[1] == []


def test_a_damaged_cell_that_cannot_be_set_aside_is_not_counted_either(tmp_path, written, monkeypatch):
    written.write_bytes(b"{")
    monkeypatch.setattr(os, "replace", refuse(errno.EROFS))
    monkeypatch.setattr(Path, "replace", refuse(errno.EROFS))
    found, messages = store.read_all(tmp_path)
    assert found == []
    assert "could not be renamed" in messages[0]


def test_a_copy_under_another_name_is_not_counted_twice(tmp_path, written):
    (written.parent / "copy.json").write_bytes(written.read_bytes())
    found, messages = store.read_all(tmp_path)
    assert len(found) == 1
    assert "copy of another cell" in messages[0]


def test_a_cell_passed_on_without_its_arrays_still_counts(tmp_path, written):
    arrays_of(written).unlink()
    assert store.read(written) == a_cell()
    with pytest.raises(EnvironmentFailure, match="npz"):
        store.arrays(written)


def test_temporary_files_of_dead_writers_are_ignored(tmp_path, written):
    (written.parent / ".999-abc.tmp").write_bytes(b"half")
    assert store.read_all(tmp_path) == ([a_cell()], [])


def test_a_folder_without_cells_has_none(tmp_path):
    assert store.read_all(tmp_path / "nowhere") == ([], [])


def test_cells_come_in_the_same_order_whatever_the_files_say(tmp_path):
    for seed in (10, 2, 1):
        store.write(tmp_path, a_cell(identity=an_identity(seed=seed)), {})
    assert [cell.identity.seed for cell in store.read_all(tmp_path)[0]] == [1, 2, 10]


# --- resuming ---


def test_a_cell_is_found_again_by_its_identity(tmp_path, written):
    assert store.find(tmp_path, an_identity(), "digits") == (a_cell(), [])
    assert store.find(tmp_path, an_identity(seed=1), "digits") == (None, [])
    assert store.find(tmp_path, an_identity(), "other") == (None, [])


def test_a_cell_under_the_name_of_another_is_not_taken_for_it(tmp_path, written):
    other = an_identity(code="edited")
    store.path(tmp_path, other, "digits").write_bytes(written.read_bytes())
    assert store.find(tmp_path, other, "digits") == (None, [])


def test_a_damaged_cell_is_not_found_but_measured_anew(tmp_path, written):
    written.write_bytes(b"")
    cell, [message] = store.find(tmp_path, an_identity(), "digits")
    assert cell is None
    assert "run the benchmark again" in message
    assert store.find(tmp_path, an_identity(), "digits") == (None, [])


def test_a_newer_schema_stops_everything_and_renames_nothing(tmp_path, written):
    content = json.loads(written.read_text())
    written.write_text(json.dumps({**content, "schema": store.SCHEMA + 1}))
    before = names(tmp_path)
    for act in (
        lambda: store.read(written),
        lambda: store.read_all(tmp_path),
        lambda: store.find(tmp_path, an_identity(), "digits"),
        lambda: store.prepare(tmp_path),
    ):
        with pytest.raises(NewerSchemaError, match=r"schema 2 .* newer hashzoo"):
            act()
    assert names(tmp_path) == before


def test_preparing_makes_the_folder_and_leaves_nothing_else(tmp_path):
    store.prepare(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    store.prepare(tmp_path / "a" / "b")


def test_preparing_a_folder_where_a_file_stands_names_it(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"cannot create .*results"):
        store.prepare(tmp_path / "results")


# --- trouble while writing ---


def refuse(number):
    def act(*_, **__):
        raise OSError(number, os.strerror(number))

    return act


def breaking(patch, step, calls, error):
    """After so many calls of ``step`` (opening counts when it is for writing) the next raises."""
    owner = Path if step == "open" else os
    act, left = getattr(owner, step), [calls]

    def counted(*arguments, **keywords):
        left[0] -= step != "open" or "xb" in arguments
        if left[0] < 0:
            raise error
        return act(*arguments, **keywords)

    patch.setattr(owner, step, counted)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("step", "calls"), [("open", 2), ("fsync", 4), ("replace", 2)])
def test_every_step_below_is_a_step_of_writing(tmp_path, monkeypatch, step, calls):
    breaking(monkeypatch, step, calls, FULL)
    store.write(tmp_path, a_cell(), SCORES)
    with pytest.raises(EnvironmentFailure):
        store.write(tmp_path, a_cell(), SCORES)


STEPS = [
    *(("open", i) for i in range(2)),
    *(("fsync", i) for i in range(4)),
    *(("replace", i) for i in range(2)),
]


@pytest.mark.parametrize(("step", "calls"), STEPS)
def test_a_write_that_fails_anywhere_leaves_the_old_cell_or_the_new(tmp_path, written, monkeypatch, step, calls):
    new = a_cell(metrics={"map@all": 0.75})
    with monkeypatch.context() as patch:
        breaking(patch, step, calls, FULL)
        with pytest.raises(EnvironmentFailure, match=r"cannot write .*digits.*No space left.*; free some space"):
            store.write(tmp_path, new, {"map@all": np.ones(3)})
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    cell, stored = store.read(written), store.arrays(written)
    assert cell in (a_cell(), new)
    np.testing.assert_array_equal(stored["map@all"], SCORES["map@all"] if cell == a_cell() else np.ones(3))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize("calls", range(4))
def test_a_writer_killed_anywhere_leaves_the_old_cell_or_the_new(tmp_path, written, monkeypatch, step, calls):
    new = a_cell(metrics={"map@all": 0.75})
    with monkeypatch.context() as patch:
        breaking(patch, step, calls, Killed())
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
        with contextlib.suppress(Killed):
            store.write(tmp_path, new, {"map@all": np.ones(3)})
    [cell], messages = store.read_all(tmp_path)
    assert messages == []
    assert cell in (a_cell(), new)
    expected = SCORES["map@all"] if cell == a_cell() else np.ones(3)
    np.testing.assert_array_equal(store.arrays(written)["map@all"], expected)


def test_writing_again_leaves_one_cell_and_its_arrays(tmp_path, written):
    store.write(tmp_path, a_cell(), {"map@all": np.ones(3)})
    assert len(names(tmp_path)) == 2
    np.testing.assert_array_equal(store.arrays(written)["map@all"], np.ones(3))


def test_writing_over_a_damaged_cell_heals_it(tmp_path, written):
    written.write_bytes(b"junk")
    store.write(tmp_path, a_cell(), SCORES)
    assert store.read(written) == a_cell()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "not read-only"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "check the disk"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch, number, cure):
    (tmp_path / "cells").mkdir()
    monkeypatch.setattr(Path, "open", refuse(number))
    with pytest.raises(EnvironmentFailure, match=cure) as caught:
        store.prepare(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 3
    assert names(tmp_path) == []


def test_a_folder_that_knows_no_fsync_is_written_all_the_same(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(handle):
        if Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert store.read(store.write(tmp_path, a_cell(), SCORES)) == a_cell()
