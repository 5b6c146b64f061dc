import csv
import io
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.code_metrics import CodeMetric
from hashzoo.results import leaderboard, regressions, render
from hashzoo.results.board import read_board, write_board
from hashzoo.results.cell import Cell, Identity
from hashzoo.results.csv_file import read_csv, write_csv
from hashzoo.results.leaderboard import board_frame, cells_frame, main_metric, metrics, superseded

DIGITS = {
    "dataset": "digits.small",
    "dataset_options": {},
    "backbone": "tiny",
    "backbone_options": {},
    "hyperparameters": {},
    "bits": 32,
    "seed": 0,
    "budget": {"epochs": 2},
    "protocol": 1,
    "code": "old",
    "data": "da7a",
}
KEYS = {*DIGITS, "method"}


def a_cell(method="dhn", score=0.5, **changes):
    identity = Identity(**{**DIGITS, "method": method, **{k: v for k, v in changes.items() if k in KEYS}})
    given = {
        "benchmark": "digits",
        "status": "ok",
        "metrics": {"map@all": score, "p@10": 0.25, "p@100": 0.125},
        "facts": {
            "stored_bits": identity.bits,
            "bytes_per_item": identity.bits / 8,
            "queries_without_relevant": 0,
        },
        "timings": {"fit_seconds": 1.5, "encode_per_second": 1000.0, "search_per_second": 10.0},
        "plugin": "hashzoo",
        "plugin_version": "0.1.0",
        "created": "2026-01-01T00:00:00.000000+00:00",
    }
    return Cell(identity=identity, **{**given, **{k: v for k, v in changes.items() if k not in KEYS}})


def failed(method="dhn", status="failed", reason="no luck", **changes):
    return a_cell(method, status=status, reason=reason, metrics={}, facts={}, timings={}, **changes)


def row(frame, **wanted):
    [found] = [r for r in leaderboard.records(frame) if all(r[k] == v for k, v in wanted.items())]
    return found


BOARD = [
    a_cell("lsh", 0.25, role="baseline"),
    a_cell("lsh", 0.3, role="baseline", bits=64),
    a_cell("dhn", 0.5),
    a_cell("dhn", 0.75, seed=1),
    a_cell("dhn", 0.7, bits=64, settings="weight=0.2", hyperparameters={"weight": 0.2}),
    a_cell("itq", 0.4, contaminated=True),
    a_cell("real", 0.9, role="control"),
    failed("csq", "oom", "out of memory"),
]


# --- from cells to rows ---


def test_the_columns_stand_in_the_order_that_people_were_promised():
    shared = ["schema", "benchmark", "dataset", "backbone", "method", "bits", "stored_bits", "budget"]
    tail = [
        "fit_seconds",
        "encode_per_second",
        "search_per_second",
        "bytes_per_item",
        "plugin",
        "plugin_version",
    ]
    tail += ["contaminated", "reason", "role", "settings", "marks", "queries_without_relevant"]
    tail += ["source", "split", "train", "database_size", "queries", "train_in_database", "unlabelled_queries"]
    last = ["stale", "warnings"]
    assert list(cells_frame(BOARD)) == [*shared, "seed", "status", "map@all", "p@10", "p@100", *tail, "key", *last]
    scores = ["map@all", "map@all_std", "p@10", "p@10_std", "p@100", "p@100_std"]
    assert list(board_frame(BOARD)) == [*shared, "seeds", "status", *scores, *tail, "seed_list", *last]


def test_no_cells_give_an_empty_board_with_its_columns(tmp_path):
    write_csv(board_frame([]), tmp_path / "x.csv")
    assert len(read_csv(tmp_path / "x.csv")) == 0
    assert render.render(read_csv(tmp_path / "x.csv")) == []


def test_a_board_row_holds_mean_and_sample_deviation_over_its_seeds():
    found = row(board_frame(BOARD), method="dhn", bits=32)
    assert (found["seeds"], found["seed_list"], found["status"]) == (2, "0 1", "ok")
    assert found["map@all"] == 0.625
    assert found["map@all_std"] == statistics.stdev([0.5, 0.75])
    assert (found["stored_bits"], found["bytes_per_item"], found["fit_seconds"]) == (32, 4, 1.5)


def test_a_single_seed_has_no_deviation():
    assert row(board_frame(BOARD), method="itq")["map@all_std"] is None


def test_seeds_that_failed_are_left_out_of_the_mean_and_seen_in_the_status():
    cells = [
        a_cell(score=0.5),
        failed(seed=1),
        failed(seed=2, status="crashed", reason="signal 9"),
        a_cell(seed=3),
    ]
    found = row(board_frame(cells))
    assert (found["status"], found["seeds"], found["seed_list"]) == ("crashed", 2, "0 3")
    assert found["reason"] == "2 of 4 seeds: signal 9"
    assert found["map@all"] == 0.5


def test_a_method_that_failed_altogether_keeps_its_row():
    found = row(board_frame(BOARD), method="csq")
    assert (found["status"], found["reason"], found["seeds"], found["map@all"]) == (
        "oom",
        "out of memory",
        0,
        None,
    )


def test_a_score_that_one_seed_does_not_know_has_no_mean():
    found = row(board_frame([a_cell(score=0.5), a_cell(seed=1, score=math.nan)]))
    assert found["map@all"] is None
    assert found["p@10"] == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"benchmark": "b"},
        {"dataset": "d"},
        {"hyperparameters": {"a": 1}},
        {"bits": 8},
        {"dataset_options": {"n": 1}},
    ],
    ids=str,
)
def test_what_is_not_the_same_measurement_is_not_averaged(change):
    assert len(board_frame([a_cell(), a_cell(seed=1, **change)])) == 2


def test_numbers_in_names_sort_by_their_value():
    cell = a_cell(metrics={"p@100": 0.0, "map@all": 0.0, "p@20": 0.0, "map@1000": 0.0, "map@50": 0.0})
    assert leaderboard.metrics(cells_frame([cell])) == ["map@50", "map@1000", "map@all", "p@20", "p@100"]


# --- superseded cells ---


@pytest.mark.parametrize("change", [{"code": "new"}, {"data": "new"}, {"protocol": 2}])
def test_an_edited_plugin_does_not_show_twice(change):
    old = [a_cell(seed=seed) for seed in range(3)]
    new = a_cell(score=0.75, created="2026-02-01T00:00:00.000000+00:00", **change)
    assert superseded([*old, new]) == old
    found = row(board_frame([new, *old]))
    assert (found["map@all"], found["seeds"]) == (0.75, 1)
    assert len(cells_frame([new, *old])) == 1


def test_a_later_seed_supersedes_nothing():
    later = a_cell(seed=1, created="2026-02-01T00:00:00.000000+00:00")
    assert superseded([a_cell(), later, a_cell("itq", code="new"), a_cell(bits=8, code="new")]) == []


def test_a_newer_failure_supersedes_an_older_success():
    new = failed(code="new", created="2026-02-01T00:00:00.000000+00:00")
    assert row(board_frame([a_cell(), new]))["status"] == "failed"


# --- stale rows ---


def installed(pairs):
    """The code of ``dhn`` is another one by now, that of ``itq`` is the same, and nothing else is installed."""
    known = {("dhn", "tiny"): "new", ("itq", "tiny"): "old"}
    return {pair: known.get(pair) for pair in pairs}


def test_a_row_whose_code_is_not_the_installed_code_is_stale():
    for frame in (board_frame(BOARD, installed), cells_frame(BOARD, installed)):
        stale = {found["method"]: found["stale"] for found in leaderboard.records(frame)}
        assert stale == {"dhn": True, "itq": False, "lsh": None, "real": None, "csq": None}


def test_without_knowledge_of_installed_code_nothing_is_stale(tmp_path):
    assert board_frame(BOARD)["stale"].isna().all()
    write_board(tmp_path, BOARD)
    for name in ("cells.csv", "leaderboard.csv"):
        header, *lines = (tmp_path / name).read_text().splitlines()
        assert header.endswith(",stale,warnings")
        assert all(line.endswith(",") for line in lines)


def test_stale_rows_survive_the_csv_and_a_file_without_the_column_is_read(tmp_path):
    board = write_board(tmp_path, BOARD, installed)
    assert board["stale"].sum() == 2
    pd.testing.assert_frame_equal(read_csv(tmp_path / "leaderboard.csv"), board)
    pd.testing.assert_frame_equal(read_board(tmp_path, installed).frame, board)
    write_csv(board.drop(columns="stale"), tmp_path / "older.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "older.csv"), board.drop(columns="stale"))
    assert "stale" not in shown(read_csv(tmp_path / "older.csv"))
    file = tmp_path / "leaderboard.csv"
    file.write_text(file.read_text().replace(",True,\n", ",perhaps,\n"))
    with pytest.raises(EnvironmentFailure, match="stale is 'perhaps'"):
        read_csv(file)


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("true", "false"), ("True", "FALSE")])
def test_a_board_that_a_spreadsheet_saved_reads_the_same(words, tmp_path):
    board = write_board(tmp_path, BOARD, installed)
    file = tmp_path / "leaderboard.csv"
    text = file.read_text().replace("True", words[0]).replace("False", words[1])
    file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    pd.testing.assert_frame_equal(read_csv(file), board)


def test_installed_code_is_looked_up_once_for_each_method_and_backbone():
    calls = []
    board_frame(BOARD, lambda pairs: calls.append(list(pairs)) or installed(pairs))
    assert [sorted(pairs) for pairs in calls] == [[(name, "tiny") for name in ("csq", "dhn", "itq", "lsh", "real")]]


def test_stale_rows_are_marked_and_the_mark_is_explained_once():
    text = shown(board_frame(BOARD, installed))
    assert "dhn (stale)" in text
    assert "dhn weight=0.2 (stale)" in text
    assert "itq (contaminated)" in text
    assert text.count("stale: measured with code other than the installed code") == 1
    assert "stale" not in shown(board_frame(BOARD))
    assert "stale" not in leaderboard.metrics(board_frame(BOARD))


def test_a_comparison_marks_the_stale_side():
    new = replace(a_cell(score=0.75), identity=replace(a_cell().identity, code="new"))
    for first, second, mark in ((a_cell(), new, "first stale"), (new, a_cell(), "second stale"), (new, new, "")):
        comparison = regressions.compare(board_frame([first], installed), board_frame([second], installed))
        assert set(comparison["marks"]) == {mark}
        assert not mark or f"dhn ({mark})" in printed(regressions.render_compare(comparison))


# --- CSV ---


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.permutations(BOARD))
def test_the_same_cells_give_the_same_bytes(tmp_path, shuffled):
    for folder, cells in (("a", BOARD), ("b", shuffled)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_board(tmp_path / folder, cells, installed)
    for name in ("cells.csv", "leaderboard.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_board_read_back_is_the_board_and_writes_the_same_bytes(tmp_path):
    write_board(tmp_path, BOARD)
    for frame, name in ((board_frame(BOARD), "leaderboard.csv"), (cells_frame(BOARD), "cells.csv")):
        back = read_csv(tmp_path / name)
        pd.testing.assert_frame_equal(back, frame)
        write_csv(back, tmp_path / "again.csv")
        assert (tmp_path / "again.csv").read_bytes() == (tmp_path / name).read_bytes()
    pd.testing.assert_frame_equal(read_board(tmp_path).frame, board_frame(BOARD))


def test_integers_stay_integers_and_floats_keep_every_digit(tmp_path):
    cells = [a_cell(score=0.1 + 0.2), failed("csq")]
    write_board(tmp_path, cells)
    text = (tmp_path / "leaderboard.csv").read_bytes().decode()
    assert "0.30000000000000004" in text
    assert ",32,32,equal,1,ok," in text
    assert "\r" not in text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    reason=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])).map(str.strip)
    | st.sampled_from(["=1+1", "'=1", "''@x", "-0.5", "+1", "@x", "it's", 'a "b", c', "'"]),
    score=st.floats(-1, 1),
)
def test_every_text_and_number_survives_the_csv(tmp_path, reason, score):
    write_csv(cells_frame([failed(reason=reason), a_cell("itq", score)]), tmp_path / "x.csv")
    frame = read_csv(tmp_path / "x.csv")
    assert row(frame, method="dhn")["reason"] == reason
    assert row(frame, method="itq")["map@all"] == score


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n =1", "'=1"])
def test_no_text_is_run_by_a_spreadsheet(tmp_path, text):
    write_csv(cells_frame([failed(reason=text, settings=text)]), tmp_path / "x.csv")
    fields = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text()))
    for field in next(fields).values():
        assert not field.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_negative_score_is_a_number_all_the_same(tmp_path):
    write_csv(cells_frame([a_cell(score=-0.5)]), tmp_path / "x.csv")
    assert ",-0.5," in (tmp_path / "x.csv").read_text()


def test_a_reason_of_many_lines_takes_one(tmp_path):
    write_csv(cells_frame([failed(reason="Traceback:\r\n  \x1b[31mKeyError\u2028x\n")]), tmp_path / "x.csv")
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 2
    assert row(read_csv(tmp_path / "x.csv"))["reason"] == "Traceback:    [31mKeyError x"


def test_a_reason_that_is_no_unicode_can_be_written(tmp_path):
    write_csv(cells_frame([failed(reason="file \udcff")]), tmp_path / "x.csv")
    assert row(read_csv(tmp_path / "x.csv"))["reason"] == "file \\udcff"


def test_a_board_saved_by_a_spreadsheet_is_still_read(tmp_path):
    write_board(tmp_path, BOARD)
    file = tmp_path / "leaderboard.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_csv(file), board_frame(BOARD))


def test_text_where_a_count_belongs_is_no_count():
    odd = a_cell(facts={"stored_bits": "many", "bytes_per_item": 4.0})
    for frame in (board_frame([odd]), cells_frame([odd])):
        assert frame["stored_bits"].isna().all()
        assert frame["bytes_per_item"].tolist() == [4.0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: b"a,b\n1,2\n",
        lambda text: b"\x89PNG\r\n\x1a\n\x00\xff",
        lambda text: text[:-30],
        lambda text: text.replace(b",32,", b",many,", 1),
        lambda text: text.replace(b",32,", b",,", 1),
        lambda text: text.replace(b",32,", b"," + b"9" * 400 + b",", 1),
        lambda text: text.replace(b"False", b"perhaps", 1),
        lambda text: text.replace(b"p@100,", b"p@10,", 1),
        lambda text: text + b'"open',
    ],
)
def test_a_file_that_is_no_board_is_named_in_one_line(tmp_path, spoil):
    write_board(tmp_path, BOARD)
    file = tmp_path / "leaderboard.csv"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(EnvironmentFailure) as caught:
        read_board(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_board_says_what_to_run(tmp_path):
    with pytest.raises(EnvironmentFailure, match="run hashzoo bench first"):
        read_board(tmp_path)


def test_a_board_of_a_newer_schema_is_refused(tmp_path):
    write_board(tmp_path, BOARD)
    file = tmp_path / "leaderboard.csv"
    file.write_text(file.read_text().replace("\n1,", "\n2,"))
    with pytest.raises(EnvironmentFailure, match="schema 2"):
        read_csv(file)


# --- show ---


def shown(frame, width=160, **options):
    return printed(render.render(frame, **options), width)


def printed(tables, width=160):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def line(text, *words):
    """The row of a table with these words; what stands below a table is not meant."""
    [found] = [line for line in text.splitlines() if all(word in line for word in words) and not note(line)]
    return found


def note(line):
    return re.match(r"\S+ at \d+: |\S+: |\*: |all rows: |columns? left out: ", line)


def test_gains_are_differences_from_each_baseline_at_the_same_bits():
    frame = render.add_differences(board_frame(BOARD))
    assert row(frame, method="dhn", bits=32)["vs lsh"] == 0.375
    assert row(frame, method="dhn", bits=64)["vs lsh"] == 0.7 - 0.3
    assert row(frame, method="lsh", bits=32)["vs lsh"] == 0
    assert row(frame, method="csq")["vs lsh"] is None


def test_of_a_baseline_on_two_backbones_the_better_row_is_met():
    on = [a_cell("lsh", score, role="baseline", backbone=f"b{score}") for score in (0.25, 0.5, 0.125)]
    frame = render.add_differences(board_frame([*on, a_cell(score=0.75)]))
    assert row(frame, method="dhn")["vs lsh"] == 0.25


def test_a_baseline_of_another_dataset_is_no_measure_but_one_on_another_backbone_is():
    for place in ({"dataset": "other"}, {"benchmark": "other"}, {"bits": 8}):
        frame = render.add_differences(board_frame([a_cell("lsh", role="baseline", **place), a_cell()]))
        assert row(frame, method="dhn")["vs lsh"] is None


def test_the_best_score_of_each_number_of_bits_is_starred_and_a_control_never_is():
    text = shown(board_frame(BOARD))
    assert "0.6250*" in line(text, "dhn", "32")
    assert "0.7000*" in line(text, "weight=0.2", "64")
    for other in ("lsh", "itq", "real"):
        assert not any("0*" in found.split("0.2500*")[0] for found in text.splitlines() if other in found)
    assert "0.9000*" not in text


def test_a_row_that_is_not_ok_is_never_the_best():
    text = shown(board_frame([a_cell(score=0.9), failed(seed=1), a_cell("itq", 0.4)]))
    assert "0.4000*" in text
    assert "0.9000*" not in text


def test_equal_scores_are_best_together():
    assert shown(board_frame([a_cell(score=0.4), a_cell("itq", 0.4)])).count("0.4000*") == 2


def test_a_high_rate_of_empty_balls_is_not_praised():
    assert "*" not in shown(board_frame([a_cell(metrics={"empty@h2": 0.9})]))


def test_methods_are_ranked_by_their_main_score_within_the_same_bits():
    text = shown(board_frame(BOARD)).partition("real")[2]
    order = [text.index(word) for word in ("dhn", "itq", "lsh", "csq", "weight=0.2")]
    assert order == sorted(order)


def test_sorting_by_a_score_puts_the_highest_first_and_by_time_the_shortest():
    cells = [a_cell("a", 0.1, timings={"fit_seconds": 3.0}), a_cell("b", 0.2, timings={"fit_seconds": 5.0})]
    frame = board_frame([*cells, a_cell("c", 0.3, timings={"fit_seconds": 1.0}), failed("d")])

    def order(sort):
        return [text.split()[0] for text in shown(frame, sort=sort).splitlines() if " 32 " in text]

    assert order("map@all") == ["c", "b", "a", "d"]
    assert order("fit_seconds") == ["c", "a", "b", "d"]
    assert order("method") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("option", [{"sort": "map@al"}, {"columns": ["method", "map@al"]}])
def test_an_unknown_column_is_answered_with_the_nearest(option):
    with pytest.raises(UsageError, match="no column 'map@al'; did you mean 'map@all'"):
        render.render(board_frame(BOARD), **option)


def test_exactly_the_columns_that_were_asked_for_are_shown():
    [table] = render.render(board_frame(BOARD), columns=["method", "search_per_second", "p@100"])
    assert [column.shown for column in table.columns] == ["method", "search/s", "p@100"]


def test_each_benchmark_and_dataset_has_its_table():
    made = render.render(board_frame([a_cell(), a_cell(dataset="other"), a_cell(benchmark="other")]))
    assert [str(table.title) for table in made] == [
        "digits: digits.small",
        "digits: other",
        "other: digits.small",
    ]


def test_trouble_controls_and_contamination_are_noted():
    text = shown(board_frame(BOARD))
    assert "(contaminated)" in line(text, "itq")
    assert "(control)" in line(text, "real")
    assert "32" in line(text, "csq (oom)")
    assert "csq at 32: oom: out of memory" in text


def test_the_spread_is_shown_where_there_are_several_seeds():
    text = shown(board_frame(BOARD))
    assert f"±{statistics.stdev([0.5, 0.75]):.4f}" in line(text, "dhn", "32")
    assert "±" not in line(text, "itq")


def test_columns_that_say_nothing_are_not_shown():
    def headers(cells):
        return {column.shown for table in render.render(board_frame(cells)) for column in table.columns}

    plain = [a_cell(), a_cell("itq")]
    assert not headers(plain) & {"backbone", "budget", "stored", "seeds", "vs lsh"}
    assert "backbone" in headers([*plain, a_cell(backbone="other")])
    assert "budget" in headers([*plain, a_cell("csq", budget_kind="paper", budget={"epochs": 9})])
    assert "stored" in headers([*plain, a_cell("csq", facts={"stored_bits": 64})])
    assert "seeds" in headers([*plain, a_cell(seed=1)])


def stored(method, score, bits, kept, **changes):
    facts = {"stored_bits": kept, "bytes_per_item": kept / 8, "queries_without_relevant": 0}
    return a_cell(method, score, bits=bits, facts=facts, **changes)


STORED = [
    stored("lsh", 0.25, 16, 16, role="baseline"),
    stored("lsh", 0.35, 32, 32, role="baseline"),
    stored("itq", 0.4, 16, 16),
    stored("both", 0.5, 16, 32),
    stored("classes", 0.9, 32, 4),
    failed("csq", bits=16),
]


def test_rows_that_store_as_many_bits_stand_and_are_compared_together():
    [table] = render.render(board_frame(STORED), by="stored_bits")
    names, kept = (table.column(name) for name in ("method", "stored_bits"))
    assert table.columns[2].shown == "stored"
    assert names == ["classes", "itq", "lsh", "both", "lsh", "csq (failed)"]
    assert kept == ["4", "16", "16", "32", "32", ""]
    assert sorted(table.ends) == [0, 2, 4]
    text = shown(board_frame(STORED), by="stored_bits", width=150)
    for method, score in (("classes", "0.9000*"), ("itq", "0.4000*"), ("both", "0.5000*")):
        assert score in line(text, method)
    assert "+0.1500" in line(text, "both")  # over the baseline of 32 bits, since it stores as many
    assert "+" not in line(text, "classes")  # no baseline stores as few
    assert "0.5000*" in shown(board_frame(STORED), width=150)  # best of those asked for 16
    assert "0.4000*" not in shown(board_frame(STORED), width=150)


def test_a_skipped_row_whose_source_is_unknown_adds_no_column_of_sources():
    facts = {"stored_bits": 32, "bytes_per_item": 4.0, "source": "photos"}
    cells = [a_cell(facts=facts), a_cell("itq", facts=facts), failed("dcoh", status="skipped")]
    assert " source" not in shown(board_frame(cells), width=150)
    assert " source" in shown(board_frame([*cells, a_cell("lsh", facts=facts | {"source": "scans"})]), width=150)


def test_stored_bits_are_shown_where_rows_are_grouped_by_them():
    assert "stored" in shown(board_frame([a_cell()]), by="stored_bits")
    assert "stored" not in shown(board_frame([a_cell()]))


def test_settings_that_all_rows_share_are_said_once():
    cells = [
        a_cell("lsh", settings="size=128 weights=a [b]", hyperparameters={"s": 1}),
        a_cell("dhn", settings="weight=0.2 size=128 weights=a [b]", hyperparameters={"s": 2}),
        a_cell("dhn", settings="size=128 lr=0.1 weights=a [b]", hyperparameters={"s": 3}),
    ]
    text = shown(board_frame(cells), width=150)
    assert text.count("size=128") == text.count("weights=a [b]") == 1
    assert "all rows: backbone=tiny size=128 weights=a [b]\n" in text
    assert line(text, "dhn weight=0.2 ")
    assert line(text, "dhn lr=0.1 ")
    assert "all rows: backbone=tiny\n" in shown(board_frame(cells[:1]), width=150)
    assert "lsh size=128" in shown(board_frame(cells[:1]), width=150)
    assert "all rows: backbone=tiny\n" in shown(board_frame([*cells, a_cell("itq")]), width=150)
    text = shown(board_frame([a_cell("itq", backbone="pixels", budget_kind="paper"), a_cell(budget_kind="paper")]))
    assert "all rows: budget=paper\n" in text  # the backbones differ, so they are a column


def test_a_score_is_starred_only_where_somebody_knows_that_more_is_better():
    extra = {"spread": CodeMetric(lambda coded: 0.0), "learned": CodeMetric(lambda coded: 0.0, higher_is_better=True)}
    scores = {"spread": 0.5, "learned": 0.25, "unheard": 0.75}
    frame = board_frame([a_cell(metrics=scores), a_cell("itq", metrics=dict.fromkeys(scores, 0.125))])
    for known, starred in ((extra, ["0.2500*"]), ({}, [])):
        text = shown(frame, columns=["method", *scores], extra=known)
        assert [word for word in text.split() if word.endswith("*")] == starred
    assert main_metric(metrics(frame), extra) == "learned"
    assert main_metric(metrics(frame)) == "learned"  # the first, where nothing is known
    assert "learned" in shown(frame, width=60, extra=extra)


def test_names_with_brackets_are_shown_as_they_are():
    assert "[red]dhn[/red]" in shown(board_frame([a_cell("[red]dhn[/red]")]))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_gets_fewer_columns_and_never_a_cut_number(width):
    text = shown(board_frame(BOARD), width=width)
    assert "…" not in text
    for word in ("0.6250* ±0.1768", "+0.3750"):
        assert word in line(text, "dhn", " 32 ")
    header = text.splitlines()[1]
    assert ("bytes" in header) == (width == 120)
    assert ("columns left out: " in text) == (width < 120)


# --- compare ---


def compared(before, after):
    return regressions.compare(board_frame(before), board_frame(after))


def test_each_score_rose_fell_stayed_was_added_or_removed():
    before = [a_cell("rose", 0.5), a_cell("fell", 0.5), a_cell("same", 0.5), a_cell("removed", 0.5)]
    after = [a_cell("rose", 0.75), a_cell("fell", 0.25), a_cell("same", 0.5), a_cell("added", 0.5)]
    rows = leaderboard.records(compared(before, after))
    changes = {r["method"]: (r["change"], r["difference"]) for r in rows if r["metric"] == "map@all"}
    assert changes == {
        "rose": ("rose", 0.25),
        "fell": ("fell", -0.25),
        "same": ("same", 0.0),
        "added": ("added", None),
        "removed": ("removed", None),
    }


def test_a_board_compared_with_itself_is_the_same_everywhere():
    comparison = compared(BOARD, BOARD)
    assert set(comparison["change"]) == {"same"}
    assert regressions.violations(comparison, [regressions.parse_fail_on("map@all:-0%")]) == []


def test_timings_are_never_compared():
    slow = [replace(cell, timings={"fit_seconds": 9e9}) for cell in BOARD]
    comparison = compared(BOARD, slow)
    assert set(comparison["metric"]) == {"map@all", "p@10", "p@100"}
    assert set(comparison["change"]) == {"same"}


def test_rows_that_people_cannot_tell_apart_are_compared_in_their_order():
    twins = [a_cell(score=0.5), a_cell(score=0.6, dataset_options={"n": 1})]
    comparison = compared(twins, twins)
    assert len(comparison) == 6
    assert set(comparison["change"]) == {"same"}


def test_a_metric_that_only_one_board_has_was_added_or_removed():
    comparison = compared([a_cell(metrics={"a": 0.5})], [a_cell(metrics={"b": 0.5})])
    assert dict(zip(comparison["metric"], comparison["change"], strict=True)) == {"a": "removed", "b": "added"}
    [said] = regressions.violations(comparison, [regressions.parse_fail_on("a:-1%")])
    assert "no longer has a" in said


@pytest.mark.parametrize(
    ("rule", "after", "broken"),
    [
        ("map@all:-0.5%", 0.796, False),
        ("map@all:-0.5%", 0.7959, True),
        ("map@all:-0.005", 0.795, False),
        ("map@all:-0.005", 0.7949, True),
        ("map@all:-0%", 0.8, False),
        ("map@all:-0%", 0.7999, True),
        ("map@all:-0.5%", 0.9, False),
        ("map@all:+1%", 0.808, False),
        ("map@all:+1%", 0.81, True),
        ("map@all:+1%", 0.1, False),
    ],
)
def test_a_rule_is_broken_just_beyond_its_limit(rule, after, broken):
    said = regressions.violations(
        compared([a_cell(score=0.8)], [a_cell(score=after)]), [regressions.parse_fail_on(rule)]
    )
    assert len(said) == broken


def test_a_violation_says_what_moved_where_and_how_far():
    [said] = regressions.violations(
        compared([a_cell(score=0.8)], [a_cell(score=0.7)]), [regressions.parse_fail_on("map@all:-0.5%")]
    )
    expected = "map@all fell from 0.8000 to 0.7000 (-0.1000), beyond -0.5%"
    assert said == f"dhn at 32 bits on digits.small (digits, tiny): {expected}"


def test_a_row_that_is_missing_or_is_no_longer_ok_is_a_violation_without_any_rule():
    [gone] = regressions.violations(compared([a_cell(), a_cell("itq")], [a_cell()]), [])
    assert "itq at 32 bits" in gone
    assert "no such row" in gone
    [broken] = regressions.violations(
        compared([a_cell()], [failed(status="nan")]), [regressions.parse_fail_on("p@10:-1%")]
    )
    assert "was ok and is now nan" in broken
    assert regressions.violations(compared([failed()], [a_cell()]), []) == []
    assert regressions.violations(compared([a_cell()], [a_cell(), a_cell("itq")]), []) == []


def test_a_row_that_is_missing_is_seen_on_boards_without_any_score():
    [said] = regressions.violations(compared([failed(), failed("itq")], [failed()]), [])
    assert "itq" in said


@pytest.mark.parametrize(
    "text", ["", "map@all", "map@all:", "map@all:0.5%", ":-1", "map@all:-x", "map@all:-nan", "map@all:-1e999"]
)
def test_a_rule_that_is_none_is_answered_with_an_example(text):
    with pytest.raises(UsageError, match=r"map@all:-0\.5%"):
        regressions.parse_fail_on(text)


def test_a_rule_may_be_about_a_metric_with_a_colon():
    rule = regressions.parse_fail_on("map@100:hits:-.5%")
    assert (rule.metric, rule.limit, rule.relative) == ("map@100:hits", -0.5, True)


def test_a_rule_about_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="no metric 'map@al'; did you mean 'map@all'"):
        regressions.violations(compared(BOARD, BOARD), [regressions.parse_fail_on("map@al:-1%")])


def test_a_comparison_shows_what_changed_and_counts_the_rest():
    before, after = [a_cell(score=0.5), a_cell("itq")], [a_cell(score=0.75), failed("itq", "nan")]
    console = Console(width=140, file=io.StringIO(), no_color=True)
    for table in regressions.render_compare(compared(before, after)):
        console.print(table)
    text = console.file.getvalue()
    assert "+0.2500" in line(text, "dhn", "map@all")
    assert "ok -> nan" in line(text, "itq", "map@all")
    assert "2 of 6 scores are the same" in text


# --- validation scores, and settings of one method ---


def tuned(weight, score, held, **changes):
    """A cell of a method with a setting, its score by the queries, and by the validation images (None: unknown)."""
    facts = {"stored_bits": 32} | ({} if held is None else {"validation map@all": held, "validation p@10": held / 2})
    own = {"settings": f"weight={weight}", "hyperparameters": {"weight": weight}} if weight else {}
    return a_cell(changes.pop("method", "dhn"), score, facts=facts, **own, **changes)


def test_validation_scores_are_columns_at_the_end_with_means_over_seeds(tmp_path):
    board = write_board(tmp_path, [tuned(0, 0.5, 0.4), tuned(0, 0.6, 0.5, seed=1)])
    assert list(board)[-3:] == ["warnings", "validation map@all", "validation p@10"]
    assert list(read_csv(tmp_path / "cells.csv"))[-3:] == ["warnings", "validation map@all", "validation p@10"]
    assert row(board)["validation map@all"] == pytest.approx(0.45)
    assert "validation map@all" not in metrics(board)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "leaderboard.csv"), board)
    assert "validation map@all" in shown(board)
    assert "validation" not in shown(board_frame([tuned(0, 0.5, None)]))


def starred(frame):
    """The first column of rows in their order, and of those with a star."""
    lines = shown(frame, columns=["method", "map@all"]).splitlines()
    rows = [line for line in lines if line.startswith(("dhn", "csq", "lsh"))]
    names = [" ".join(re.findall(r"^\w+|weight=[\d.]+", line)) for line in rows]
    return names, [name for name, line in zip(names, rows, strict=True) if re.search(r"\.\d+\*", line)]


def test_settings_of_one_method_are_ranked_and_starred_by_validation():
    board = board_frame([tuned(0.1, 0.9, 0.3), tuned(0.2, 0.7, 0.6), tuned(0, 0.8, 0.5, method="csq")])
    assert starred(board) == (["dhn weight=0.2", "csq", "dhn weight=0.1"], ["dhn weight=0.2"])
    assert "ranked by the queries" not in shown(board)


def test_settings_without_validation_are_ranked_by_the_queries_with_one_line_of_warning():
    cells = [tuned(w, s, None, bits=bits) for bits in (16, 32) for w, s in ((0.1, 0.9), (0.2, 0.7))]
    board = board_frame(cells)
    assert starred(board)[1] == ["dhn weight=0.1"] * 2
    text = " ".join(shown(board).split())
    assert text.count("ranked by the queries") == 1
    assert "digits.small at 16, 32 bits: settings of one method are ranked by the queries" in text


def test_one_setting_of_each_method_is_ranked_by_the_queries_without_a_warning():
    board = board_frame([tuned(0, 0.9, 0.3), tuned(0, 0.8, 0.5, method="csq")])
    names, _ = starred(board)
    assert names == ["dhn", "csq"]
    assert "ranked by the queries" not in shown(board)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1))), min_size=2, max_size=5))
def test_show_report_and_compare_rank_settings_by_the_same_column(scores):
    from hashzoo.results.against import blocks_against
    from hashzoo.results.board import StoredBoard
    from hashzoo.results.by_dataset import build_results

    cells = [tuned(number / 10, score, held) for number, (score, held) in enumerate(scores, 1)]
    frame = board_frame(cells)
    stored = StoredBoard(Path(), frame, leaderboard.group_by_row(cells))
    [board] = build_results(stored, None, None).boards
    known = all(held is not None for _, held in scores)
    column = "validation map@all" if known else "map@all"
    assert board.ranked_by(32) == column
    best = board.best(32)
    assert best.facts[column] == max(row[column] for row in leaderboard.records(frame))
    [block] = blocks_against(stored, "dhn", "map@all")
    assert block.reference.facts[column] == best.facts[column]
    assert ("ranked by the queries" in shown(frame)) == (not known)
