"""The command line on real data, from the first run to the errors a stranger meets."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hashzoo.cli.main import main
from tests.cli.command import hashzoo

QUICK = ("bench", "digits", "--quick", "--methods", "lsh,itq,dhn")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    first = hashzoo(*QUICK, "--results", folder / "results", cwd=folder)
    assert first.returncode == 0, first.stderr
    return folder / "results"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_results_folder_keeps_who_is_in_which_part(board):
    from hashzoo.data.split_file import read as read_split

    (file,) = (board / "splits").glob("*.npz")
    kept = read_split(file)
    assert {row["split"] for row in rows(board / "leaderboard.csv")} == {kept.digest}
    assert {name: len(ids) for name, ids in kept.ids.items()} == {"train": 200, "database": 400, "query": 100}
    (row, *_) = rows(board / "leaderboard.csv")
    sizes = {name: row[name] for name in ("train", "database_size", "queries", "train_in_database")}
    assert sizes == {"train": "200", "database_size": "400", "queries": "100", "train_in_database": "0"}


def test_the_board_has_the_stated_columns_in_the_stated_order(board):
    header = (board / "leaderboard.csv").read_text().splitlines()[0].split(",")
    start = ["schema", "benchmark", "dataset", "backbone", "method", "bits", "stored_bits", "budget", "seeds", "status"]
    end = "fit_seconds encode_per_second search_per_second bytes_per_item plugin plugin_version contaminated reason"
    assert header[:10] == start
    assert header[10:12] == ["empty@h2", "empty@h2_std"]
    at = header.index("fit_seconds")
    assert header[at : at + 8] == end.split()
    cells = (board / "cells.csv").read_text().splitlines()[0].split(",")
    assert cells[:10] == [*start[:8], "seed", "status"]
    assert header[header.index("stale") :] == cells[cells.index("stale") :] == ["stale", "warnings"]
    assert {row["stale"] for name in ("leaderboard", "cells") for row in rows(board / f"{name}.csv")} == {"False"}


def test_baselines_and_controls_stand_on_every_board(board):
    assert {row["method"] for row in rows(board / "leaderboard.csv")} == {
        "lsh",
        "itq",
        "dhn",
        "chance",
        "classifier",
        "unquantized",
    }


def test_every_method_beats_chance_and_a_trained_hash_beats_itq(board):
    score = {row["method"]: float(row["map@all"]) for row in rows(board / "leaderboard.csv")}
    assert score["dhn"] > score["itq"] > score["lsh"] > score["chance"]


def test_chance_equals_its_closed_form(board):
    from hashzoo_plugins.datasets import digits

    from hashzoo.evaluation.metrics import chance_ap

    data = digits.small()
    relevant = data.query.labels @ data.database.labels.sum(0)
    expected = np.mean([chance_ap(len(data.database), int(n)) for n in relevant])
    score = {row["method"]: float(row["map@all"]) for row in rows(board / "leaderboard.csv")}
    assert score["chance"] == pytest.approx(expected, abs=1e-12)


def test_a_second_run_does_nothing_and_leaves_the_same_bytes(board):
    before = {path: path.read_bytes() for path in [board / "cells.csv", board / "leaderboard.csv"]}
    times = {path: path.stat().st_mtime_ns for path in (board / "cells").iterdir()}
    again = hashzoo(*QUICK, "--results", board, cwd=board)
    assert again.returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in (board / "cells").iterdir()} == times


def test_scores_do_not_depend_on_how_many_cells_run_at_once(board, tmp_path):
    other = hashzoo(*QUICK, "--results", tmp_path, "--jobs", 1, cwd=tmp_path)
    assert other.returncode == 0, other.stderr

    def scores(folder: Path) -> list[tuple[str, ...]]:
        return [(r["method"], r["map@all"], r["map@100"], r["p@h2"]) for r in rows(folder / "cells.csv")]

    assert scores(tmp_path) == scores(board)


def test_a_damaged_cell_is_set_aside_named_and_measured_again(board, tmp_path):
    import shutil

    copy = tmp_path / "results"
    shutil.copytree(board, copy)
    victim = next((copy / "cells").glob("digits.lsh.*.json"))
    victim.write_bytes(victim.read_bytes()[:-40])
    again = hashzoo(*QUICK, "--results", copy, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert victim.name in again.stdout.replace("\n", "")
    assert victim.with_name(victim.name + ".bad").exists()
    assert [r["map@all"] for r in rows(copy / "cells.csv")] == [r["map@all"] for r in rows(board / "cells.csv")]


def test_show_marks_the_best_and_prints_the_gain_over_the_baselines(board):
    shown = hashzoo("show", board, cwd=board).stdout
    assert re.search(r"dhn .*\*", shown)
    assert "vs itq" in shown
    assert "vs lsh" in shown


def test_show_groups_rows_by_the_bits_that_they_store(board):
    shown = hashzoo("show", board, "--by", "stored", cwd=board).stdout
    order = [line.split()[0] for line in shown.splitlines() if re.search(r" 16 ", line)]
    assert order[0] == "classifier"  # 4 bits
    assert order[-1] == "unquantized"
    assert hashzoo("show", board, "--by", "size", cwd=board).returncode == 2


def test_metrics_of_codes_of_a_plugin_stand_on_the_board_and_are_starred_only_if_it_says_so(tmp_path):
    (tmp_path / "rare.py").write_text(
        textwrap.dedent("""
        from hashzoo import CodeMetric, hookimpl

        def rare(sample):
            \"\"\"Bits that are seldom set.\"\"\"
            return (sample.database.mean(0) < 0.1).mean()

        def often(sample, cutoff):
            return 1 + cutoff

        @hookimpl
        def hashzoo_metrics():
            return {"rare": CodeMetric(rare), "often": CodeMetric(often, higher_is_better=True, cutoff=True)}
        """)
    )
    listed = hashzoo("list", "metrics", "--plugin", "rare.py", cwd=tmp_path).stdout
    assert re.search(r"rare +rare\.py +Bits that are seldom set", listed)
    asked = ("--methods", "lsh", "--no-baselines", "--metrics", "rare,often@3", "--results", "r")
    result = hashzoo("bench", "digits", "--quick", "--plugin", "rare.py", *asked, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "often@3 4.0000" not in result.stdout  # the first asked for is the one that is watched
    assert "4.0000*" in result.stdout
    assert "4.0000*" in hashzoo("show", "r", "--plugin", "rare.py", cwd=tmp_path).stdout
    plain = hashzoo("show", "r", cwd=tmp_path).stdout
    assert "4.0000" in plain
    assert "*" not in plain
    wrong = hashzoo("bench", "digits", "--metrics", "transfer/tail", "--dry-run", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "has no parts; use 'transfer'" in wrong.stderr


def test_compare_passes_on_itself_and_fails_on_a_fall(board, tmp_path):
    board_csv = board / "leaderboard.csv"
    assert hashzoo("compare", board_csv, board_csv, "--fail-on", "map@all:-0.5%", cwd=tmp_path).returncode == 0
    lines = board_csv.read_text().splitlines()
    at = lines[0].split(",").index("map@all")
    fallen = [line.split(",") for line in lines]
    for line in fallen[1:]:
        line[at] = "0.01"
    worse = tmp_path / "worse.csv"
    worse.write_text("\n".join(",".join(line) for line in fallen) + "\n")
    result = hashzoo("compare", board_csv, worse, "--fail-on", "map@all:-0.5%", cwd=tmp_path)
    assert result.returncode == 1
    assert "dhn" in result.stderr


def test_evaluate_scores_codes_from_elsewhere(tmp_path):
    generator = np.random.default_rng(0)
    codes, labels = generator.random((50, 32)) < 0.5, generator.integers(0, 3, 50)
    file = tmp_path / "codes.npz"
    np.savez(file, query_codes=codes[:10], database_codes=codes, query_labels=labels[:10], database_labels=labels)
    result = hashzoo("evaluate", file, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "codes.metrics.json").read_text())
    assert f"map@all\t{written['means']['map@all']!r}" in result.stdout
    assert len(written["per_query"]["map@all"]) == 10


def test_evaluate_never_runs_what_a_file_holds(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    np.savez(
        tmp_path / "evil.npz",
        **{n: np.array([Evil()], object) for n in ("query_codes", "database_codes", "query_labels", "database_labels")},
    )
    result = hashzoo("evaluate", tmp_path / "evil.npz", cwd=tmp_path)
    assert result.returncode == 3
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "digitz"], "did you mean 'digits'"),
        (["bench", "digits", "--methods", "iqt"], "did you mean 'itq'"),
        (["bench", "digits", "--methods", "z*"], "no method matches"),
        (["bench", "digits", "--methods", "tanh+hashnte"], "did you mean 'hashnet'"),
        (["bench", "digits", "--dataset", "digits.smal"], "did you mean 'digits.small'"),
        (["bench", "digits", "--backbone", "tyny"], "did you mean 'tiny'"),
        (["bench", "digits", "--metrics", "mpa@all"], "did you mean 'map@all'"),
        (["bench", "digits", "--bits", "0"], "bits must be 1 or more"),
        (["bench", "digits", "--bits", "8.5"], "whole numbers"),
        (["bench", "digits", "--seeds", "-1"], "seeds must be from 0 to 4294967295, not -1"),
        (["bench", "digits", "--methods", "itq", "--bits", "65"], "at least as many features as bits"),
        (["bench", "digits", "--methods", "pcah", "--bits", "4096"], "at least as many features as bits"),
        (["bench", "digits", "--set", "dhn.wieght=1"], "did you mean 'weight'"),
        (["bench", "digits", "--set", "dhn.weight=heavy"], "dhn.weight"),
        (["bench", "digits", "--set", "hashnte.alpha=1"], "did you mean 'hashnet'"),
        (["bench", "digits", "--set", "nonsense"], "NAME.OPTION=VALUE"),
        (["bench", "digits", "--dataset", "digits.small,digits.small"], "several different ones"),
        (["bench", "paper/dhn", "--quick"], "no quick form"),
        (["bench", "nowhere.toml"], "there is no file"),
        (["bench", "digits", "--methods", "dcoh"], "dcoh needs several labels per image"),
        (["bench", "scenes", "--methods", "tsc"], "tsc takes one label per image"),
        (["bench", "digits", "--methods", "sfdh", "--backbone", "pixels"], "saliency needs a feature map"),
        (["bench", "digits", "--methods", "tanh+sfdh"], "needs a head with class scores"),
        (["evaluate", "nowhere.npz"], "there is no file"),
        (["check", "iqt"], "did you mean 'itq'"),
        (["check", "my-loss"], "(if it is in a file, add --plugin FILE.py)"),
        (["list", "methods", "--supervision", "some"], "--supervision must be one of none, pairs, classes, not 'some'"),
        (["list", "methods", "--kind", "deeep"], "--kind must be one of shallow, deep, not 'deeep'"),
        (["list", "methods", "--labels", "both"], "--labels must be one of single, multi, not 'both'"),
        (["list", "methods", "--year", "17"], "a year such as 2017"),
        (["list", "methods", "--year", "2018-2015"], "a range such as 2015-2018"),
        (["list", "heads", "--kind", "deep"], "--kind applies to methods, not heads"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "hashzoo-results").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'x'\ndataset = 'digits.small'\nbit = [8]", "did you mean 'bits'"),
        ("name = 'x'\ndataset = 'digits.small'\nbits = 'many'", "bits"),
        ("name = 'x'\ndataset = 'digits.small'\n[train]\nepoch = 3", "did you mean 'epochs'"),
        ("name = 'x'\ndataset = 'digits.small'\n[train]\nepochs = 0", "train.epochs"),
        ("name = 'x'", "dataset"),
        ("name = ", "is not a TOML file"),
        ("name = 'x'\ndataset = 'digits.small'", "has no backbone"),
        ("name = 'x'\ndataset = []", "one dataset or several"),
        ("name = 'x'\ndataset = 'digits.small'\n[on.\"digits.small\"]\nname = 'y'", "the same for all datasets"),
        ("name = 'x'\ndataset = ['digits.small']\n[on.\"digits.lt50\"]\nbits = [8]", "no dataset of this benchmark"),
        ("name = 'x'\ndataset = 'digits.small'\n[on.\"digits.small\"]\nbit = [8]", "did you mean 'bits'"),
    ],
)
def test_a_wrong_benchmark_file_is_one_line_that_names_the_key(text, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "mine.toml"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_a_results_folder_that_cannot_be_made_is_exit_code_3(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = hashzoo(*QUICK, "--results", tmp_path / "file" / "results", cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_imports_neither_torch_nor_pandas():
    code = textwrap.dedent("""
        import sys
        sys.argv = ["hashzoo", "--help"]
        from hashzoo.cli.main import main
        try:
            main()
        finally:
            print(sorted({"torch", "pandas", "numpy"} & set(sys.modules)))
        """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


def listed(capsys, *arguments: str) -> list[dict[str, str]]:
    main(["list", "methods", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_filters_of_the_listing_keep_what_the_cards_say_and_work_together(capsys):
    every = listed(capsys)
    for option, value in [("supervision", "pairs"), ("kind", "shallow"), ("labels", "multi")]:
        kept = [row for row in every if value in row[option].split(", ")]
        assert 0 < len(kept) < len(every)
        assert listed(capsys, f"--{option}", value) == kept
    both = listed(capsys, "d*", "--kind", "deep", "--supervision", "pairs", "--year", "2015-2016")
    assert {"dhn", "dnnh"} <= {row["name"] for row in both}
    assert all(row["name"].startswith("d") and row["year"] in (2015, 2016) for row in both)
    assert "lsh" in {row["name"] for row in listed(capsys, "--year", "2002")}
    assert listed(capsys, "--year", "1902") == []


def test_a_card_in_the_listing_names_the_paper(capsys):
    (row,) = listed(capsys, "cca-itq")
    card = {key: row[key] for key in ("kind", "supervision", "labels", "year", "paper")}
    paper = "Gong & Lazebnik, CVPR 2011"
    assert card == {
        "kind": "shallow",
        "supervision": "classes",
        "labels": "single, multi",
        "year": 2011,
        "paper": paper,
    }


@pytest.mark.parametrize("width", [80, 100, 140, 300])
def test_the_listing_gives_each_method_one_line_whatever_the_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    names = [row["name"] for row in listed(capsys)]
    main(["list", "methods"])
    count, header, *lines = capsys.readouterr().out.splitlines()
    assert count == f"{len(names)} methods"
    assert [line.split()[0] for line in lines[: len(names)]] == names
    assert all(len(line) <= width for line in lines)
    gone = ["plugin", "paper", "year", "labels", "supervision"]  # the first goes first
    while gone and gone[-1] in header.split():
        gone.pop()
    said = (
        f"column{'s' * (len(gone) > 1)} left out: {', '.join(reversed(gone))}; a wider terminal, | less -S or --json "
    )
    assert " ".join(" ".join(lines[len(names) :]).split()) == (f"{said}shows all" if gone else "")
    rest = ["name", "kind", "supervision", "labels", "year", "paper", "plugin", "what"]
    assert header.split() == [name for name in rest if name not in gone]
    assert {80: 5, 100: 2, 140: 1, 300: 0}[width] == len(gone)


def test_a_listing_into_a_file_cuts_nothing(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    every = listed(capsys)
    main(["list", "methods"])
    text = capsys.readouterr().out
    assert "..." not in text
    assert all(row["paper"] in text for row in every)
    assert len(text.splitlines()) == len(every) + 2


@pytest.mark.parametrize("command", [("list", "datasets"), ("list", "heads"), ("data", "show", "digits.small")])
def test_no_markup_of_docstrings_is_printed(command, capsys):
    main([*command], standalone_mode=False)
    assert not re.search("`|:class:", capsys.readouterr().out)


def test_an_empty_listing_says_so(capsys):
    main(["list", "methods", "no-such-name"])
    assert capsys.readouterr().out == "0 methods\n"


def test_a_dry_run_lists_the_cells_and_trains_nothing(tmp_path):
    result = hashzoo("bench", "digits", "--methods", "itq", "--bits", "16,32", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("itq ")]
    assert row == ["itq", "pixels", "16,32", "-", "2", "0", "0", "unknown"]
    assert not (tmp_path / "hashzoo-results").exists()


def test_a_setting_of_a_method_that_is_not_measured_is_named(tmp_path):
    given = ["--set", "tanh+dhn.weight=0.2", "--set", "train.lr=0.01", "--set", "dhn.weight=0.2"]
    result = hashzoo("bench", "digits", "--methods", "tanh+dhn", *given, "--dry-run", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.strip() == (
        "--set changes nothing: no measured method, dataset or backbone 'dhn'; did you mean 'tanh+dhn'?"
    )


def test_a_method_that_came_by_a_pattern_and_does_not_fit_is_skipped_with_the_reason(tmp_path):
    result = hashzoo(
        "bench",
        "digits",
        "--quick",
        "--methods",
        "p*,lsh",
        "--bits",
        "65",
        "--no-baselines",
        "--results",
        "r",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found = {row["method"]: row for row in rows(tmp_path / "r" / "leaderboard.csv")}
    assert found["pcah"]["status"] == "skipped"
    assert "at least as many features as bits" in found["pcah"]["reason"]
    assert found["lsh"]["status"] == "ok"


def test_several_data_sets_make_one_board_with_what_each_can_be_asked(tmp_path):
    result = hashzoo(
        *("bench", "source-methods", "--dataset", "digits.lt50,scenes.union", "--seeds", "0", "--epochs", "1"),
        *("--methods", "dcoh,multigrain", "--no-baselines", "--set", "scenes.union.queries=50"),
        *("--set", "tiny.depth=1", "--set", "tiny.width=4", "--set", "dcoh.hidden=16", "--results", "r"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "multigrain 32 bits seed 0 on scenes.union: map@all" in result.stdout
    found = {(row["dataset"], row["method"]): row for row in rows(tmp_path / "r" / "leaderboard.csv")}
    assert found["digits.lt50", "dcoh"]["status"] == "skipped"
    assert "several labels" in found["digits.lt50", "dcoh"]["reason"]
    assert found["digits.lt50", "multigrain"]["map@all/tail"]
    assert found["digits.lt50", "multigrain"]["ndcg@100/first"] == ""
    union = found["scenes.union", "dcoh"]
    assert len({union[f"ndcg@100{part}"] for part in ("", "/bitwise", "/first", "/second")}) == 4
    assert union["map@all/tail"] == ""
    plain = found["scenes.union", "multigrain"]
    assert plain["ndcg@100"] == plain["ndcg@100/bitwise"]
    shown = hashzoo("show", "r", cwd=tmp_path).stdout
    first, second = shown.split("source-methods: ")[1:]
    assert first.startswith("digits.lt50")
    assert "map@all/head" in first
    assert second.startswith("scenes.union")
    assert "ndcg@100" in second
    assert "map@all/head" not in second  # a column that says nothing of this dataset


def test_several_labels_a_image_go_end_to_end_with_graded_metrics(tmp_path):
    result = hashzoo(
        "bench", "scenes", "--quick", "--methods", "dhn,lsh", "--epochs", 12, "--results", "r", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    found = {row["method"]: row for row in rows(tmp_path / "r" / "leaderboard.csv")}
    assert float(found["classifier"]["stored_bits"]) == 10
    assert {row["status"] for row in found.values()} == {"ok"}
    assert all(0 < float(row[name]) < 1 for row in found.values() for name in ("map@all", "ndcg@100", "wap@all"))
    assert float(found["dhn"]["acg@100"]) > 0


def test_every_command_of_the_readme_runs(tmp_path):
    """Each indented ``hashzoo`` line, and those of its table, on what the lines before it left behind."""
    text = (ROOT / "README.md").read_text()
    (tmp_path / "random_pairs.py").write_text(re.search(r"```python\n(.*?)```", text, re.S).group(1))
    generator = np.random.default_rng(0)
    codes, labels = generator.random((20, 8)) < 0.5, generator.integers(0, 3, 20)
    np.savez(
        tmp_path / "codes.npz", query_codes=codes, database_codes=codes, query_labels=labels, database_labels=labels
    )
    np.save(tmp_path / "emb.npy", generator.standard_normal((300, 16)).astype(np.float32))
    (tmp_path / "photos").mkdir()
    for path in (*(tmp_path / "photos" / f"{number}.jpg" for number in range(8)), tmp_path / "query.jpg"):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    shown = re.findall(r"^    (?:pip .*&& )?hashzoo (.*)$", text, re.M)
    table = re.findall(r"^\| .* \| `hashzoo ([a-z ]+ [^`]*)` \|", text, re.M)
    table = [command for command in table if not re.search(r"[A-Z]{4}|slurm", command)]
    assert (len(shown), len(table)) == (6, 6)
    for command in shown + table:
        words = command.split()
        if words == ["bench"]:
            words += ["--methods", "itq,dhn"]
        if words[0] == "bench":  # the same cells in all of them, as few as their words allow
            words += ["--quick", "--epochs", "1", "--bits", "16", "--seeds", "0"]
        if words[0] == "quantize":
            words += ["--bits", "8"]
        result = hashzoo(*words, cwd=tmp_path)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
    assert any(row["method"] == "random-pairs" for row in rows(tmp_path / "hashzoo-results/digits/leaderboard.csv"))


def test_a_plugin_file_appears_on_the_board_and_its_edit_is_measured_anew(tmp_path):
    plugin = tmp_path / "mine.py"
    text = textwrap.dedent('''
        from hashzoo import hookimpl, deep

        @hookimpl
        def hashzoo_methods():
            return {"mine": deep("norm-tanh", "dhn", doc="mine")}

        @hookimpl
        def hashzoo_losses():
            return {"mine": Loss}

        from torch import nn

        class Loss(nn.Module):
            """Pulls codes of one class together."""

            def __init__(self, setting, *, pull: float = 1.0):
                super().__init__()
                self.pull = pull

            def forward(self, output, batch):
                gap = (output.code @ output.code.T / output.code.shape[1] - (2 * batch.similar - 1)).square()
                return {"pull": self.pull * gap.mean()}
        ''')
    plugin.write_text(text)
    run = (
        "bench",
        "digits",
        "--quick",
        "--no-baselines",
        "--plugin",
        "mine.py",
        "--methods",
        "mine,tanh+mine",
        "--results",
        "r",
    )
    assert hashzoo(*run, cwd=tmp_path).returncode == 0
    found = rows(tmp_path / "r" / "leaderboard.csv")
    assert [row["method"] for row in found] == ["mine", "tanh+mine"]
    assert found[0]["plugin"] == "mine.py"
    plugin.write_text(text.replace("pull: float = 1.0", "pull: float = 0.5"))
    assert hashzoo(*run, cwd=tmp_path).returncode == 0
    assert len(rows(tmp_path / "r" / "leaderboard.csv")) == 2
