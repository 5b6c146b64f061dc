import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure
from hashzoo.results import leaderboard, paired, store
from hashzoo.results.against import blocks_against
from hashzoo.results.board import BoardRow, read_board, write_board
from hashzoo.results.by_dataset import build_results
from hashzoo.results.mean_ranks import rank
from hashzoo.results.ranking import folder_of
from hashzoo.results.render import views
from tests.results.test_leaderboard import a_cell, failed

QUERIES = 120
FACTS = {"stored_bits": 32, "bytes_per_item": 4.0, "queries_without_relevant": 0, "split": "5p11t", "queries": QUERIES}


def scores(level, draw, spread=0.05):
    return np.clip(np.random.default_rng(draw).normal(level, spread, QUERIES), 0, 1)


def put(folder, method="dhn", level=0.5, seed=0, draw=None, arrays=None, **changes):
    values = scores(level, seed if draw is None else draw) if arrays is None else arrays
    cell = a_cell(method, float(np.nanmean(values)), seed=seed, **{"facts": FACTS, **changes})
    store.write(folder, cell, {"map@all": values})
    found, _ = store.read_all(folder)
    write_board(folder, found)


def a_board(folder, **levels):
    for number, (method, level) in enumerate(levels.items()):
        for seed in range(3):
            put(folder, method, level, seed, draw=10 * number + seed)
    return folder


def judged(a, b, metric="map@all"):
    return paired.compare_pairs(paired.pair_boards(read_board(a), read_board(b)), metric)


def compared(tmp_path, *arguments):
    with contextlib.chdir(tmp_path):
        result = CliRunner(env={"COLUMNS": "160"}).invoke(main, ["compare", *arguments])
    return SimpleNamespace(returncode=result.exit_code, stdout=result.stdout, stderr=result.stderr)


# --- what is tested ---


def test_the_same_methods_of_two_folders_are_tested_on_the_seeds_that_both_have(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    a_board(tmp_path / "b", dhn=0.6, itq=0.4)
    put(tmp_path / "b", "dhn", 0.99, seed=7)
    dhn, itq = judged(tmp_path / "a", tmp_path / "b")
    assert (dhn.seeds, dhn.queries) == (3, QUERIES)
    assert dhn.after - dhn.before == pytest.approx(0.1, abs=0.02)
    assert dhn.interval[0] > 0
    assert dhn.of_training < 0.05 > dhn.of_models
    assert itq.reason == paired.EQUAL
    assert itq.of_models is None


def test_one_seed_has_a_test_of_its_models_alone(tmp_path):
    for folder, level in (("a", 0.5), ("b", 0.6)):
        put(tmp_path / folder, level=level, draw=int(level * 10))
    [pair] = judged(tmp_path / "a", tmp_path / "b")
    assert pair.of_models < 0.001
    assert pair.of_training is None
    assert "corrected for 1 test (Holm)" in " ".join(paired.notes([pair]))
    assert "the variance of training is not covered" in " ".join(paired.notes([pair]))


def test_queries_without_a_value_are_left_out(tmp_path):
    for folder, level in (("a", 0.5), ("b", 0.6)):
        put(tmp_path / folder, arrays=np.where(np.arange(QUERIES) < 20, np.nan, scores(level, 1)))
    assert judged(tmp_path / "a", tmp_path / "b")[0].queries == QUERIES - 20


def test_all_pairs_of_the_named_methods_meet_at_the_same_bits(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4, lsh=0.3)
    put(tmp_path / "a", "itq", 0.4, bits=64)
    pairs = paired.pair_methods(read_board(tmp_path / "a"), ["lsh", "dhn", "itq"])
    names = [(a.facts["method"], b.facts["method"], a.facts["bits"]) for a, b in pairs]
    assert names == [("lsh", "dhn", 32), ("lsh", "itq", 32), ("dhn", "itq", 32)]
    assert [pair.after > pair.before for pair in paired.compare_pairs(pairs, "map@all")] == [True, True, False]


def test_methods_meet_whatever_their_backbones_and_are_named_by_what_differs(tmp_path):
    put(tmp_path / "a", "lsh", 0.3, backbone="pixels")
    put(tmp_path / "a", "dhn", 0.5)
    [(first, second)] = paired.pair_methods(read_board(tmp_path / "a"), ["lsh", "dhn"])
    assert paired.pair_name(first.facts, second.facts) == "lsh pixels -> dhn tiny"


def test_one_method_with_several_settings_is_compared_with_itself(tmp_path):
    put(tmp_path / "a", "dhn", 0.5)
    put(tmp_path / "a", "dhn", 0.6, settings="weight=0.2", hyperparameters={"weight": 0.2})
    [(first, second)] = paired.pair_methods(read_board(tmp_path / "a"), ["dhn"])
    assert paired.pair_name(first.facts, second.facts) == "dhn -> dhn weight=0.2"


def two_photo_folders(folder):
    """A board of images of two folders, which the settings tell apart by a digest."""
    for level, digest in ((0.5, "88512e4e0de54304"), (0.3, "123624700c2df849")):
        own = {"dataset": "folder", "settings": f"folder.size=96 folder.root={digest}", "data": digest}
        for number, method in enumerate(("dhn", "itq", "lsh")):
            role = "baseline" if method == "lsh" else ""
            for seed in (0, 1):
                put(folder, method, level - 0.05 * number, seed, 10 * number + seed, role=role, **own)


def test_images_of_several_folders_are_blocks_of_their_own_in_every_comparison(tmp_path):
    two_photo_folders(tmp_path / "a")
    board = read_board(tmp_path / "a")
    pairs = paired.pair_methods(board, ["dhn", "itq"])
    assert [folder_of(a.facts) == folder_of(b.facts) for a, b in pairs] == [True, True]
    assert len(paired.render_paired(paired.compare_pairs(pairs, "map@all"), "map@all")) == 2
    assert [len(block.others) for block in blocks_against(board, "dhn", "map@all")] == [2, 2]
    ranking = rank([board.frame])
    assert (ranking.methods, len(ranking.blocks)) == (["dhn", "itq", "lsh"], 2)
    first, second = views(board.frame)
    for view, digest, best in ((first, "123624700c2df849", 0.3), (second, "88512e4e0de54304", 0.5)):
        assert len(view.rows) == 3
        assert view.table().details[0] == f"all rows: backbone=tiny folder.size=96 folder.root={digest}"
        assert (
            view.table().details[1].startswith(f"folder.root={digest}: a digest of the images stands for their folder")
        )
        assert {row["vs lsh"] for row in view.rows} == {row["map@all"] - view.rows[-1]["map@all"] for row in view.rows}
        assert view.rows[0]["map@all"] == pytest.approx(best, abs=0.02)
    assert sorted(one.title for one in build_results(board, None, {}).boards) == [
        "folder folder.root=123624700c2df849",
        "folder folder.root=88512e4e0de54304",
    ]


def test_the_correction_counts_all_pairs_that_were_tested(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.5, lsh=0.5)
    alone = paired.compare_pairs(paired.pair_methods(read_board(tmp_path / "a"), ["dhn", "itq"]), "map@all")[0]
    family = paired.compare_pairs(paired.pair_methods(read_board(tmp_path / "a"), ["dhn", "itq", "lsh"]), "map@all")
    [again] = [p for p in family if {p.first.facts["method"], p.second.facts["method"]} == {"dhn", "itq"}]
    assert again.interval == alone.interval
    assert again.of_models > alone.of_models


def test_the_same_folders_give_the_same_words(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    a_board(tmp_path / "b", dhn=0.51, itq=0.42)
    first, second = (compared(tmp_path, "a", "b") for _ in range(2))
    assert first.stdout == second.stdout
    assert "p training" in first.stdout


def test_timings_and_machines_are_not_compared(tmp_path):
    put(tmp_path / "a", draw=1)
    put(tmp_path / "b", draw=1, timings={"fit_seconds": 9e9})
    assert "fit" not in compared(tmp_path, "a", "b").stdout


# --- what cannot be tested ---


def test_csv_files_are_compared_by_their_means_and_say_what_they_cannot_know(tmp_path):
    for folder, level in (("a", 0.5), ("b", 0.6)):
        a_board(tmp_path / folder, dhn=level)
    result = compared(tmp_path, "a/leaderboard.csv", "b/leaderboard.csv")
    assert result.returncode == 0, result.stderr
    assert "rose" in result.stdout
    assert "p models" not in result.stdout
    assert "not tested: no scores of single queries in a CSV" in result.stdout
    mixed = compared(tmp_path, "a", "b/leaderboard.csv")
    assert "no scores of single queries in a CSV" in mixed.stdout
    between = compared(tmp_path, "a/leaderboard.csv", "--between", "dhn,itq")
    assert between.returncode == 2
    assert "a/leaderboard.csv: no method 'itq'" in between.stderr


def test_a_folder_without_arrays_is_compared_by_its_means(tmp_path):
    for folder, level in (("a", 0.5), ("b", 0.6)):
        put(tmp_path / folder, level=level)
    for file in (tmp_path / "b" / "cells").glob("*.npz"):
        file.unlink()
    result = compared(tmp_path, "a", "b")
    assert result.returncode == 0, result.stderr
    assert "no scores of single queries in b/cells/*.npz for map@all" in result.stdout


@pytest.mark.parametrize("seeds", [1, 3])
def test_methods_without_arrays_are_sent_to_the_test_that_needs_none_if_they_have_seeds_for_it(seeds, tmp_path):
    for seed in range(seeds):
        put(tmp_path / "a", "dhn", 0.5, seed=seed)
        put(tmp_path / "a", "itq", 0.4, seed=seed)
    for file in (tmp_path / "a" / "cells").glob("*.npz"):
        file.unlink()
    result = compared(tmp_path, "a", "--between", "dhn,itq")
    assert "not tested: no scores of single queries in a/cells/*.npz" in result.stdout
    line = "hashzoo compare a --against dhn tests the means of seeds and needs none of them"
    assert (line in result.stdout) == (seeds > 1)
    assert "cannot be told" in compared(tmp_path, "a", "--against", "dhn").stdout or seeds == 1


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "a", "--between", "dhn,itq", "--metric"),
        ("compare", "a", "--against", "dhn", "--metric"),
        ("compare", "a", "a", "--fail-on"),
        ("show", "a", "--sort"),
        ("show", "a", "--columns"),
        ("show", "a", "--rank", "--metric"),
        ("report", "a", "--metric"),
    ],
)
def test_a_metric_that_was_not_measured_is_told_from_one_that_does_not_exist(command, tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    limit = ":-1%" if command[-1] == "--fail-on" else ""
    for name, says in (
        (
            "map@all:best",
            "'map@all:best' was not measured; add it to --metrics of hashzoo bench, which measures the cells",
        ),
        ("mpa@all", "'mpa@all'; did you mean 'map@all'?"),
    ):
        with contextlib.chdir(tmp_path):
            result = CliRunner().invoke(main, [*command, name + limit])
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


def test_a_damaged_array_is_trouble(tmp_path):
    for folder in ("a", "b"):
        put(tmp_path / folder)
    [file] = (tmp_path / "b" / "cells").glob("*.npz")
    file.write_bytes(b"else")
    with pytest.raises(EnvironmentFailure, match="damaged"):
        read_board(tmp_path / "b")


def test_rows_without_a_common_seed_or_that_failed_are_not_tested(tmp_path):
    put(tmp_path / "a", seed=0)
    put(tmp_path / "b", seed=1)
    assert judged(tmp_path / "a", tmp_path / "b")[0].reason == "no seed in common"
    store.write(tmp_path / "c", failed(), {})
    assert judged(tmp_path / "a", tmp_path / "c") == []


# --- unequal protocols ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"facts": {**FACTS, "split": "0ther"}}, "split 5p11t and 0ther"),
        ({"data": "0ther"}, "fingerprint of the data da7a and 0ther"),
        ({"protocol": 2}, "protocol version 1 and 2"),
        ({"facts": {**FACTS, "queries": 99}}, "number of queries 120 and 99"),
        ({"facts": {**FACTS, "queries_without_relevant": 3}}, "without a relevant item 0 and 3"),
        ({"facts": {**FACTS, "source": "files"}}, ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_protocols_that_differ_are_refused_by_name_and_compared_by_force(tmp_path, change, said):
    put(tmp_path / "a", level=0.5)
    put(tmp_path / "b", level=0.6, **change)
    result = compared(tmp_path, "a", "b")
    if not said:  # what one side does not say is no difference
        assert result.returncode == 0
        return
    assert result.returncode == 2
    assert said in result.stderr
    assert "dhn at 32 bits on digits.small (digits): not the same protocol" in result.stderr
    assert "--force" in result.stderr
    assert result.stderr.count("\n") == 1
    forced = compared(tmp_path, "a", "b", "--force")
    assert forced.returncode == 0
    assert said in forced.stderr
    assert "rose" in forced.stdout
    assert "not tested: not the same protocol" in forced.stdout


def test_a_csv_tells_its_protocol_too(tmp_path):
    put(tmp_path / "a")
    put(tmp_path / "b", facts={**FACTS, "split": "0ther"})
    result = compared(tmp_path, "a/leaderboard.csv", "b/leaderboard.csv")
    assert result.returncode == 2
    assert "split 5p11t and 0ther" in result.stderr


def test_boards_without_a_row_or_a_metric_in_common_are_refused(tmp_path):
    put(tmp_path / "a")
    put(tmp_path / "b", dataset="other")
    result = compared(tmp_path, "a", "b")
    assert result.returncode == 2
    assert "no row in common: dataset digits.small and other;" in result.stderr
    put(tmp_path / "d", settings="weight=0.2")
    assert "no row in common: settings none and weight=0.2;" in compared(tmp_path, "a", "d").stderr
    cell = a_cell(facts=FACTS, metrics={"p@7": 0.5})
    store.write(tmp_path / "c", cell, {"p@7": scores(0.5, 0)})
    result = compared(tmp_path, "a", "c")
    assert result.returncode == 2
    assert "share no metric" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "--between first,second"),
        (["a", "a", "--between", "dhn,itq"], "name two boards, or one board and the methods"),
        (["a", "--between", "dhn"], "two methods or more"),
        (["a", "--between", "dhn,iqt"], "did you mean 'itq'"),
        (["a", "--between", "dhn,itq", "--fail-on", "map@all:-1%"], "--fail-on requires two boards"),
        (["a", "--between", "dhn,itq", "--metric", "map@al"], "did you mean 'map@all'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_asked_wrongly_is_told_in_one_line(tmp_path, arguments, said):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    result = compared(tmp_path, *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


# --- rules ---


@pytest.mark.parametrize("suffix", ["", "/leaderboard.csv"])
@pytest.mark.parametrize(("rule", "code"), [("map@all:-0.005", 1), ("map@all:-1%", 1), ("map@all:-0.2", 0)])
def test_a_fall_beyond_the_rule_is_exit_code_1_on_folders_and_files(tmp_path, suffix, rule, code):
    a_board(tmp_path / "a", dhn=0.6, itq=0.4)
    a_board(tmp_path / "b", dhn=0.5, itq=0.4)
    result = compared(tmp_path, f"a{suffix}", f"b{suffix}", "--fail-on", rule)
    assert result.returncode == code, result.stderr
    assert ("dhn at 32 bits" in result.stderr) == code
    assert "itq" not in result.stderr


def test_a_newer_cell_takes_the_place_of_an_older_one(tmp_path):
    put(tmp_path / "a", level=0.5, draw=1)
    put(tmp_path / "a", level=0.7, draw=2, code="new", created="2026-02-01T00:00:00.000000+00:00")
    put(tmp_path / "b", level=0.7, draw=2)
    assert judged(tmp_path / "a", tmp_path / "b")[0].reason == paired.EQUAL
    assert len(list((tmp_path / "a" / "cells").glob("*.json"))) == 2
    assert json.loads(next((tmp_path / "b" / "cells").glob("*.json")).read_text())["cell"]["status"] == "ok"


def test_a_cell_that_was_edited_by_hand_is_trouble(tmp_path):
    put(tmp_path / "a")
    [file] = (tmp_path / "a" / "cells").glob("*.json")
    file.write_text(file.read_text().replace('"ok"', '"OK"'))
    result = compared(tmp_path, "a", "a")
    assert result.returncode == 3
    assert "checksum" in result.stderr


def test_rows_of_one_seed_keep_their_names(tmp_path):
    cell = a_cell(settings="weight=0.2", facts=FACTS)
    row = BoardRow(leaderboard.records(leaderboard.board_frame([cell]))[0])
    assert paired.pair_name(row.facts, row.facts) == "dhn weight=0.2"
    other = replace(row, facts={**row.facts, "settings": "weight=0.3"})
    assert paired.pair_name(row.facts, other.facts) == "dhn weight=0.2 -> dhn weight=0.3"
