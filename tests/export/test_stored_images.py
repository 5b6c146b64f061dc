"""Images in tables and tar archives: encoded as the same images in files are, and named in the codes."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from hashzoo.data import image_containers
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export.code_folder import CodeFolder
from hashzoo.export.items import items_of
from hashzoo.retrieval import code_file
from hashzoo.retrieval.encoder import load_encoder
from hashzoo.retrieval.vector_encoder import load_vector_encoder
from tests.embedded import COUNT, embed
from tests.in_process import command
from tests.measured import cell_of

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
IMAGES = 150  # images: more than two batches
IDS = [f"id {row}" for row in range(IMAGES)]


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return cell_of(tmp_path_factory.mktemp("images"), "itq")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images in files, named as they are ordered."""
    folder = tmp_path_factory.mktemp("files")
    for row in range(IMAGES):
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
            folder / f"{row:03}.png"
        )
    return folder


@pytest.fixture(scope="module")
def expected(cell, files):
    """The packed codes of the images."""
    stored, left_out = encoded(cell, [files])
    assert not left_out
    return stored.packed_code().rows


def encoded(cell, sources, *columns):
    """The codes of a collection, and the messages for images that were left out."""
    encoder = load_encoder(cell)
    items = items_of(encoder, sources, False, *columns)
    return items.part(0, len(items)).encode(encoder, None)


def contents(files):
    return [file.read_bytes() for file in sorted(files.iterdir())]


def table_of(files, kind):
    """A table of the images: their bytes, their paths, or both as Hugging Face stores them; with ids and captions."""
    data, paths = contents(files), [file.name for file in sorted(files.iterdir())]
    images = {
        "bytes": data,
        "path": paths,
        "struct": [{"bytes": one, "path": None} for one in data],
        "struct of paths": [{"bytes": None, "path": one} for one in paths],
    }[kind]
    if kind.startswith("struct"):
        images = pyarrow.array(images, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    column = "path" if kind == "path" else "image"
    return pyarrow.table({"key": IDS, column: images, "caption": ["a photo"] * IMAGES})


def write(table, folder, form):
    """A table in a form, in several blocks."""
    file = folder / f"table{form}"
    if form == ".parquet":
        pyarrow.parquet.write_table(table, file, row_group_size=40)
    elif form == ".feather":
        with pyarrow.ipc.new_file(str(file), table.schema) as writer:
            writer.write_table(table, max_chunksize=40)
    elif form == ".arrow":
        with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table, max_chunksize=40)
    elif form == ".lance":
        lancedb = pytest.importorskip("lancedb")
        lancedb.connect(str(folder)).create_table("table", table)
    elif form == "":
        file.mkdir()
        for number, part in enumerate((table.slice(0, 70), table.slice(70))):
            write(part, file, ".arrow").rename(file / f"data-{number}.arrow")
        listed = [{"filename": f"data-{number}.arrow"} for number in range(2)]
        (file / "state.json").write_text(json.dumps({"_data_files": listed}))
    return file


def pack_tar(files, file, prefix=""):
    with tarfile.open(file, "w") as archive:
        for path in sorted(files.iterdir()):
            archive.add(path, f"{prefix}{path.name}")
            note = tarfile.TarInfo(f"{prefix}{path.stem}.json")
            archive.addfile(note, io.BytesIO())
    return file


@pytest.mark.parametrize("form", [".parquet", ".feather", ".arrow", ".lance", ""])
@pytest.mark.parametrize("kind", ["bytes", "path", "struct", "struct of paths"])
def test_a_table_has_the_codes_of_its_images(cell, files, expected, tmp_path, form, kind):
    if form in (".lance", "") and kind != "struct":
        pytest.skip("forms differ in how they are read, not in what rows hold")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)  # paths are relative to the folder of the table
    table = write(table_of(files, kind), tmp_path, form)
    stored, left_out = encoded(cell, [table])
    assert (list(left_out), list(stored.paths)) == ([], [f"{table.name}/{row}" for row in range(IMAGES)])
    assert np.array_equal(stored.packed_code().rows, expected)
    stored, _ = encoded(cell, [table], "", "key")
    assert list(stored.paths) == IDS


def test_runs_of_a_collection_cross_blocks_and_files(cell, files, expected, tmp_path):
    table, archive = write(table_of(files, "bytes"), tmp_path, ".parquet"), pack_tar(files, tmp_path / "b.tar")
    encoder, names, codes = load_encoder(cell), [], []
    items = items_of(encoder, [table, archive])
    assert len(items) == 2 * IMAGES
    for start in range(0, len(items), 37):
        stored, _ = items.part(start, min(start + 37, len(items))).encode(encoder, None)
        names += stored.paths
        codes.append(stored.packed_code().rows)
    assert np.array_equal(np.concatenate(codes), np.concatenate([expected, expected]))
    assert names[IMAGES - 1 : IMAGES + 1] == [f"table.parquet/{IMAGES - 1}", "b.tar/000.png"]
    assert len(set(names)) == 2 * IMAGES


def test_the_command_encodes_a_folder_of_archives_and_continues_it(cell, files, expected, tmp_path, capsys):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        pack_tar(files, folder / f"{number}.tar", "deep/")
    line = ("encode", cell, folder, "-o", tmp_path / "codes", "--shard-rows", 100)
    assert command(*line) == 0
    assert "300 images; 3 files; written" in capsys.readouterr().out
    (tmp_path / "codes" / "part-00001.parquet").unlink()
    assert command(*line) == 0
    assert "3 files, 2 of them kept" in capsys.readouterr().out
    codes = np.concatenate([part.packed_code().rows for part in CodeFolder(tmp_path / "codes").parts()])
    assert np.array_equal(codes, np.concatenate([expected, expected]))
    pack_tar(files, folder / "2.tar")
    assert command(*line) == 2
    assert "other or changed items" in capsys.readouterr().err
    assert command("encode", cell, folder, "-o", tmp_path / "one.npz") == 0
    assert code_file.read(tmp_path / "one.npz").paths[0] == "0.tar/deep/000.png"


def test_a_folder_with_images_of_its_own_stands_for_these(files, tmp_path):
    pack_tar(files, tmp_path / "all.tar")
    assert image_containers.find_containers([tmp_path]) == [tmp_path / "all.tar"]
    shutil.copy(files / "000.png", tmp_path / "own.png")
    assert image_containers.find_containers([tmp_path]) == []


def test_an_image_that_does_not_decode_is_named_and_others_have_rows(cell, files, tmp_path, capsys):
    data = contents(files)
    data[3], data[70], data[71] = data[3][:40], None, b""
    table = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": data}), table)
    line = ("encode", cell, table, "-o", tmp_path / "codes", "--shard-rows", 100)
    assert command(*line) == 1
    told = capsys.readouterr()
    for reason in ("t.parquet/3 does not decode as an image: damaged", "t.parquet/70 has no image", "71 does not"):
        assert reason in told.err
    assert f"{IMAGES - 3} images, 3 left out" in told.out
    assert command(*line[:-4], "-o", tmp_path / "strict", *line[-2:], "--on-bad-image", "error") == 3


def test_of_several_columns_and_endings_one_is_named(files, tmp_path):
    data = contents(files)
    file = tmp_path / "t.parquet"
    table = pyarrow.table({"left": data, "right": data, "label": [1] * IMAGES, "key": ["x"] * IMAGES})
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(UsageError, match="name one with --column: left, right, label, key"):
        image_containers.open_container(file)
    assert len(image_containers.open_container(file, "right")) == IMAGES
    with pytest.raises(UsageError, match=r"has no column .lef.; it has left"):
        image_containers.open_container(file, "lef")
    with pytest.raises(UsageError, match=r"the column label of .* is int64, and images are bytes or paths"):
        image_containers.open_container(file, "label")
    with pytest.raises(UsageError, match=r"has no column .no. for ids"):
        image_containers.open_container(file, "left", "no")
    with pytest.raises(UsageError, match=r"the column left of .* is binary; ids are text or integers"):
        image_containers.open_container(file, "left", "left")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for row in range(3):
            for ending in ("jpg", "mask.png", "json"):
                archive.addfile(tarfile.TarInfo(f"{row}.{ending}"), io.BytesIO())
        archive.addfile(tarfile.TarInfo("._0.jpg"), io.BytesIO())
    assert len(image_containers.open_container(tmp_path / "t.tar")) == 6
    assert len(image_containers.open_container(tmp_path / "t.tar", "jpg")) == 3
    with pytest.raises(UsageError, match=r"has no member that ends in \.gif"):
        image_containers.open_container(tmp_path / "t.tar", "gif")
    with pytest.raises(UsageError, match="whose images have names; leave out --ids"):
        image_containers.open_container(tmp_path / "t.tar", "jpg", "key")


def test_ids_that_repeat_in_all_tables_or_are_missing_are_refused(cell, files, tmp_path):
    encoder, data = load_encoder(cell), contents(files)[:4]
    for name, ids in (("a", [1, 2, 3, 4]), ("b", [5, 6, 2, 8]), ("c", [9, None, 10, 11])):
        pyarrow.parquet.write_table(pyarrow.table({"image": data, "key": ids}), tmp_path / f"{name}.parquet")
    a, b, c = (tmp_path / f"{name}.parquet" for name in "abc")
    assert items_of(encoder, [a], False, "", "key").part(1, 3).encode(encoder, None)[0].paths == ["2", "3"]
    with pytest.raises(UsageError, match=r"the id 2 is that of two rows, of .*b.parquet and of .*a.parquet; give"):
        items_of(encoder, [a, b], False, "", "key")
    with pytest.raises(UsageError, match=r"row 1 of .*c.parquet has no id in key"):
        items_of(encoder, [a, c], False, "", "key")


@pytest.mark.parametrize("form", [".parquet", ".feather", ".arrow", ".tar"])
@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_a_file_that_is_cut_is_named(files, tmp_path, form, cut):
    file = (
        pack_tar(files, tmp_path / "table.tar") if form == ".tar" else write(table_of(files, "bytes"), tmp_path, form)
    )
    data = file.read_bytes()
    if form in (".tar", ".arrow"):  # these end in zeros, of which some can be missing
        data = data.rstrip(b"\0")
    file.write_bytes(data[: int(cut * len(data)) if 0 < cut < 1 else cut])
    with pytest.raises((EnvironmentFailure, UsageError), match=r"table\..* (is damaged|cannot be read|has no rows)"):
        list(image_containers.open_container(file).run(0, IMAGES))


@pytest.mark.parametrize("damage", [b"x", bytes(512)])
def test_a_tar_archive_with_a_damaged_header_is_not_taken_for_a_shorter_one(files, tmp_path, damage):
    file = pack_tar(files, tmp_path / "a.tar")
    place = image_containers.open_container(file).run(70, 71).members[0].start - 512
    data = bytearray(file.read_bytes())
    data[place : place + len(damage)] = damage
    file.write_bytes(data)
    with pytest.raises(EnvironmentFailure, match=r"a.tar is damaged .*; copy or write it again"):
        image_containers.open_container(file)


def test_other_archives_and_mixed_sources_are_refused(cell, files, tmp_path):
    archive, encoder = pack_tar(files, tmp_path / "a.tar"), load_encoder(cell)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))
    with pytest.raises(UsageError, match=r"a.tar.gz is compressed.*unpack it to a .tar"):
        image_containers.open_container(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "twice.tar", "w") as twice:
        for _ in range(2):
            twice.add(files / "000.png", "x.png")
    with pytest.raises(UsageError, match=r"twice.tar has two images x.png"):
        image_containers.open_container(tmp_path / "twice.tar")
    with pytest.raises(UsageError, match=r"a.tar has images in it, and .* is none such; encode them in two calls"):
        items_of(encoder, [archive, files])
    with pytest.raises(UsageError, match="there is no file"):
        items_of(encoder, [tmp_path / "no.tar"])
    with pytest.raises(UsageError, match="--ids is for tables and archives, and these are image files"):
        items_of(encoder, [files], False, "", "key")


def test_features_and_vectors_are_kept_beside_codes(cell, files, tmp_path, capsys):
    made = embed(tmp_path)
    wide = tmp_path / "table.parquet"
    rows, noise = np.load(made.vectors), np.zeros((COUNT, 3), np.float32)
    columns = {"other": list(noise), "mine": list(rows)}
    pyarrow.parquet.write_table(pyarrow.table(columns), wide)
    vectors, images = load_vector_encoder(made.cell), load_encoder(cell)
    for one, source, column, name in ((made.cell, wide, ("--column", "mine"), "v"), (cell, files, (), "i")):
        line = ("encode", one, source, *column, "-o", tmp_path / name, "--shard-rows", 100)
        assert command(*line, "--vectors") == 0
        assert command(*line) == 2
        assert "holds codes of another choice of --vectors" in capsys.readouterr().err
        assert command("export", tmp_path / name, "--to", "parquet", "-o", tmp_path / f"{name}.parquet") == 0
    kept = np.array(pyarrow.parquet.read_table(tmp_path / "v.parquet").column("vector").to_pylist(), np.float32)
    opened = vectors.open(made.vectors)
    assert np.array_equal(kept, opened.numbers(opened.rows))
    kept = np.array(pyarrow.parquet.read_table(tmp_path / "i.parquet").column("vector").to_pylist(), np.float32)
    method = images.trained.method
    pixels = [images._prepare(file) for file in sorted(files.iterdir())]
    assert np.allclose(kept, [method.backbone(one[None]).pooled[0].numpy() for one in pixels])
    assert command("encode", cell, files, "-o", tmp_path / "x.npz", "--vectors") == 2
    assert "are for --shard-rows" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_encodes_tables_and_archives_to_the_same_bytes(cell, files, tmp_path):
    if not find_spec("ray"):  # not imported here: the launcher sets what it reads then
        pytest.skip("Ray is not installed")
    table, archive = write(table_of(files, "struct"), tmp_path, ".parquet"), pack_tar(files, tmp_path / "b.tar")
    for name, more in (("here", ()), ("ray", ("--launcher", "ray", "--jobs", 2))):
        line = ("encode", cell, table, archive, "-o", tmp_path / name, "--shard-rows", 70, "--vectors", *more)
        assert command(*line) == 0
    here, there = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir() if file.name != ".lock"}
        for name in ("here", "ray")
    )
    assert here == there
    assert len(here) == 6
