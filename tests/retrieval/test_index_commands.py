"""The commands that build, change and search an index folder of images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import hashzoo
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming.packing import pack
from hashzoo.retrieval.encoder import Encoder
from hashzoo.retrieval.index_folder import IndexFolder
from tests.measured import cell_of
from tests.retrieval.test_retrieval import DATA, command, refused

COUNT = 24


@pytest.fixture(scope="module")
def itq(tmp_path_factory):
    return cell_of(tmp_path_factory.mktemp("results"), "itq")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for row in range(COUNT):
        (folder / f"{row % 3}").mkdir(parents=True, exist_ok=True)
        save(folder / f"{row % 3}" / f"{row:02}.png", row)
    return folder


@pytest.fixture
def built(itq, photos, tmp_path, capsys):
    """An index folder of the photos; half of them have a year, and every fourth an id."""
    lines = [
        f"{row % 3}/{row:02}.png,{f'n{row}' if row % 4 == 0 else f'{row % 3}/{row:02}.png'},{2000 + row}"
        for row in range(COUNT // 2)
    ]
    (tmp_path / "about.csv").write_text("\n".join(["Path,ID,year", *lines]) + "\n")
    given = (
        "index",
        "build",
        itq,
        photos,
        "-o",
        tmp_path / "my.index",
        "--folder",
        "--metadata",
        tmp_path / "about.csv",
    )
    assert command(*given) == 0
    assert capsys.readouterr().out == f"24 added; 24 images; written to {tmp_path}/my.index\n"
    return tmp_path / "my.index"


def save(path, row: int) -> None:
    """Image number ``row``, last modified an hour ago or before, as other images of a folder are."""
    Image.fromarray(DATA.database.images[row, 0].numpy()).save(path)
    os.utime(path, (10**9 + row, 10**9 + row))


@pytest.fixture
def encoded(monkeypatch):
    """The names of the images that are encoded."""
    names, encode = [], Encoder.encode_batches

    def noted(self, images, *arguments):
        names.extend(path.name for path in images)
        return encode(self, images, *arguments)

    monkeypatch.setattr(Encoder, "encode_batches", noted)
    return names


def ids(folder) -> list[str]:
    with IndexFolder(folder).snapshot() as state:
        return list(state.ids)


def found(capsys, *arguments):
    capsys.readouterr()
    assert command("search", *arguments, "--json") == 0
    return [
        [(hit["id"], hit["distance"]) for hit in one["found"]] for one in json.loads(capsys.readouterr().out)["answers"]
    ]


def test_a_folder_finds_what_a_file_finds_by_image_code_and_id(itq, photos, built, tmp_path, capsys):
    assert command("index", "build", itq, photos, "-o", tmp_path / "file.index") == 0
    query = photos / "1" / "01.png"
    names = {
        name: hit.id
        for name, hit in zip(hashzoo.open_index(tmp_path / "file.index")._stored.paths, rows(built), strict=True)
    }
    (expected,) = found(capsys, tmp_path / "file.index", query)
    expected = [(names[name], distance) for name, distance in expected]
    assert found(capsys, built, query) == [expected]
    assert command("encode", itq, query, photos / "2", "-o", tmp_path / "codes.npz") == 0
    assert found(capsys, built, "--codes", tmp_path / "codes.npz")[0] == expected
    codes = hashzoo.load_encoder(itq).encode(query)["code"].numpy()
    for array in (codes, pack(codes)):
        np.save(tmp_path / "codes.npy", array)
        assert found(capsys, built, "--codes", tmp_path / "codes.npy") == [expected]
    assert found(capsys, built, "--like", names["1/01.png"]) == [expected]
    near = [pair for pair in found(capsys, built, query, "--top", COUNT)[0] if pair[1] <= 5]
    for index, told in ((built, near), (tmp_path / "file.index", len(near))):
        within = found(capsys, index, query, "--radius", 5)[0]
        assert told in (within, len(within))
    assert found(capsys, built, "--like", "n0", "--radius", 0, "--top", 1) == [[("n0", 0)]]


def rows(folder):
    with IndexFolder(folder).snapshot() as state:
        return state.hits(np.arange(len(state)), np.zeros(len(state)))


def test_a_condition_selects_what_is_searched_by_image_and_by_id(built, photos, capsys):
    chosen = {name for name, distance in found(capsys, built, photos / "1" / "01.png", "--where", "year >= 2008")[0]}
    assert chosen == {"n8", "0/09.png", "1/10.png", "2/11.png"}
    assert {name for name, _ in found(capsys, built, "--like", "n0", "--where", "year >= 2008")[0]} == chosen
    assert found(capsys, built, photos / "1" / "01.png", "--where", "year > 3000") == [[]]
    index = hashzoo.open_index(IndexFolder(built).snapshot("year >= 2008"))
    assert [index.id(row) for row in range(len(index))] == ["0/09.png", "1/10.png", "n8", "2/11.png"]
    assert index.path(2) == photos / "2" / "08.png"
    assert len(index.search(photos / "1" / "01.png", 3)[0]) == 3


def test_an_update_encodes_new_and_changed_images_only(built, photos, encoded, capsys):
    before = ids(built)
    assert command("index", "update", built, photos) == 0
    assert (encoded, ids(built)) == ([], before)
    save(photos / "0" / "new.png", 40)
    save(photos / "1" / "04.png", 41)
    os.utime(photos / "2" / "05.png", (2 * 10**9 - 10**9 + 77, 10**9 + 77))  # touched
    (photos / "0" / "06.png").unlink()
    (photos / "0" / "00.png").write_bytes(b"broken")
    capsys.readouterr()
    assert command("index", "update", built, photos) == 1
    told = capsys.readouterr()
    assert encoded == ["00.png", "new.png", "04.png"]
    assert told.out == f"1 added, 1 changed, 21 unchanged, 1 left out; 25 images; {built}\n"
    assert f"left out: {photos}/0/00.png does not decode" in told.err
    assert "no longer there: 1 (0/06.png); --delete removes them" in told.err
    assert set(ids(built)) == {*before, "0/new.png"}
    assert ids(built)[-2:] == ["0/new.png", "n4"]  # which keeps its id
    encoded.clear()
    (photos / "0" / "00.png").unlink()
    assert command("index", "update", built, photos / "0", "--delete") == 0
    assert "2 removed; 23 images" in capsys.readouterr().out
    assert (encoded, {"n0", "0/06.png"} & set(ids(built))) == ([], set())
    stored = hashzoo.open_index(built)
    fresh = stored.encoder.encode([stored.path(row) for row in range(len(stored))])["code"]
    assert torch.equal(fresh, torch.cat([stored.codes(row)["code"] for row in range(len(stored))]))


def test_an_image_that_changes_within_the_second_is_read_again(built, photos, encoded):
    path = photos / "0" / "03.png"
    path.write_bytes((photos / "0" / "09.png").read_bytes())
    assert command("index", "update", built, path) == 0
    status = path.stat()
    path.write_bytes((photos / "1" / "13.png").read_bytes().ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))  # as a file system with coarse times leaves it
    encoded.clear()
    command("index", "update", built, path)
    assert encoded == ["03.png"]


def test_images_are_added_under_their_ids_and_removed_by_them(built, photos, tmp_path, capsys):
    save(tmp_path / "outside.png", 50)
    save(photos / "1" / "inside.png", 51)
    (tmp_path / "more.csv").write_text(
        "path,id,year,author\n1/inside.png,mine,2024,Ü\n1/01.png,renamed,2025,\nnone.png,x,1,\n"
    )
    images = (tmp_path / "outside.png", photos / "1" / "inside.png", photos / "1" / "01.png")
    assert command("index", "add", built, *images, "--metadata", tmp_path / "more.csv") == 0
    told = capsys.readouterr()
    assert told.out == f"3 added; 26 images; {built}\n"  # an image under another id is another one
    assert "not in the index: 1 of the metadata, such as x" in told.err
    assert {str(tmp_path / "outside.png"), "mine", "renamed"} <= set(ids(built))
    assert "1/01.png" not in ids(built)
    with IndexFolder(built).snapshot("author = 'Ü'") as state:
        assert list(state.ids) == ["mine"]
    (tmp_path / "gone.txt").write_text("n0\nn4\n")
    assert command("index", "remove", built, "mine", "--from", tmp_path / "gone.txt") == 0
    assert "3 removed; 23 images" in capsys.readouterr().out
    (tmp_path / "years.csv").write_text("id,year\nrenamed,1999\n")
    assert command("index", "update", built, "--metadata", tmp_path / "years.csv") == 0
    with IndexFolder(built).snapshot("year < 2000") as state:
        assert list(state.ids) == ["renamed"]


def test_an_index_is_compacted_converted_merged_exported_and_described(itq, built, photos, tmp_path, capsys):
    assert command("index", "remove", built, "n0") == 0
    assert command("index", "compact", built) == 0
    assert command("index", "build", itq, photos / "0", "-o", tmp_path / "old.index") == 0
    assert command("index", "convert", tmp_path / "old.index", tmp_path / "new.index") == 0
    capsys.readouterr()
    assert command("index", "update", tmp_path / "new.index", photos / "0") == 0
    assert capsys.readouterr().out.startswith("8 changed; 8 images")
    assert command("index", "merge", built, tmp_path / "new.index", "-o", tmp_path / "both.index") == 0
    assert "31 images" in capsys.readouterr().out
    assert command("index", "info", tmp_path / "both.index", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["images"], about["columns"], about["root"]) == (31, ["year"], str(photos))
    assert command("index", "info", built) == 0
    assert "segments 1, with 0 deleted rows" in capsys.readouterr().out
    query = photos / "1" / "01.png"
    assert found(capsys, tmp_path / "both.index", query, "--top", 3)[0][0][1] == 0
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    assert command("export", built, "--to", "parquet", "-o", tmp_path / "my.parquet") == 0
    assert pyarrow.parquet.read_table(tmp_path / "my.parquet")["path"].to_pylist()[:2] == ["0/03.png", "0/06.png"]


def test_an_index_with_its_own_hash_can_be_moved_and_merged(itq, photos, tmp_path, capsys, monkeypatch):
    def learned(images, target, **_):
        for suffix in (".json", ".safetensors"):
            shutil.copy(itq.with_suffix(suffix), target.with_suffix(suffix))
        return target

    monkeypatch.setattr("hashzoo.retrieval.own_images.fit", learned)
    assert command("index", "build", photos, "-o", tmp_path / "my.index", "--folder", "--backbone", "pixels") == 0
    assert not list(tmp_path.glob("my.index.*"))
    (tmp_path / "my.index").rename(tmp_path / "moved.index")
    save(photos / "0" / "new.png", 40)
    assert command("index", "update", tmp_path / "moved.index", photos) == 0
    query = photos / "0" / "new.png"
    assert found(capsys, tmp_path / "moved.index", query, "--top", 1) == [[("0/new.png", 0)]]
    assert command("index", "merge", tmp_path / "moved.index", tmp_path / "moved.index", "-o", tmp_path / "c") == 0
    shutil.rmtree(tmp_path / "moved.index")
    assert found(capsys, tmp_path / "c", query, "--top", 1) == [[("0/new.png", 0)]]


def test_an_update_that_stops_changes_nothing(built, photos, monkeypatch, capsys):
    save(photos / "0" / "new.png", 40)

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    before = ids(built)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "_encode_tensors", interrupted)
        assert command("index", "update", built, photos) == 130
    (photos / "0" / "00.png").write_bytes(b"broken")
    code, why = refused(capsys, "index", "update", built, photos, "--on-bad-image", "error")
    assert (code, "00.png does not decode" in why, ids(built)) == (3, True, before)
    with IndexFolder(built).writing():
        code, why = refused(capsys, "index", "add", built, photos)
        assert (code, "another process is changing" in why) == (3, True)


def test_a_search_with_codes_in_a_new_process_imports_no_torch(built, tmp_path):
    np.save(tmp_path / "codes.npy", np.zeros((1, 2), np.uint8))
    code = (
        "import sys\nfrom hashzoo.cli.main import main\n"
        "try:\n"
        f"    main(['search', {str(built)!r}, '--codes', {str(tmp_path / 'codes.npy')!r}, '--where', 'year > 2001'])\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numba', 'pandas', 'sklearn', 'pydantic') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert len(done.stdout.splitlines()) > 10


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["index", "update", "{my}"], 2, "there is nothing to update"),
        (["index", "remove", "{my}"], 2, "name the ids of images to remove"),
        (["index", "remove", "{my}", "n0", "nobody"], 2, "has no image nobody; nothing was removed"),
        (["index", "remove", "{my}", "--from", "none.txt"], 2, "there is no file none.txt"),
        (["index", "add", "{file}", "{photos}"], 2, "is a file, not an index folder; hashzoo index convert"),
        (["index", "info", "none"], 2, "there is no index folder none"),
        (["index", "convert", "{my}", "x"], 2, "name an index file"),
        (["index", "build", "{photos}", "-o", "{my}", "--folder"], 2, "exists; change it with hashzoo index update"),
        (["index", "build", "{photos}", "-o", "x", "--root", "{photos}"], 2, "--root is for an index folder"),
        (["index", "build", "{itq}", "{photos}", "-o", "x", "--folder", "--engine", "faiss-ivf"], 2, "has no lists"),
        (["index", "build", "{itq}", "--vectors", "v.npy", "-o", "x", "--folder"], 2, "--folder is for images"),
        (["index", "update", "{my}", "{photos}", "--metadata", "none.csv"], 2, "there is no file none.csv"),
        (["search", "{my}"], 2, "name a QUERY"),
        (["search", "{my}", "--like", "nobody"], 2, "has no image nobody"),
        (["search", "{my}", "--codes", "none.npy"], 2, "there is no file none.npy"),
        (["search", "{my}", "--codes", "{bad}"], 2, "must be bool (Q, 16), or uint8 (Q, 2)"),
        (["search", "{my}", "--like", "n0", "--where", "yeer > 1"], 2, "no such column: yeer; write one expression of"),
        (["search", "{my}", "{photos}/1/01.png", "--where", "1;"], 2, "contains ';'"),
        (["search", "{my}", "{photos}/1/01.png", "--like", "n0"], 2, "stand in place of QUERY"),
        (
            ["search", "{my}", "{photos}/1/01.png", "{photos}/1/01.png", "--op", "union", "--radius", 1],
            2,
            "--radius is",
        ),
        (["search", "{file}", "{photos}/1/01.png", "--where", "1"], 2, "is a file, not an index folder"),
        (["search", "{photos}", "{photos}/1/01.png"], 2, "is a folder without an index"),
    ],
)
def test_what_cannot_be_done_is_one_line(given, code, says, shared, capsys, monkeypatch):
    monkeypatch.chdir(shared["photos"].parent)
    found, error = refused(capsys, *(str(word).format(**shared) for word in given))
    assert (found, says in error) == (code, True), error
    assert not (shared["photos"].parent / "x").exists()


@pytest.fixture(scope="module")
def shared(itq, tmp_path_factory):
    """An index folder and an index file that no test changes."""
    place = tmp_path_factory.mktemp("shared")
    (place / "photos" / "1").mkdir(parents=True)
    for row in range(3):
        save(place / "photos" / "1" / f"{row:02}.png", row)
    np.save(place / "bad.npy", np.zeros((1, 3), np.uint8))
    (place / "ids.csv").write_text("path,id\n1/00.png,n0\n")
    build = ("index", "build", itq, place / "photos", "-o")
    assert command(*build, place / "my", "--folder", "--root", place / "photos", "--metadata", place / "ids.csv") == 0
    assert command(*build, place / "file") == 0
    return {
        "my": place / "my",
        "file": place / "file",
        "photos": place / "photos",
        "itq": itq,
        "bad": place / "bad.npy",
    }


def test_codes_of_another_method_are_refused(built, photos, tmp_path, capsys):
    other = cell_of(tmp_path / "r", "itq", seeds=[1])
    assert command("encode", other, photos / "0", "-o", tmp_path / "codes.npz") == 0
    code, why = refused(capsys, "search", built, "--codes", tmp_path / "codes.npz")
    assert (code, "was encoded with another method" in why) == (3, True)
    code, why = refused(capsys, "search", built, photos / "1" / "01.png", "--run", other)
    assert (code, "built with another method" in why) == (3, True)
    save(photos / "0" / "new.png", 40)
    with pytest.raises(EnvironmentFailure, match="built with another method"):
        hashzoo.update_index(built, [photos], run=other)
    assert hashzoo.update_index(built, [photos], delete=True).added == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,year\na,1\n", "has no column id or path"),
        ("", "has no column id or path"),
        ("id,year,Year\na,1,2\n", "has two columns year"),
        ("id,year\na,1,2\n", "the line of a has 3 fields, not 2"),
        ("id,year\na,1\na,2\n", "names id a twice"),
        ("id,_place\na,1\n", "'_place' has a name that the index uses"),
        ("id,\na,1\n", "has no name"),
        ('id,year\n"a,1\n', "is not a CSV file"),
        (b"id,year\n\xff,1\n", "is not UTF-8"),
    ],
)
def test_a_table_of_metadata_that_can_be_read_in_two_ways_is_refused(shared, tmp_path, text, says):
    file = tmp_path / "about.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=says):
        hashzoo.update_index(shared["my"], [shared["photos"]], metadata=file)
