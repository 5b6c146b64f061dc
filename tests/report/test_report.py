"""The page of `hashzoo report` and the figures of `hashzoo plot`: what is on them, and what never is."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hashzoo.bench.examples import samples, spread
from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.scoring import encode
from hashzoo.registry import zoo
from hashzoo.report import charts, texts
from hashzoo.report.gallery import ImageSource, build_gallery, build_query, label_names
from hashzoo.report.page import THUMBNAIL_BYTES, LeaderboardRow, PageOptions, render_page, summarize_gaps, write
from hashzoo.report.thumbnails import Album
from hashzoo.results import store
from hashzoo.results.against import ALIKE, FEW_SEEDS, Gap
from hashzoo.results.by_dataset import highlighted_names, read, valid_arrays
from hashzoo.results.gaps import gaps_to_best
from hashzoo.retrieval.overlay import blend
from tests.report.conftest import HOSTILE

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "input", "br"}


class Reader(HTMLParser):
    """The elements of a page with their attributes; a tag that is closed in the wrong place is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_is_well_formed_and_names_no_other_place(html):
    found = Reader(html)
    named = [v for _, attributes in found.found for k, v in attributes.items() if k in ("src", "href", "action")]
    assert named
    assert all(value.startswith(("#", "data:image/")) for value in named)
    assert [style for _, attributes in found.found for style in attributes if style.startswith(("on", "style"))] == []
    assert "http" not in re.sub(r"http-equiv|base64,[\w+/=]+", "", html)


def test_the_policy_lets_a_browser_run_only_what_hashzoo_wrote(html):
    import base64
    import hashlib

    policy = Reader(html).all("meta")[1]["content"]
    for tag in ("script", "style"):
        [inside] = re.findall(rf"<{tag}>([\s\S]*?)</{tag}>", html)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_every_id_that_is_used_is_there_once(html):
    found = Reader(html)
    ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["href"][1:] for _, attributes in found.found if (attributes.get("href") or "").startswith("#")}
    assert used <= set(ids)


def test_no_name_of_a_stranger_becomes_html(hostile):
    text = render_page(hostile, PageOptions(gallery=2))
    found = Reader(text)
    assert len(found.all("script")) == 1
    assert [attributes for attributes in found.all("img") if attributes.get("src") == "x"] == []
    assert "onerror" not in {name for _, attributes in found.found for name in attributes}
    assert "&lt;script&gt;window.broken=1" in text
    assert "{{7*7}}" in text
    assert all(text.count(f"{letter}{HOSTILE}") == 0 for letter in "mbdfsx")


def test_the_rows_of_the_page_are_those_of_the_board(results, html, tmp_path):
    from hashzoo.results.csv_file import write_csv
    from hashzoo.results.leaderboard import board_frame

    write_csv(board_frame(store.read_all(results)[0]), tmp_path / "board.csv")
    with (tmp_path / "board.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown_rows = re.findall(
        r'<tr data-b="(\d+)"[\s\S]*?<span class="n">([^<]*)</span>[\s\S]*?[> ](\d\.\d{4})[< ]', html
    )
    wanted = sorted((row["bits"], row["method"], f"{float(row['map@all']):.4f}") for row in rows)
    assert sorted(shown_rows) == wanted


def test_the_best_is_starred_and_never_a_control(results, html):
    [board] = read(results).boards
    assert (
        board.best(16).name
        == max((e for e in board.entries_at(16) if e.competes), key=lambda e: e.score("map@all")).name
    )
    starred = re.findall(r'<tr data-b="(\d+)"[^>]*class="best">[\s\S]*?<span class="n">([^<]*)</span>', html)
    assert starred == [(str(bits), board.best(bits).name) for bits in (8, 16)]
    assert html.count("<em>control</em>") == 2


def test_standings_are_those_of_compare(results):
    from hashzoo.results import paired
    from hashzoo.results.board import read_board

    found = read(results)
    [board] = found.boards
    stands = gaps_to_best(board, 8)
    board_of = read_board(results)
    pairs = paired.compare_pairs(
        [p for p in paired.pair_methods(board_of, ["itq", "lsh"]) if p[0].facts["bits"] == 8], "map@all"
    )
    [stand] = stands.values()
    assert board.best(8).name == "itq"
    assert stand.p == pairs[0].of_training
    assert stand.interval == pairs[0].interval
    assert (stand.verdict == ALIKE) == (stand.interval[0] <= 0 <= stand.interval[1])


def test_without_scores_of_queries_the_seeds_are_tested_and_the_page_says_so(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy, ignore=shutil.ignore_patterns("*.npz", "*.safetensors"))
    [board] = read(copy).boards
    [stand] = gaps_to_best(board, 8).values()
    assert stand.test == "seeds"
    text = render_page(copy, PageOptions())
    assert "account for the variation over seeds, for the same queries." in text
    assert "variation over seeds but not over queries" in text
    assert "The arrays of these cells" in text
    assert "these cells have no nearest images of queries" in text
    assert "hashzoo bench --save-weights" in text


def test_rows_of_one_seed_are_not_called_alike_and_the_page_says_why(results, tmp_path):
    def change(cell, arrays):
        return (cell, arrays) if cell.identity.seed == 0 else None

    text = render_page(changed(results, tmp_path, change), PageOptions(gallery=0, explained=["none"]))
    assert "No test was possible, since all have fewer than 2 seeds in common with it." in text
    assert "Whether the methods differ is not tested" in text
    assert 'title="cannot be told' not in text
    assert "account for the variation" not in text


def test_a_csv_has_a_page_of_its_means(results, tmp_path):
    from hashzoo.results.board import write_board

    write_board(tmp_path, store.read_all(results)[0])
    text = render_page(tmp_path / "leaderboard.csv", PageOptions())
    Reader(text)
    assert "come from a CSV file of means" in text


def test_a_row_measured_with_other_code_is_marked_stale(results, tmp_path):
    assert "Stale:" not in render_page(results, PageOptions(gallery=0, explained=("none",)))
    for file in sorted((results / "cells").glob("*.json")):
        cell = store.read(file)
        code = "other" if cell.identity.method == "lsh" else cell.identity.code
        store.write(tmp_path, replace(cell, identity=replace(cell.identity, code=code)), {})
    text = render_page(tmp_path, PageOptions(gallery=0, explained=("none",)))
    assert "Stale: lsh. These rows were measured" in text
    assert text.count(">stale</em>") == 2  # at both code lengths


def test_a_damaged_cell_is_named_on_the_page_and_left_where_it_is(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next((copy / "cells").glob("small.lsh.8.0.*.json"))
    victim.write_bytes(victim.read_bytes()[:-50])
    before = sorted(path.name for path in (copy / "cells").iterdir())
    assert victim.name in render_page(copy, PageOptions(gallery=0, explained=("none",)))
    assert sorted(path.name for path in (copy / "cells").iterdir()) == before


def test_the_gallery_shows_what_the_index_finds(results):
    from hashzoo.registry import saved_method
    from hashzoo.registry.open_dataset import reload_data

    found = read(results)
    [board] = found.boards
    entry = next(e for e in board.entries_at(16) if e.name == "itq")
    data = reload_data(entry.ok_cells[0], (), None)
    made = build_gallery(
        found, ImageSource(board, data, entry.ok_cells[0].identity.data), 16, ["itq"], 4, Album(THUMBNAIL_BYTES)
    )
    kept = saved_method.read(found.file(entry.ok_cells[0]))
    index = kept.method.index()
    index.add(encode(kept.run, kept.method, data.database))
    rows = spread(len(data.query))[np.unique(np.linspace(0, 23, 4).round().astype(int))]
    wanted = index.search({"code": encode(kept.run, kept.method, data.query)["code"][rows.astype(int)]}, 10)
    assert len(made.queries) == 4
    for query, near, far in zip(made.queries, wanted.rows.tolist(), wanted.distances.tolist(), strict=True):
        [one] = query.results
        assert [shown.labels for shown in one.images] == [
            data.class_names[int(data.database.labels[row].argmax())] for row in near
        ]
        assert [float(shown.distance) for shown in one.images] == far
        assert [shown.relevant for shown in one.images] == [s.labels == query.labels for s in one.images]


def test_images_that_find_no_room_are_left_out_and_the_page_says_so(results, monkeypatch):
    monkeypatch.setattr("hashzoo.report.page.THUMBNAIL_BYTES", 12_000)
    text = render_page(results, PageOptions(gallery=8, explained=("none",)))
    assert re.search(r"\d of 8 queries are shown", text)
    assert len("".join(re.findall(r"<symbol[\s\S]*?</symbol>", text))) <= 12_000


def test_composed_queries_are_shown_as_two_images_and_a_sign():
    house = zoo.load_plugins()
    data = house.dataset("scenes.difference").factory(queries=30)
    method = house.method("lsh").factory(data.setting(8), house.backbone("pixels").factory((1, 24, 24)))
    index = method.index()
    index.add({"code": torch.rand(len(data.database), 8) > 0.5})
    arrays = samples(index, {"code": torch.rand(30, 8) > 0.5}, len(data.database))
    album = Album(THUMBNAIL_BYTES)
    rows = [int(data.pairs.first[0]), int(data.pairs.second[0])]
    near = arrays["gallery_rows"][0].tolist()
    board = type("Board", (), {"number": 0})
    wanted = {(0, "q", row): (data.query, row) for row in rows} | {(0, "d", row): (data.database, row) for row in near}
    assert album.add(wanted)
    query = build_query(ImageSource(board, data, ""), 0, [], album)
    assert (len(query.images), query.sign, query.operation) == (2, "\u2216", "without")
    assert query.labels == label_names(data.pairs.labels[0], data.class_names)


def test_bits_that_are_kept_are_those_of_the_codes():
    house = zoo.load_plugins()
    data = house.dataset("digits.small").factory()
    index = house.method("lsh").factory(data.setting(8), house.backbone("pixels").factory((1, 8, 8))).index()
    codes = torch.rand(50, 8) > 0.3
    index.add({"code": codes})
    found = samples(index, {"code": codes[:5]}, 50)
    np.testing.assert_allclose(found["bit_means"], codes.float().mean(0).numpy(), atol=1e-6)
    assert found["gallery_rows"].shape == (5, 10)
    assert (found["gallery_distances"][:, 0] == 0).all()


def test_looks_and_confusion_are_of_the_methods_that_keep_weights(html):
    assert html.count('class="looks"') == 1  # sfdh; lsh and itq look at no place
    assert "sfdh, 16 bits" in html
    assert "has no attention map" in html


def test_without_data_the_page_says_what_to_do(results, tmp_path):
    for file in sorted((results / "cells").glob("small.itq.*.json")):
        cell = store.read(file)
        identity = replace(cell.identity, dataset="folder", dataset_options={"root": "pictures"})
        store.write(tmp_path, replace(cell, identity=identity), {})
    text = render_page(tmp_path, PageOptions())
    assert "Not included: the images of folder" in text
    assert "--root" in text


def forbidden(*_arguments, **_options):
    raise AssertionError("the network is used")


def test_a_report_of_datasets_that_are_not_here_uses_no_network_and_says_so_once(results, tmp_path, monkeypatch):
    import socket
    import urllib.request

    monkeypatch.setenv("HASHZOO_DATA", str(tmp_path / "data"))
    for place, name in (
        *((socket.socket, name) for name in ("connect", "connect_ex", "sendto")),
        *((socket, name) for name in ("create_connection", "getaddrinfo")),
        *((urllib.request, name) for name in ("urlopen", "urlretrieve")),
        *((urllib.request.OpenerDirector, name) for name in ("open",)),
        *((torch.hub, name) for name in ("download_url_to_file", "load_state_dict_from_url")),
    ):
        monkeypatch.setattr(place, name, forbidden)
    names = [name for name in zoo.load_plugins().datasets if not name.startswith(("digits.", "scenes."))]
    files = sorted((results / "cells").glob("small.itq.8.*.json"))
    assert len(names) > 30
    for name in names:
        cell = store.read(files[0])
        identity = replace(cell.identity, dataset=name, dataset_options={"root": "the official files"})
        store.write(tmp_path / "board", replace(cell, identity=identity), store.arrays(files[0]))
    told = []
    text = render_page(tmp_path / "board", PageOptions(), log=told.append)
    assert "the network is used" not in text
    assert text.count("downloads nothing") >= 6
    [note] = re.findall(r'<li id="missing">(.*?)</li>', text)
    for name in names:
        assert len(re.findall(rf"the images of {re.escape(name)}[ ,;]", note)) == 1
        assert len(re.findall(rf"the images of {re.escape(name)}[ ,;]", text)) == 1
    assert len(told) == 1
    assert not (tmp_path / "data").exists()
    with pytest.raises(SystemExit):
        main(["plot", "classes", str(tmp_path / "board"), "-o", str(tmp_path / "x.png")])
    assert not (tmp_path / "data").exists()


def test_whatever_a_plugin_raises_without_the_network_is_in_the_note(results, tmp_path, monkeypatch):
    import urllib.request

    def load(*_):
        return urllib.request.urlopen("http://127.0.0.1:9", timeout=5)

    monkeypatch.setattr("hashzoo.report.dataset_images.reload_data", load)
    text = render_page(results, PageOptions(gallery=0, explained=("none",)))
    assert "Not included: the images of digits.small (digits.small:" in text
    assert "does not use the network" in text
    monkeypatch.undo()
    monkeypatch.setattr("hashzoo.registry.saved_method.build_backbone", load)
    text = render_page(results, PageOptions(gallery=0, explained=("sfdh",)))
    assert "Not included: heatmaps and confusion of sfdh on digits.small" in text


def changed(results: Path, folder: Path, change) -> Path:
    """A copy of the board without weights, each cell and its arrays as ``change`` makes them, left out for None."""
    for file in sorted((results / "cells").glob("*.json")):
        if made := change(store.read(file), store.arrays(file)):
            store.write(folder, *made)
    return folder


SOUND = {name: np.array([0.0, 1.0]) for name in ("pr_recall", "pr_precision", "bit_means")} | {
    "gallery_queries": np.array([0, 1]),
    "gallery_rows": np.array([[4, 5, 6], [7, 8, 9]]),
    "gallery_distances": np.array([[0.0, 1, 2], [0, 0, 1]]),
}


@pytest.mark.parametrize("name", sorted(SOUND))
@pytest.mark.parametrize(
    "odd",
    [
        lambda a: a.astype(str),
        lambda a: a[0, 0] if a.ndim == 2 else a[0],
        lambda a: np.stack([a, a]),
        lambda a: np.full(a.shape, np.nan),
        lambda a: -1 - a if a.dtype.kind == "i" else np.full(a.shape, np.inf),
        lambda a: a[:0],
    ],
    ids=["text", "scalar", "deeper", "nan", "outside", "empty"],
)
def test_arrays_of_odd_shapes_kinds_or_values_are_as_if_they_were_not_there(name, odd):
    gone = {one for one in SOUND if one.startswith("gallery")} if name.startswith("gallery") else {name}
    assert set(valid_arrays(SOUND)) == set(SOUND)
    assert set(valid_arrays(SOUND | {name: odd(SOUND[name])})) == set(SOUND) - gone


def test_a_page_is_made_of_arrays_that_do_not_fit_each_other(results, tmp_path):
    def change(cell, arrays):
        arrays["pr_recall"] = arrays["pr_recall"][: -1 - cell.identity.seed]
        arrays["gallery_rows"] = arrays["gallery_rows"] + 10**6
        arrays["map@all"] = arrays["map@all"][cell.identity.seed :]
        cell = replace(cell, identity=replace(cell.identity, budget={**cell.identity.budget, "lr": "fast"}))
        return replace(cell, timings=dict.fromkeys(cell.timings, -1.0)), arrays

    text = render_page(changed(results, tmp_path, change), PageOptions(explained=["none"]))
    assert "Precision over recall" not in text
    assert "No row has a score and a cost" not in text  # bytes are known
    assert "in batches of 64, adam at fast" in text


def test_neighbours_and_weights_of_other_data_are_not_shown_with_these_images(results, tmp_path):
    def change(cell, arrays):
        other = replace(cell.identity, data="0" * 16) if cell.identity.method == "lsh" else cell.identity
        return replace(cell, identity=other), arrays

    text = render_page(changed(results, tmp_path, change), PageOptions(gallery=2, explained=["none"]))
    assert text.count("Without neighbors among these images: lsh") == 2


def test_rows_of_another_split_are_not_tested_and_the_page_says_so(results, tmp_path):
    def change(cell, arrays):
        split = "another" if cell.identity.method == "lsh" else cell.facts["split"]
        return replace(cell, facts={**cell.facts, "split": split}), {}

    folder = changed(results, tmp_path, change)
    [board] = read(folder).boards
    [stand] = gaps_to_best(board, 8).values()
    assert (stand.p, stand.test) == (None, "")
    text = render_page(folder, PageOptions())
    assert "Some rows were measured on other data or splits" in text
    assert "No test was possible" in text


def test_what_is_said_of_the_others_is_what_was_tested(results):
    [board] = read(results).boards
    entries = {entry.name: entry for entry in board.entries_at(16)}
    bare = {"kind": "", "supervision": "", "meter": ""}
    best = LeaderboardRow(entries["itq"], 1, None, True, **bare)

    def told(*gaps):
        return summarize_gaps(
            [best, *(LeaderboardRow(entries["lsh"], i, one, False, **bare) for i, one in enumerate(gaps, 2))]
        )

    alike, different = Gap(-0.1, (-0.3, 0.1), 0.3, "training"), Gap(-0.2, (-0.3, -0.1), 0.01, "training")
    unclear, one_seed = replace(different, p=0.06), replace(alike, test="models", reason=FEW_SEEDS)
    assert told() == "No other method was measured."
    assert told(Gap(-0.1)) == "No test was possible."
    assert told(one_seed) == "No test was possible, since all have fewer than 2 seeds in common with it."
    assert told(different, different) == "Every other method differs significantly from it (5 %)."
    assert told(different, Gap(-0.1)) == (
        "1 other method differs significantly from it (5 %). 1 other method could not be tested."
    )
    assert told(alike, unclear) == (
        "1 other method cannot be told from it (5 %): lsh. "
        "1 other method differs from it only before the correction for several tests: lsh."
    )


def test_a_csv_that_lacks_columns_or_holds_what_is_not_finite_has_a_page(tmp_path):
    head = "schema,benchmark,dataset,backbone,method,bits,budget,status,reason,role,settings,contaminated,map@all"
    rows = [f"1,b,d,pixels,{name},16,equal,ok,,,,False,{score}" for name, score in (("x", 0.5), ("y", "inf"))]
    (tmp_path / "board.csv").write_text("\n".join([head, *rows, ""]))
    text = render_page(tmp_path / "board.csv", PageOptions())
    Reader(text)
    assert "inf" not in re.findall(r'data-v="([^"]*)"', text)
    assert "0 measurements" not in text


def test_a_confusion_of_many_classes_stays_small():
    drawn = charts.matrix_chart(np.eye(400), [f"class {i}" for i in range(400)], "said")
    assert drawn.count("<rect") == 1 + 400


def test_a_name_with_dollars_is_drawn_as_it_is(results, tmp_path):
    def change(cell, arrays):
        return replace(cell, identity=replace(cell.identity, method=f"$\\frac{{{cell.identity.method}$")), arrays

    changed(results, tmp_path, change)
    for kind in ("bits", "cost", "distances"):
        main(["plot", kind, str(tmp_path), "-o", str(tmp_path / f"{kind}.png")])
        assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_methods_that_are_named_are_looked_at_and_others_refused(results):
    found = read(results)
    assert highlighted_names(found, ["lsh"]) == ["lsh"]
    assert set(highlighted_names(found)) == {"itq", "lsh", "sfdh", "chance"}
    with pytest.raises(UsageError, match="did you mean 'itq'"):
        highlighted_names(found, ["iqt"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["report", "{nowhere}"], 3, "no leaderboard"),
        (["report", "{cell}"], 2, "name the results folder"),
        (["report", "{results}", "--metric", "mpa@all"], 2, "did you mean 'map@all'"),
        (["report", "{results}", "-o", "no/folder/r.html"], 3, "cannot write"),
        (["report", "{results}", "-o", "{nowhere}"], 2, "is a folder"),
        (["report", "{results}", "--root", "nowhere"], 2, "--root: there is no folder nowhere"),
        (["plot", "classes", "{results}", "-o", "x.png", "--root", "nowhere"], 2, "no folder nowhere"),
        (["report", "{results}", "--methods", "iqt"], 2, "did you mean 'itq'"),
        (["report", "{results}", "--highlight", "iqt"], 2, "did you mean 'itq'"),
        (["report", "{results}", "{results}"], 2, "given twice"),
        (["plot", "pr", "{results}", "-o", "x.png", "--size", "3"], 2, "such as 3.4x2.5"),
        (["plot", "pr", "{results}", "-o", "x.png", "--font", "DejaVu San"], 2, "did you mean 'DejaVu Sans'"),
        (["report", "{results}", "--explain", "iqt"], 2, "did you mean 'itq'"),
        (["plot", "pr", "{results}", "-o", "x.eps"], 2, ".png, .svg or .pdf"),
        (["plot", "pr", "{results}", "-o", "x.png", "--bits", "7"], 2, "there are: 8, 16"),
        (["plot", "pr", "{results}", "-o", "x.png", "--dataset", "digits"], 2, "did you mean 'digits.small'"),
    ],
)
def test_what_cannot_be_reported_is_one_line(arguments, code, says, results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cell = next((results / "cells").glob("*.json"))
    named = {"results": results, "cell": cell, "nowhere": tmp_path}
    with pytest.raises(SystemExit) as stopped:
        main([word.format(**named) for word in arguments])
    error = capsys.readouterr().err
    assert (stopped.value.code, len(error.strip().splitlines())) == (code, 1), error
    assert says in error


@pytest.mark.parametrize("kind", ["pr", "bits", "bytes", "cost", "distances", "balance", "classes", "training"])
def test_each_plot_is_drawn_and_the_same_twice(kind, results, tmp_path):
    for ending, start in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        for name in ("a", "b"):
            main(["plot", kind, str(results), "-o", str(tmp_path / f"{name}.{ending}")])
        first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
        assert first == second
        assert first.startswith(start)


def test_ranks_are_drawn_of_a_board_that_has_blocks(tmp_path):
    main(["plot", "ranks", str(ROOT / "results" / "cifar10" / "leaderboard.csv"), "-o", str(tmp_path / "ranks.png")])
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_what_is_not_there_says_so(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy, ignore=shutil.ignore_patterns("*.npz"))
    with pytest.raises(SystemExit):
        main(["plot", "pr", str(copy), "-o", str(tmp_path / "x.png")])


def test_charts_put_values_where_their_axes_say():
    drawn = charts.line_chart(
        [charts.Series(3, "a<b", [(16, 0.2), (64, 0.6)])], {3: 1}, charts.ChartText("label", "x", "y")
    )
    [(left, top), (right, bottom)] = [tuple(map(float, at.split())) for at in re.findall(r"[ML]([\d. ]+)", drawn)[-2:]]
    assert left < right
    assert top > bottom  # y grows downwards
    assert "a&lt;b" in drawn
    assert 'class="s on c1" data-m="3"' in drawn


def test_a_map_of_looks_is_grey_where_it_is_cold():
    image = Image.new("RGB", (2, 2), (200, 200, 200))
    cold, hot = (np.asarray(blend(image, np.full((2, 2), share))) for share in (0.0, 1.0))
    assert np.ptp(cold[0, 0]) < np.ptp(hot[0, 0])


def test_every_metric_that_a_board_may_have_is_explained():
    house = zoo.load_plugins()
    extra = house.metric_functions()
    for name in ("map@all", "map@10:hits", "p@h2", "r@5", "empty@h2", "ndcg@100/bitwise", "rprecision", "bit-balance"):
        assert texts.describe_metric(name, extra) not in ("", name)


def test_no_results_are_trouble(tmp_path):
    with pytest.raises(EnvironmentFailure, match="no leaderboard"):
        read(tmp_path)


def test_the_folder_above_boards_names_them(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "leaderboard.csv").touch()
    with pytest.raises(EnvironmentFailure, match=f"there are boards in {tmp_path}/digits"):
        read(tmp_path)


def test_each_method_whose_weights_are_looked_into_is_told(results, tmp_path):
    told = []
    write(results, tmp_path / "r.html", PageOptions(gallery=0, explained=["sfdh"]), log=told.append)
    assert told == ["computing heatmaps and confusion of sfdh: digits.small, 16 bits"]


def test_every_command_of_the_pages_on_reports_and_figures_runs(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hashzoo-results").mkdir()
    Path("hashzoo-results/digits").symlink_to(results)
    Path("results").symlink_to(ROOT / "results")
    Path("FOLDER").mkdir()
    pages = "\n".join((ROOT / "docs" / "howto" / f"{name}.md").read_text() for name in ("report", "figures"))
    commands = [line for line in re.findall(r"^    hashzoo (.*)$", pages, re.M) if "CELL" not in line]
    assert len(commands) >= 6
    for command in commands:
        main(command.split())
    made = {path.name for path in tmp_path.glob("*.*")}
    assert made == {"report.html", "digits.html", "pr.svg", "bits.png", "distances.svg"}


def test_the_page_draws_the_loss_of_trained_methods_and_names_the_rows_with_warnings(results, html, tmp_path):
    [section] = re.findall(r'<section id="training">([\s\S]*?)</section>', html)
    assert re.findall(r"<figcaption>(.*?)</figcaption>", section) == ["sfdh"]
    assert 'class="line"' in section
    assert "Rows that are ok, with the warning “at chance”: chance." in html
    assert html.count('<em class="bad">at chance; one code for 99 % of the images</em>') == 2

    def change(cell, arrays):
        return replace(cell, provenance={}), arrays

    text = render_page(changed(results, tmp_path, change), PageOptions(gallery=0, explained=["none"]))
    assert "None of the highlighted methods has losses by epoch" in text


def test_a_training_is_the_mean_over_the_seeds_and_drawn_with_its_validation(results):
    from hashzoo.report.training import training_chart, training_of

    [board] = read(results).boards
    [entry] = [e for e in board.entries_at(16) if e.name == "sfdh"]
    curve = [{"loss": {"a": 1.0, "b": 3.0}, "validation": {"map@all": 0.2}}, {"loss": {"a": 1.0}}]
    cells = [replace(entry.row.cells[0], provenance={"curve": c}) for c in (curve, [{"loss": {"a": 3.0}}] * 2)]
    training = training_of(replace(entry, row=replace(entry.row, cells=cells)))
    assert list(training.loss) == [3.5, 2.0]
    assert (training.seeds, list(training.terms)) == (2, ["a", "b"])
    drawn = training_chart(training, 1, "label")
    assert drawn.count('class="line"') == 1
    assert training_of(replace(entry, row=replace(entry.row, cells=[]))) is None


@pytest.mark.parametrize("count", [2, 6])
def test_the_names_of_loss_terms_cover_neither_each_other_nor_a_line(count):
    from hashzoo.report import figures
    from hashzoo.report.training import Training, draw_training

    terms = {f"a long name {number}": [0.5 + 0.001 * number] * 8 for number in range(count)}
    figure, [axes] = figures.panels(["title"], 3.4, 2.6, 4)
    draw_training(axes, Training([float(count)] * 8, terms, {}, 1), "#000000")
    figure.draw_without_rendering()
    legend = axes.get_legend()
    boxes = [text.get_window_extent() for text in [*legend.get_texts(), *axes.texts]]
    assert [text.get_text() for text in legend.get_texts()] == ["loss", *terms]
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    lowest = legend.get_window_extent().y0
    assert all(line.get_window_extent().y1 < lowest for line in axes.lines)


def test_rows_ranked_by_validation_are_called_best_by_it(results, tmp_path):
    folder = tmp_path / "board"
    for file in sorted((results / "cells").glob("small.itq.*.json")):
        cell, seed = store.read(file), store.read(file).identity.seed
        own = {"hyperparameters": {**cell.identity.hyperparameters, "rotations": seed}, "seed": 0}
        held = {"validation map@all": 0.1 * (seed + 1)} if cell.identity.bits == 8 else {}
        cell = replace(cell, identity=replace(cell.identity, **own), settings=f"rotations={seed}")
        store.write(folder, replace(cell, facts={**cell.facts, **held}), store.arrays(file))
    text = render_page(folder, PageOptions(gallery=0, explained=["none"]))
    assert re.search(r"<strong>itq rotations=2</strong> is best by validation map@all\.", text)
    assert text.count("ranked by the queries") == 1
    assert "digits.small at 16 bits: settings of one method are ranked by the queries" in text
