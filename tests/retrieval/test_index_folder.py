"""An index folder: what it holds after any changes, what readers see meanwhile, and what it refuses."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.retrieval import index_folder, index_segments, index_snapshot
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_writer import Item, MetadataTable
from tests.retrieval.folders import METADATA, code_of, entries, expected, folder_of, held

IDS = st.sampled_from([f"{kind}/{number}.jpg" for kind in ("a", "é") for number in range(4)] + ["caf\udce9"])
CONTENTS = st.dictionaries(IDS, st.integers(0, 20), min_size=1)
STEPS = st.one_of(
    st.tuples(st.just("put"), CONTENTS),
    st.tuples(st.just("remove"), st.sets(IDS, min_size=1)),
    st.tuples(st.sampled_from(["compact", "merge_last"]), st.none()),
    st.tuples(st.just("fail"), CONTENTS),
)


def fail(folder: IndexFolder, given: dict[str, int]) -> None:
    with folder.writing() as writer:
        writer.put(*entries(given))
        writer.remove(list(given))
        raise KeyError


def applied(folder: IndexFolder, model: dict[str, int], step: str, given: object) -> None:
    """One change of a folder, and of the dictionary that says what it must hold."""
    if step == "put":
        with folder.writing() as writer:
            writer.put(*entries(given))
        for name, content in given.items():
            model.pop(name, None)
            model[name] = content
    elif step == "remove":
        if missing := given - model.keys():
            with pytest.raises(UsageError, match="nothing was removed"), folder.writing() as writer:
                writer.remove(sorted(given))
            given = given - missing
        with folder.writing() as writer:
            assert writer.remove(sorted(given)) == len(given)
        for name in given:
            del model[name]
    elif step in ("compact", "merge_last"):
        with folder.writing() as writer:
            getattr(writer, step)()
    else:
        with pytest.raises(KeyError):
            fail(folder, given)


def test_items_added_one_by_one_are_written_a_number_of_times_that_grows_slowly(tmp_path, monkeypatch):
    folder, model, written, most = folder_of(tmp_path / "my.index"), dict[str, int](), [], 8
    write = index_segments.write

    def counted(path, shape, *arguments):
        written.append(shape[0])
        return write(path, shape, *arguments)

    monkeypatch.setattr(index_segments, "write", counted)
    with folder.writing() as writer:
        for number in range(512):
            model[f"{number}.jpg"] = number
            writer.put(*entries({f"{number}.jpg": number}))
            if writer.segments() > most:
                writer.merge_last()
            assert writer.segments() <= most + 1
    assert held(folder) == model
    assert sum(written) <= 512 * (1 + 9)  # 2^9 items


@settings(max_examples=25, deadline=None)
@given(
    st.lists(STEPS, max_size=8), st.binary(min_size=2, max_size=2), st.none() | st.integers(1, 5),
    st.none() | st.integers(0, 6),
)  # fmt: skip
def test_after_any_changes_a_search_finds_what_a_comparison_with_all_images_finds(
    tmp_path_factory, steps, query, k, radius
):
    folder, model = folder_of(tmp_path_factory.mktemp("x") / "my.index"), dict[str, int]()
    for step, values in steps:
        applied(folder, model, step, values)
        assert held(folder) == model
        assert list(held(folder)) == list(model)
    asked = np.frombuffer(query, np.uint8)
    with folder.snapshot() as state:
        (hits,) = state.search(asked[None], k, radius)
        assert [(hit.id, hit.distance) for hit in hits] == expected(model, asked, k, radius)
        assert [state.row(hit.id) for hit in hits] == [hit.row for hit in hits]
        assert all(str(hit.path) == f"/photos/{hit.id}" for hit in hits)
    told = folder.info()
    assert (told["images"], told["segments"] <= len(steps)) == (len(model), True)
    files = {file.name for file in (folder.path / "segments").iterdir()}
    assert len(files) <= told["segments"]  # equal segments share a file, and no other is left


def test_a_reader_keeps_its_state_while_writers_change_delete_and_compact(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2, "c": 3})
    with folder.snapshot() as state:
        with folder.writing() as writer:
            writer.remove(["a"])
            writer.put(*entries({"d": 4, "b": 5}))
        with folder.writing() as writer:
            assert writer.compact()
        assert list(state.ids) == ["a", "b", "c"]
        assert {hit.id for hit in state.search(code_of(1)[None], 3)[0]} == {"a", "b", "c"}
        with folder.snapshot() as later:
            assert (list(later.ids), later.state > state.state) == (["c", "d", "b"], True)
    with folder.writing() as writer:
        assert not writer.compact()
    assert folder.info()["deleted"] == 0


def test_readers_in_threads_see_whole_states_while_a_writer_works(tmp_path):
    folder, stop, wrong = folder_of(tmp_path / "my.index", {"a": 0, "b": 0}), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            with folder.snapshot() as state:
                versions = {value for (value,) in state.select("SELECT _bytes FROM items")}
                if len(versions) != 1 or list(state.ids) != ["a", "b"]:
                    wrong.append((versions, list(state.ids)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 30):
        with folder.writing(wait=5) as writer:
            writer.put(*entries({"a": version, "b": version}))
            if version % 5 == 0:
                writer.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert held(folder) == {"a": 29, "b": 29}


def test_a_second_writer_is_refused_in_one_line_or_waits(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1})
    with folder.writing() as writer:
        with pytest.raises(
            EnvironmentFailure, match=r"another process is changing .*my\.index; wait for it with --wait"
        ):
            folder.writing().__enter__()
        writer.remove(["a"])
        second = threading.Thread(target=lambda: _put_later(folder))
        second.start()
    second.join()
    assert held(folder) == {"b": 2}


def _put_later(folder: IndexFolder) -> None:
    with folder.writing(wait=20) as writer:
        writer.put(*entries({"b": 2}))


def hold(path, pipe) -> None:
    with IndexFolder(path).writing() as writer:
        writer.put(*entries({"b": 2}))
        pipe.send("holding")
        pipe.recv()


def test_a_writer_that_dies_leaves_no_lock_and_no_change(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1})
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(folder.path, theirs))
    process.start()
    assert ours.recv() == "holding"
    process.kill()
    process.join()
    with folder.writing() as writer:
        writer.put(*entries({"c": 3}))
    assert held(folder) == {"a": 1, "c": 3}
    assert len(list((folder.path / "segments").iterdir())) == 2  # what it had written is deleted


def test_metadata_selects_the_images_that_are_searched(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2, "c": 3, "d": 4})
    rows = {"a": [2019, "Bern; Köln"], "b": [2021, None], "c": [2023, "O'Hara"], "zz": [1, "x"]}
    with folder.writing() as writer:
        assert writer.set_metadata(MetadataTable({"year": "INTEGER", "Place taken": "TEXT"}, rows)) == ["zz"]
        writer.put(*entries({"c": 9}))  # keeps its metadata
    for condition, ids in {
        "year > 2020": ["b", "c"],
        'YEAR > 2020 AND "Place taken" IS NOT NULL': ["c"],
        "\"Place taken\" = 'Bern; Köln' or id = 'd'": ["a", "d"],
        "\"place taken\" LIKE 'o''h%'": ["c"],
        "year IS NULL": ["d"],
        "(year - 1) / 2 = 1010 -(0)": ["b"],
        "_bytes BETWEEN 2 AND 4": ["b", "d"],
        "0": [],
    }.items():
        with folder.snapshot(condition) as state:
            assert list(state.ids) == ids, condition
            assert {hit.id for hit in state.search(code_of(1)[None])[0]} == set(ids)
    assert folder.info()["columns"] == ["year", "Place taken"]
    with pytest.raises(UsageError, match="has no image a"), folder.snapshot("year > 2020") as state:
        state.row("a")


@pytest.mark.parametrize(
    "condition",
    [
        "yeer > 2020", '"yeer" > 2020', " ", "year >", "year > ?", "1; DROP TABLE items", "1) OR (1", "(1", "1 -- x",
        "1 /*", "id IN (SELECT id FROM items)", "1 UNION SELECT 7", "EXISTS (SELECT 1)", "load_extension('x')",
        "printf('%9999d', 1)", "readfile('/etc/passwd')", "randomblob(9)", "value = 1", "(SELECT value FROM about)",
        "year IN about", "id MATCH 'x'", "ATTACH 'x' AS y", "1 GROUP BY 1", "total_changes()", "'it''s",
        "replace(id, 'a', 'b') = 'b'", "1 LIMIT 1) --", "year > 1\0",
    ],
)  # fmt: skip
def test_a_condition_that_is_more_than_an_expression_of_the_columns_is_refused(described, condition):
    with pytest.raises(UsageError, match="the condition"):
        described.snapshot(condition)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("x") / "my.index", {"a": 1})
    with folder.writing() as writer:
        writer.set_metadata(MetadataTable({"year": "INTEGER"}, {"a": [2021]}))
    return folder


def test_a_condition_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    from hashzoo.storage import database

    monkeypatch.setattr(database, "CONDITION_SECONDS", 0.0)
    folder = folder_of(tmp_path / "my.index", {str(row): row for row in range(3000)})
    with pytest.raises(UsageError, match="takes more than 0 s"):
        folder.snapshot("id LIKE '%1%1%1%1%1%'")


def test_what_cannot_be_put_is_refused_and_changes_nothing(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1})
    codes = np.zeros((1, 2), np.uint8)
    for items, arrays, why in [
        ([Item("b"), Item("b")], {"bits.code": np.zeros((2, 2), np.uint8)}, "the id b is given twice"),
        ([Item("")], {"bits.code": codes}, "is empty or contains a zero byte"),
        ([Item("b\0")], {"bits.code": codes}, "is empty or contains a zero byte"),
        ([Item("b")], {"bits.code": codes[:, :1]}, r"takes bits.code as uint8 \(1, 2\), not uint8 \(1, 1\)"),
        ([Item("b")], {"bits.code": codes.astype(bool)}, "not bool"),
        ([Item("b")], {}, "not none"),
    ]:
        with folder.writing() as writer, pytest.raises(UsageError, match=why):
            writer.put(items, arrays)
    for name in ("_digest", "ROWID", "", "x\0"):
        with pytest.raises(UsageError, match="the metadata column"), folder.writing() as writer:
            writer.set_metadata(MetadataTable({name: "TEXT"}, {}))
    assert held(folder) == {"a": 1}
    with pytest.raises(UsageError, match=r"codes of .* are uint8 \(Q, 2\)"), folder.snapshot() as state:
        state.search(np.zeros((1, 3), np.uint8))


def test_indexes_of_one_method_merge_and_others_do_not(tmp_path):
    a = folder_of(tmp_path / "a.index", {"x": 1, "y": 2})
    b = folder_of(tmp_path / "b.index", {"y": 2, "z": 3})
    for folder, year in ((a, 2020), (b, 2021)):
        with folder.writing() as writer:
            writer.set_metadata(MetadataTable({"year": "INTEGER"}, {name: [year] for name in "xyz"}))
    merged = index_folder.merge(a, b, tmp_path / "c.index")
    assert held(merged) == {"x": 1, "y": 2, "z": 3}
    with merged.snapshot("year = 2020") as state:
        assert list(state.ids) == ["x", "y"]
    with pytest.raises(UsageError, match=r"c\.index exists; change it with hashzoo index update"):
        index_folder.merge(a, b, tmp_path / "c.index")
    with b.writing() as writer:
        writer.put(*entries({"y": 5}))
    with pytest.raises(UsageError, match="both indexes have an image y, with different contents"):
        index_folder.merge(a, b, tmp_path / "d.index")
    assert not (tmp_path / "d.index").exists()
    other = IndexFolder.create(tmp_path / "e.index", {**METADATA, "run": {**METADATA["run"], "state": "other"}})
    with pytest.raises(UsageError, match="were built with different methods"):
        index_folder.merge(a, other, tmp_path / "d.index")
    elsewhere = IndexFolder.create(tmp_path / "f.index", {**METADATA, "root": "/more"})
    with elsewhere.writing() as writer:
        writer.put(*entries({"w": 6}))
    with index_folder.merge(a, elsewhere, tmp_path / "g.index").snapshot() as state:
        assert list(state.ids) == ["x", "y", "w"]
        assert [str(hit.path) for hit in state.hits(np.arange(3), np.zeros(3))] == ["/photos/x", "/photos/y", "/more/w"]


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2})
    (segment,) = (folder.path / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(EnvironmentFailure, match=rf"{segment.name} is damaged \(its digest"):
        folder.info()
    segment.unlink()
    monkeypatch.setattr(index_snapshot, "PAUSE", 0)
    with pytest.raises(EnvironmentFailure, match=rf"{segment.name} are missing"):
        folder.snapshot()
    segment.write_bytes(whole)
    assert folder.info()["images"] == 2
    database = folder.path / "index.sqlite"
    sound = database.read_bytes()
    for damaged in (sound[:100] + b"\xff" * 200 + sound[300:], sound[: len(sound) // 2], b"not a database" * 99):
        database.write_bytes(damaged)
        with pytest.raises(EnvironmentFailure, match=r"index\.sqlite"):
            folder.info()
    database.write_bytes(b"")
    with pytest.raises(UsageError, match="holds no complete index"):
        folder.info()


def test_rows_without_an_item_are_found(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2})
    connection = sqlite3.connect(folder.path / "index.sqlite")
    connection.execute("DELETE FROM items WHERE id = 'a'")
    connection.commit()
    connection.close()
    with pytest.raises(EnvironmentFailure, match="its items do not match its segments"):
        folder.info()


def test_a_newer_schema_and_an_unfinished_index_are_refused(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1})
    connection = sqlite3.connect(folder.path / "index.sqlite")
    connection.execute("UPDATE about SET value = 2 WHERE name = 'schema'")
    connection.commit()
    connection.close()
    for act in (folder.snapshot, lambda: folder.writing().__enter__()):
        with pytest.raises(EnvironmentFailure, match="schema 2"):
            act()
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="there is no index"):
            IndexFolder(path)


def test_a_creation_that_fails_leaves_nothing_and_one_that_was_killed_can_be_repeated(tmp_path):
    bad = {**METADATA, "seed": float("nan")}
    with pytest.raises(ValueError, match="not JSON"):
        IndexFolder.create(tmp_path / "my.index", bad)
    assert not (tmp_path / "my.index").exists()
    (tmp_path / "my.index" / "segments").mkdir(parents=True)
    (tmp_path / "my.index" / "index.sqlite").touch()
    folder_of(tmp_path / "my.index", {"a": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    for taken in ("my.index", "mine", "mine/photo.jpg"):
        with pytest.raises(UsageError, match="exists; change it"):
            IndexFolder.create(tmp_path / taken, METADATA)


def test_an_index_in_a_folder_that_cannot_be_written_is_read(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2})
    folder.path.chmod(0o555)
    try:
        assert held(folder) == {"a": 1, "b": 2}
    finally:
        folder.path.chmod(0o755)


def test_a_search_with_codes_imports_neither_torch_nor_numba(tmp_path):
    folder = folder_of(tmp_path / "my.index", {"a": 1, "b": 2})
    code = (
        "import sys, numpy, hashzoo\n"
        f"with hashzoo.IndexFolder({str(folder.path)!r}).snapshot() as state:\n"
        "    print(state.search(numpy.zeros((1, 2), numpy.uint8), 1)[0][0].id)\n"
        "print([name for name in ('torch', 'numba', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


def test_values_that_are_no_bits_are_kept_too(tmp_path):
    codes = {**METADATA["codes"], "side": {"shape": [3], "type": "float32"}}
    folder = IndexFolder.create(tmp_path / "my.index", {**METADATA, "codes": codes, "ranks_by": ""})
    side = np.arange(12, dtype=np.float32).reshape(4, 3)
    with folder.snapshot() as state:
        assert state.stored().array("side").shape == (0, 3)
    items, arrays = entries({"a": 1, "b": 2, "c": 3, "d": 4})
    with folder.writing() as writer:
        writer.put(items, {**arrays, "values.side": side})
        writer.remove(["b"])
        writer.compact()
    with folder.snapshot() as state:
        assert np.array_equal(state.stored().array("side"), side[[0, 2, 3]])
        with pytest.raises(UsageError, match="does not rank by the Hamming distance of one code"):
            state.search(np.zeros((1, 2), np.uint8))
