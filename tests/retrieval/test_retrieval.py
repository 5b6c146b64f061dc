"""Trained methods at work: images are encoded, indexed and searched, on the command line and from Python."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hashzoo
from hashzoo.cli.main import main
from hashzoo.data.transforms import resize
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.scoring import encode
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import pack, unpack
from hashzoo.registry import zoo
from hashzoo.retrieval import code_file, engines, image_index
from hashzoo.retrieval.code_file import CodeCollector
from hashzoo.retrieval.encoder import Encoder
from hashzoo.types import Input
from tests.measured import cell_of

DATA = zoo.load_plugins().dataset("digits.small").factory()
COUNT = 40  # images in the folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def itq(results):
    return cell_of(results, "itq")


@pytest.fixture(scope="module")
def two_levels(results):
    return cell_of(results, "two-level-cam", backbone="tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Real images of digits, the first of the database, by their rows."""
    folder = tmp_path_factory.mktemp("photos")
    for row in range(COUNT):
        (folder / f"{row % 3}").mkdir(exist_ok=True)
        Image.fromarray(DATA.database.images[row, 0].numpy()).save(folder / f"{row % 3}" / f"{row:02}.png")
    return folder


@pytest.fixture(scope="module")
def built(itq, photos, tmp_path_factory):
    file = tmp_path_factory.mktemp("built") / "my.index"
    command("index", "build", itq, photos, "-o", file)
    return file


def command(*arguments: object) -> int:
    """The exit code of ``hashzoo ARGUMENTS``."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit code, and the one line that says why."""
    capsys.readouterr()
    code = command(*arguments)
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    return code, error


def test_images_from_files_have_the_codes_that_the_method_was_measured_with(itq, photos):
    encoder = hashzoo.load_encoder(itq)
    expected = encode(encoder.trained.run, encoder.trained.method, DATA.database.take(torch.arange(COUNT)))["code"]
    files = [photos / f"{row % 3}" / f"{row:02}.png" for row in range(COUNT)]
    assert torch.equal(encoder.encode(files)["code"], expected)
    assert torch.equal(encoder.encode(str(files[3]))["code"], expected[3:4])
    assert torch.equal(encoder.encode(Image.open(files[3]))["code"], expected[3:4])
    assert torch.equal(encoder.encode(photos / "0")["code"], expected[::3])


def test_more_images_than_a_batch_keep_their_order(itq, photos):
    encoder = hashzoo.load_encoder(itq)
    files = [photos / f"{row % 3}" / f"{row:02}.png" for row in range(COUNT)] * 4
    one = encoder.encode(files[:COUNT])["code"]
    assert torch.equal(encoder.encode(files)["code"], one.repeat(4, 1))


def test_python_searches_images_among_images(itq, photos):
    encoder = hashzoo.load_encoder(itq)
    ranking = encoder.search(photos / "1" / "04.png", photos / "1", k=3)
    assert (ranking.rows[0, 0], ranking.distances[0, 0]) == (1, 0)  # 01, 04, ...


def test_each_image_of_an_index_finds_itself(built, photos):
    index = hashzoo.open_index(built)
    assert (len(index), index.engine) == (COUNT, "exact")
    for row in (0, 7, 39):
        (hits,) = index.search(index.path(row), k=5)
        assert hits[0].distance == 0
        assert row in [hit.row for hit in hits if hit.distance == 0]
        assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
        assert index.path(row).is_file()
        assert torch.equal(index.codes(row)["code"], index.encoder.encode(index.path(row))["code"])


def test_what_search_prints_is_what_the_codes_say(built, photos, capsys):
    query = photos / "0" / "00.png"
    assert command("search", built, query, "--top", 7, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    encoder = hashzoo.open_index(built).encoder
    asked, stored = encoder.encode(query)["code"], encoder.encode(photos)["code"]
    distances = (asked != stored).sum(1)
    order = distances.sort(stable=True).indices[:7]
    assert [hit["row"] for hit in answer["found"]] == order.tolist()
    assert [hit["distance"] for hit in answer["found"]] == distances[order].tolist()
    assert command("search", built, query, "--top", 2) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[2].split() == ["1", "0", str(query)]


def test_a_method_with_two_codes_is_searched_by_its_own_cascade(two_levels, photos, tmp_path, capsys):
    assert command("index", "build", two_levels, photos, "-o", tmp_path / "two.index") == 0
    assert "global: 16 bits, local: 256 bits" in capsys.readouterr().out
    index = hashzoo.open_index(tmp_path / "two.index")
    encoder = index.encoder
    seen, where = encoder.heatmaps([Image.open(photos / "1" / "01.png")])
    assert (seen.shape, where.shape) == ((1, 1, 8, 8), (1, 8, 8))
    codes = encoder.encode(photos)
    own = encoder.trained.method.index()
    own.add(codes)
    query = photos / "2" / "02.png"
    expected = own.search(encoder.encode(query), 5)
    assert [hit.row for hit in index.search(query, 5)[0]] == expected.rows[0].tolist()
    code, why = refused(capsys, "index", "build", two_levels, photos, "-o", tmp_path / "x", "--engine", "faiss-flat")
    assert (code, "use exact" in why) == (2, True)


@pytest.fixture(scope="module")
def grains(results, photos, tmp_path_factory):
    """An index of a method with a joint code of 16 bits, and 12 for each of three grains."""
    cell = cell_of(results, "multigrain", backbone="tiny", set={"multigrain": {"grain_bits": 12, "warmup": 1.0}})
    file = tmp_path_factory.mktemp("grains") / "my.index"
    assert command("index", "build", cell, photos, "-o", file) == 0
    return file


def found(capsys, *arguments):
    assert command("search", *arguments, "--top", 6, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    return answer["engine"], [(hit["row"], hit["distance"]) for hit in answer["answers"][0]["found"]]


def ordered(distances):
    return sorted(enumerate(distances), key=lambda pair: (pair[1], pair[0]))[:6]


def test_a_search_ranks_by_the_grains_that_it_names_with_their_weights(grains, photos, capsys):
    query = photos / "2" / "02.png"
    index = hashzoo.open_index(grains)
    stored = [{name: code[0].tolist() for name, code in index.codes(row).items()} for row in range(COUNT)]
    asked = {name: code[0].tolist() for name, code in index.encoder.encode(query).items()}
    bits = {"code": 16, "fine": 12, "middle": 12, "coarse": 12}
    assert {name: len(code) for name, code in stored[0].items()} == bits
    assert code_file.read(grains).packed_code().name == "code"  # what is exported if no code is named

    def differing(name, row):
        return sum(a != b for a, b in zip(asked[name], stored[row][name], strict=True))

    for name, arguments in (("code", []), ("fine", ["--grain", "fine"]), ("coarse", ["--grain", "coarse=3"])):
        expected = ordered([differing(name, row) for row in range(COUNT)])
        assert found(capsys, grains, query, *arguments)[1] == expected
    mixed = [0.5 * differing("fine", row) / 12 + 2 * differing("code", row) / 16 for row in range(COUNT)]
    engine, hits = found(capsys, grains, query, "--grain", "fine=0.5", "--grain", "code=2", "--grain", "middle=0")
    assert engine == "exact"
    assert [distance for _, distance in hits] == pytest.approx([distance for _, distance in ordered(mixed)], abs=1e-6)
    assert [row for row, _ in hits] == [row for row, _ in ordered([np.float32(value) for value in mixed])]
    again = index.by({"fine": 0.5, "code": 2}).search(query, 6)[0]
    assert [hit.row for hit in again] == [row for row, _ in hits]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--grain", "fines"], "there is no code 'fines'; there are: coarse, code, fine, middle"),
        (["--grain", "fine=-1"], "the weight of fine is -1; choose a finite number of at least 0"),
        (["--grain", "fine=nan"], "the weight of fine is nan; choose a finite number of at least 0"),
        (["--grain", "fine=0"], "no weight is positive: fine; give a code a weight above 0"),
        (["--grain", "fine=much"], "--grain fine=much: 'much' is not a number; write fine=0.5"),
        (["--grain", "fine", "--grain", "fine=2"], "--grain fine is given twice; leave out one"),
        (["--grain", "fine", "--grain", "code", "--engine", "faiss-flat"], "use exact"),
        (["--grain", "fine", "--engine", "faiss-ivf"], "the lists of the code 'code', not 'fine'; use exact"),
    ],
)
def test_grains_that_cannot_be_searched_are_refused(grains, photos, capsys, arguments, why):
    code, error = refused(capsys, "search", grains, photos / "2" / "02.png", *arguments)
    assert code == 2
    assert why in error


@pytest.mark.parametrize("operation", ["union", "intersection", "difference"])
def test_two_images_are_composed_as_the_method_composes_codes(built, photos, operation, capsys):
    a, b = photos / "0" / "00.png", photos / "1" / "01.png"
    assert command("search", built, a, b, "--op", operation, "--top", 4, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    encoder = hashzoo.open_index(built).encoder
    first, second, stored = (encoder.encode(p)["code"] for p in (a, b, photos))
    asked = {"union": first | second, "intersection": first & second, "difference": first & ~second}[operation]
    order = (asked != stored).sum(1).sort(stable=True).indices[:4]
    assert [hit["row"] for hit in answer["found"]] == order.tolist()


def test_a_page_shows_what_was_found_and_runs_nothing_of_a_name(itq, photos, tmp_path):
    odd = tmp_path / "<b onload=x>.png"
    odd.write_bytes((photos / "0" / "00.png").read_bytes())
    gone = tmp_path / "gone.png"
    gone.write_bytes(odd.read_bytes())
    assert command("index", "build", itq, tmp_path, "-o", tmp_path / "my.index") == 0
    gone.unlink()
    assert command("search", tmp_path / "my.index", odd, "--html", "-o", tmp_path / "found.html") == 0
    page = (tmp_path / "found.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "<b onload" not in page
    assert "&lt;b onload=x&gt;.png" in page
    assert "no image" in page
    assert "http" not in page.replace("http-equiv", "")


def test_damaged_images_are_named_and_left_out_or_stop_the_command(itq, photos, tmp_path, capsys):
    (tmp_path / "good.png").write_bytes((photos / "0" / "00.png").read_bytes())
    (tmp_path / "bad.png").write_bytes((photos / "0" / "00.png").read_bytes()[:40])
    (tmp_path / "notes.txt").write_text("no image")
    output = tmp_path / "my.index"
    assert command("index", "build", itq, tmp_path, "-o", output) == 1
    told = capsys.readouterr()
    assert f"left out: {tmp_path / 'bad.png'} does not decode" in told.err
    assert "1 image, 1 left out" in told.out
    assert hashzoo.open_index(output).path(0) == tmp_path / "good.png"
    output.unlink()
    code, why = refused(capsys, "index", "build", itq, tmp_path, "-o", output, "--on-bad-image", "stop")
    assert (code, "bad.png" in why, output.exists()) == (3, True, False)
    code, why = refused(capsys, "encode", itq, tmp_path / "bad.png", "-o", tmp_path / "x.npz")
    assert (code, "none of 1 images can be encoded" in why) == (3, True)


def test_image_files_that_are_not_decoded_are_named_and_sidecar_folders_are_counted(itq, photos, tmp_path, capsys):
    data = (photos / "0" / "00.png").read_bytes()
    for name in ("good.png", "IMG.CR2", "drawing.svg", "IMG_1", "@eaDir/good.png", "__MACOSX/._good.png", "a.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    output = tmp_path / "my.index"
    assert command("index", "build", itq, tmp_path, "-o", output) == 1
    told = capsys.readouterr()
    for line in (
        "IMG.CR2: camera RAW; export it as JPEG",
        "drawing.svg: a drawing; render it",
        "IMG_1: an image by its",
    ):
        assert f"left out: {tmp_path}/{line}" in told.err
    assert "passed over thumbnails and copies of other programs: @eaDir (1), __MACOSX (1)" in told.err
    assert "2 images, 3 left out" in told.out
    assert len(hashzoo.open_index(output)) == 2
    code, why = refused(capsys, "index", "build", itq, tmp_path, "-o", output, "--on-bad-image", "stop")
    assert code == 3
    assert "IMG.CR2: camera RAW; export it as JPEG (3 such files in total)" in why
    with pytest.raises(EnvironmentFailure, match=r"IMG\.CR2: camera RAW"):
        hashzoo.load_encoder(itq).encode(tmp_path)


def test_a_turned_image_has_the_code_of_the_upright_one(itq, photos, tmp_path):
    upright = Image.open(photos / "0" / "00.png").convert("RGB").resize((64, 64), Image.Resampling.NEAREST)
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # must be turned clockwise to stand upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    encoder = hashzoo.load_encoder(itq)
    a, b, c = (
        encoder.encode(x)["code"] for x in (tmp_path / "a.png", tmp_path / "b.png", Image.open(tmp_path / "b.png"))
    )
    assert torch.equal(a, b)
    assert torch.equal(a, c)


def test_links_that_lead_nowhere_or_in_a_circle_are_left_out(itq, photos, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "photos").symlink_to(photos / "0")
    assert command("index", "build", itq, folder, "-o", tmp_path / "my.index") == 1
    told = capsys.readouterr()
    assert [line.split()[2] for line in told.err.splitlines()] == [str(folder / "broken.jpg"), str(folder / "loop.jpg")]
    assert "14 images, 2 left out" in told.out


def test_a_strip_of_one_pixel_by_thousands_is_seen_in_its_middle():
    strip = torch.zeros(1, 60_000, 1, dtype=torch.uint8)
    strip[:, 30_000:] = 255
    made = resize(strip, Input(size=224, channels=3, crop=0.875))  # resized whole, it would take 12 GB
    assert made.shape == (3, 224, 224)
    assert made[:, 0].max() < 20
    assert made[:, -1].min() > 235


def test_an_image_that_was_only_begun_to_be_read_is_refused(itq, photos):
    half = Image.open(io.BytesIO((photos / "0" / "00.png").read_bytes()[:60]))
    with pytest.raises(EnvironmentFailure, match="does not decode"):
        hashzoo.load_encoder(itq).encode(half)


def test_a_device_without_end_is_no_image(built, capsys):
    with pytest.raises(SystemExit):
        main(["search", str(built), "/dev/zero"])
    assert capsys.readouterr().err == "hashzoo: /dev/zero does not decode as an image: not a regular file\n"


def test_an_interrupted_build_leaves_the_old_index(itq, photos, built, tmp_path, monkeypatch):
    file = tmp_path / "my.index"
    file.write_bytes(built.read_bytes())

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "_encode_tensors", interrupted)
    assert command("index", "build", itq, photos, "-o", file) == 130
    assert file.read_bytes() == built.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


def test_an_index_that_was_moved_is_told_where_its_cell_and_images_are(itq, photos, built, tmp_path, capsys):
    kept = code_file.read(built)
    about = {**kept.metadata, "root": "/gone", "run": {**kept.metadata["run"], "cell": "/gone/cell.json"}}
    code_file.write(tmp_path / "my.index", replace(kept, metadata=about))
    code, why = refused(capsys, "search", tmp_path / "my.index", photos / "0" / "00.png")
    assert (code, "name its new path with --run" in why) == (2, True)
    index = hashzoo.open_index(tmp_path / "my.index", run=itq, root=photos)
    assert index.search(photos / "0" / "00.png", 1)[0][0].path.is_file()


def test_an_index_is_refused_with_another_run(built, results, capsys, photos):
    other = cell_of(results, "itq", seeds=[1])
    code, why = refused(capsys, "search", built, photos / "0" / "00.png", "--run", other)
    assert (code, "built with another method" in why) == (3, True)


def test_a_damaged_index_is_refused_by_name_or_reads_as_it_was_written(built, tmp_path):
    whole, written, refusals = built.read_bytes(), code_file.read(built), []
    damaged = tmp_path / "my.index"
    for place in range(0, len(whole), len(whole) // 50):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = code_file.read(damaged)
        except EnvironmentFailure as error:
            refusals.append(str(error))
        else:  # a byte that says nothing, such as a date in the zip
            assert (found.metadata, found.paths) == (written.metadata, written.paths)
            np.testing.assert_array_equal(found.arrays["bits.code"], written.arrays["bits.code"])
    assert len(refusals) > 30
    assert all("my.index" in line for line in refusals)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ivf.of": np.full(2000, 10**6, np.int32)},
        {"ivf.of": np.full(2000, -1, np.int32)},
        {"ivf.of": np.zeros(1, np.int32)},
        {"ivf.centers": np.zeros((5, 1), np.uint8)},
        {"ivf.probes": np.array(10**6)},
    ],
)
def test_lists_that_do_not_fit_never_reach_faiss(listed, wrong):
    with pytest.raises(EnvironmentFailure, match="do not match its codes"):
        image_index.ImageIndex(replace(listed[0], arrays={**listed[0].arrays, **wrong}), listed[1])


def test_codes_of_another_type_are_refused(built, tmp_path):
    kept = code_file.read(built)
    wrong = {**kept.arrays, "bits.code": kept.arrays["bits.code"].astype(np.float32)}
    code_file.write(tmp_path / "my.index", replace(kept, arrays=wrong))
    with pytest.raises(EnvironmentFailure, match="does not match"):
        code_file.read(tmp_path / "my.index")


def test_half_an_index_is_refused_on_the_command_line(built, photos, tmp_path, capsys):
    (tmp_path / "my.index").write_bytes(built.read_bytes()[:-200])
    code, why = refused(capsys, "search", tmp_path / "my.index", photos / "0" / "00.png")
    assert (code, "create it again" in why) == (3, True)


def test_an_index_of_a_newer_hashzoo_is_refused(built, tmp_path, monkeypatch):
    monkeypatch.setattr(code_file, "SCHEMA", 2)
    code_file.write(tmp_path / "my.index", code_file.read(built))
    monkeypatch.undo()
    with pytest.raises(EnvironmentFailure, match="schema 2"):
        code_file.read(tmp_path / "my.index")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["encode", "nowhere.json", "{photos}", "-o", "x.npz"], 2, "there is no cell nowhere.json"),
        (["encode", "{results}", "{photos}", "-o", "x.npz"], 2, "name one cell"),
        (["encode", "{itq}", "nowhere", "-o", "x.npz"], 2, "there is no file or folder nowhere"),
        (["encode", "{itq}", "{empty}", "-o", "x.npz"], 2, "no images in"),
        (["encode", "{lone}", "{photos}", "-o", "x.npz"], 2, "--save-weights"),
        (["encode", "{itq}", "{photos}", "-o", "no/folder/x.npz"], 3, "cannot write"),
        (["encode", "nowhere.json", "{photos}", "-o", "no/folder/x.npz"], 3, "cannot write"),  # before anything else
        (["index", "build", "{itq}", "{photos}", "-o", "{empty}"], 2, "is a folder; name a file"),
        (["search", "{built}", "{photos}"], 2, "is a folder; name the query images"),
        (["search", "nowhere.index", "{photos}/0/00.png"], 2, "there is no file nowhere.index"),
        (["search", "{itq}", "{photos}/0/00.png"], 3, "not a file of codes (not an .npz file); create it again"),
        (["search", "{built}", "{photos}/0/00.png", "--root", "nowhere"], 2, "--root: there is no folder nowhere"),
        (["search", "{built}", "nowhere.png"], 2, "there is no file nowhere.png"),
        (["search", "{built}", "{itq}"], 3, "does not decode"),
        (["search", "{built}", "{built}", "--op", "union"], 2, "requires two images"),
        (["search", "{built}", "{photos}/0/00.png", "-o", "found.html"], 2, "add --html"),
        (["search", "{built}", "{photos}/0/00.png", "--engine", "faiss-ivf"], 2, "has no lists"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    arguments, code, says, itq, photos, built, results, tmp_path, capsys, monkeypatch
):
    if "faiss-ivf" in arguments:
        pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    lone = tmp_path / itq.name
    lone.write_bytes(itq.read_bytes())
    named = {
        "itq": itq,
        "photos": photos,
        "built": built,
        "results": results,
        "lone": lone,
        "empty": tmp_path / "empty",
    }
    found, error = refused(capsys, *(text.format(**named) for text in arguments))
    assert found == code, error
    assert says in error


def test_the_file_of_codes_is_plain_arrays(itq, photos, tmp_path):
    assert command("encode", itq, photos / "0", photos / "1" / "01.png", "-o", tmp_path / "codes.npz") == 0
    stored = np.load(tmp_path / "codes.npz", allow_pickle=False)
    paths = stored["paths"].tobytes().decode().split("\0")[:-1]
    assert paths == [f"0/{row:02}.png" for row in range(0, COUNT, 3)] + ["1/01.png"]
    about = json.loads(stored["about"].tobytes())
    assert about["codes"]["code"]["bits"] == 16
    codes = hashzoo.load_encoder(itq).encode([photos / path for path in paths])["code"].numpy()
    np.testing.assert_array_equal(unpack(stored["bits.code"], 16), codes)


def random_codes(items: int, bits: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 2, (8, bits)).astype(bool)
    return pack(centers[rng.integers(0, 8, items)] ^ (rng.random((items, bits)) < 0.1))


@pytest.mark.parametrize("bits", [12, 64])
def test_engines_find_the_same_neighbours_up_to_ties(bits):
    pytest.importorskip("faiss")
    codes = random_codes(3000, bits)
    queries, k = codes[::100], 20
    rows, distances = nearest(queries, codes, k)
    flat_rows, flat = engines.FlatEngine(codes).search(queries, k)
    np.testing.assert_array_equal(flat, distances)
    for mine, theirs, far in zip(rows, flat_rows, distances, strict=True):
        assert set(mine[far < far[-1]]) == set(theirs[far < far[-1]])  # of the last distance any may be there
    lists = engines.build_lists(codes, 20)
    found = engines.IVFEngine(codes, lists)
    near = found.search(queries, k)[1]
    assert (near <= distances[:, -1:]).mean() >= 0.95
    found.probes = len(lists.centers)
    np.testing.assert_array_equal(found.search(queries, k)[1], distances)


def test_the_engine_is_chosen_by_size_and_by_what_is_there(monkeypatch):
    pytest.importorskip("faiss")
    assert engines.select_engine("auto", engines.IVF_MIN_CODES - 1, "code") == "exact"
    assert engines.select_engine("auto", engines.IVF_MIN_CODES, "code") == "faiss-ivf"
    assert engines.select_engine("auto", engines.IVF_MIN_CODES, "") == "exact"
    monkeypatch.setenv("HASHZOO_NUMBA", "off")
    assert engines.select_engine("auto", 10, "code") == "faiss-flat"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert engines.select_engine("auto", engines.IVF_MIN_CODES, "code") == "exact"
    with pytest.raises(EnvironmentFailure, match=r"hashzoo\[search\]"):  # and not after hours of encoding
        engines.select_engine("faiss-ivf", 0, "code")


@pytest.fixture(scope="module")
def listed(itq):
    """Two thousand codes in lists, and the encoder that they pretend to be of."""
    pytest.importorskip("faiss")
    encoder, many = hashzoo.load_encoder(itq), CodeCollector()
    many.add({"code": torch.from_numpy(unpack(random_codes(2000, 16), 16))})
    paths = [Path(f"{row}.png") for row in range(2000)]
    return image_index.add_lists(many.finish(encoder.describe(), Path("/photos"), paths), "code", "faiss-ivf"), encoder


def test_lists_are_kept_with_the_index_and_searched_by_default(listed, tmp_path):
    file = tmp_path / "my.index"
    code_file.write(file, listed[0])
    index = hashzoo.open_index(file)
    assert index.engine == "faiss-ivf"
    query = {"code": index.codes(5)["code"]}
    assert index.search(query, 3)[0][0].distance == 0
    exact = hashzoo.open_index(file, engine="exact")
    assert exact.engine == "exact"
    assert exact.search(query, 3)[0][0].row == index.search(query, 2000)[0][0].row
    with pytest.raises(UsageError, match="64 images"):
        engines.build_lists(random_codes(10, 16))


def test_a_search_imports_none_of_the_slow_libraries(built, photos):
    script = (
        "import sys\n"
        "from hashzoo.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(sorted(sys.modules.keys() & {'torchvision', 'sklearn', 'pandas', 'matplotlib', 'jinja2'}))\n"
    )
    command = [sys.executable, "-c", script, "search", str(built), str(photos / "0" / "00.png"), "--top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert str(photos / "0" / "00.png") in done.stdout
