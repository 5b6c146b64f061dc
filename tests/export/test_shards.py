"""Codes of a large collection: a folder of files that any end leaves whole, and that the same call completes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from hashzoo.api.services import spreading_launcher
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export import shards
from hashzoo.export.code_folder import CodeFolder
from hashzoo.export.items import VectorPart, items_of
from hashzoo.retrieval import code_file
from hashzoo.retrieval.vector_encoder import load_any_encoder
from tests.embedded import COUNT, embed
from tests.in_process import command
from tests.measured import cell_of

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
ROWS = 100


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return embed(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="module")
def images_cell(tmp_path_factory):
    return cell_of(tmp_path_factory.mktemp("images"), "itq")


@pytest.fixture(scope="module")
def encoder(made):
    return load_any_encoder(made.cell)


def packed(folder):
    """The binary code of all rows of a folder."""
    return np.concatenate([part.packed_code().rows for part in CodeFolder(folder).parts()])


def contents(folder):
    """The bytes of all files by name, without the lock."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != ".lock"}


@pytest.fixture(scope="module")
def whole(made, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes") / "whole"
    shards.encode(encoder, items_of(encoder, [made.vectors]), folder, ROWS)
    return folder


def test_the_files_have_the_codes_of_one_file(made, whole, tmp_path):
    assert command("encode", made.cell, made.vectors, "-o", tmp_path / "codes.npz") == 0
    one, several = code_file.read(tmp_path / "codes.npz"), CodeFolder(whole)
    assert np.array_equal(one.packed_code().rows, packed(whole))
    assert len(several) == COUNT
    assert [name for part in several.parts() for name in part.paths] == list(one.paths)
    assert len(list(whole.glob("*.parquet"))) == -(-COUNT // ROWS)
    assert "query" not in several.metadata["codes"]


def test_lost_and_damaged_files_are_written_anew_and_others_kept(made, encoder, whole, tmp_path):
    folder, expected = tmp_path / "codes", contents(whole)
    for name, data in expected.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "part-00001.parquet").unlink()
    (folder / "part-00002.parquet").write_bytes(b"damaged")
    with pytest.raises(EnvironmentFailure, match=r"part-00002.parquet is damaged|cannot read"):
        packed(folder)
    found = shards.encode(encoder, items_of(encoder, [made.vectors]), folder, ROWS)
    assert (found.kept, found.files) == (found.files - 2, len(expected) - 1)
    assert contents(folder) == expected


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", range(4))
def test_a_process_that_ends_leaves_whole_files_and_the_next_one_the_same_bytes(
    made, encoder, whole, tmp_path, monkeypatch, stop
):
    items, encode = items_of(encoder, [made.vectors]), VectorPart.encode

    def stopping(part, *arguments):
        if part.start == stop * ROWS:
            raise StoppedError
        return encode(part, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(VectorPart, "encode", stopping)
        with pytest.raises(StoppedError):
            shards.encode(encoder, items, tmp_path / "codes", ROWS)
    with pytest.raises(UsageError, match=rf"has the codes of {stop * ROWS} items and is not complete"):
        CodeFolder(tmp_path / "codes")
    (tmp_path / "codes" / ".1-ab.tmp").write_bytes(b"half a file")  # as kill -9 leaves it
    assert shards.encode(encoder, items, tmp_path / "codes", ROWS).kept == stop
    assert contents(tmp_path / "codes") == contents(whole)


def test_another_method_other_items_and_other_files_are_refused(made, encoder, whole, tmp_path):
    items = items_of(encoder, [made.vectors])
    np.save(tmp_path / "other.npy", np.load(made.vectors) * 2 + 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    other = load_any_encoder(embed(tmp_path, "lsh").cell)
    for folder, method, given, rows, reason in (
        (whole, encoder, items_of(encoder, [tmp_path / "other.npy"]), ROWS, "other or changed items"),
        (whole, other, items, ROWS, "another method"),
        (whole, encoder, items, ROWS + 1, f"files of {ROWS} items"),
        (tmp_path / "full", encoder, items, ROWS, "holds other files"),
        (made.vectors, encoder, items, ROWS, "is a file"),
    ):
        with pytest.raises(UsageError, match=reason):
            shards.encode(method, given, folder, rows)
    with pytest.raises(UsageError, match="holds no codes of hashzoo encode"):
        CodeFolder(tmp_path / "full")


@pytest.fixture
def photos(tmp_path):
    """Seven images, of which 3.png is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for row in range(7):
        draw(folder / f"{row}.png", row)
    damage(folder / "3.png")
    return folder


def draw(file, seed):
    drawn = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(file)


def damage(file):
    file.write_bytes(file.read_bytes()[:200])


def test_damaged_images_are_named_once_and_all_others_have_a_row(images_cell, photos, tmp_path, capsys):
    for kept in (0, 4):
        assert command("encode", images_cell, photos, "-o", tmp_path / "codes", "--shard-rows", "2") == 1
        told = capsys.readouterr()
        assert told.err.count("3.png") == 1
        assert f"6 images, 1 left out; 4 files{f', {kept} of them kept' * bool(kept)};" in told.out
    (named,) = {tuple(name for part in CodeFolder(tmp_path / "codes").parts() for name in part.paths)}
    assert named == tuple(f"{row}.png" for row in range(7) if row != 3)


def test_a_call_that_ended_before_its_first_file_leaves_a_folder_for_another_collection(images_cell, photos, tmp_path):
    damage(photos / "0.png")
    line = ("encode", images_cell, photos, "-o", tmp_path / "codes", "--shard-rows", "2", "--on-bad-image")
    assert command(*line, "error") == 3
    (photos / "0.png").unlink()
    (tmp_path / "codes" / "part-00007.parquet").write_bytes(b"left by a killed process")
    assert command(*line, "skip") == 1
    assert sorted(contents(tmp_path / "codes")) == ["manifest.json", *(f"part-0000{n}.parquet" for n in range(3))]


def test_a_strict_call_encodes_files_again_that_left_out_images(images_cell, photos, tmp_path, capsys):
    line = ("encode", images_cell, photos, "-o", tmp_path / "codes", "--shard-rows", "2")
    assert command(*line) == 1
    assert command(*line, "--on-bad-image", "error") == 3
    assert "3.png" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("place", "name", "file"), [(Path, "read_bytes", "manifest.json"), (os, "open", ".lock")])
def test_a_folder_that_cannot_be_read_or_locked_is_named(
    encoder, made, whole, tmp_path, monkeypatch, place, name, file
):
    folder, real = tmp_path / "codes", getattr(place, name)
    shutil.copytree(whole, folder)

    def refusing(path, *arguments, **options):
        if Path(path) == folder / file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(place, name, refusing)
    with pytest.raises(EnvironmentFailure, match=rf"cannot (read|write to) {re.escape(str(folder))}.*permissions"):
        shards.encode(encoder, items_of(encoder, [made.vectors]), folder, ROWS)


def test_a_second_process_is_refused(encoder, made, whole, tmp_path):
    folder = tmp_path / "codes"
    folder.mkdir()
    with (
        filelock.FileLock(folder / ".lock"),
        pytest.raises(EnvironmentFailure, match=f"another process writes to {re.escape(str(folder))}"),
    ):
        shards.encode(encoder, items_of(encoder, [made.vectors]), folder, ROWS)


@pytest.mark.parametrize("target", ["parquet", "faiss", "faiss-ivf", "lancedb", "milvus", "pgvector"])
def test_a_folder_is_exported_as_one_file_is(made, images_cell, photos, tmp_path, target):
    pytest.importorskip({"faiss": "faiss", "faiss-ivf": "faiss", "lancedb": "lancedb"}.get(target, "pyarrow"))
    (photos / "3.png").unlink()
    for cell, source, kind in ((images_cell, photos, "images"), (made.cell, made.vectors, "vectors")):
        if target == "faiss-ivf" and kind == "images":
            continue  # too few of them for lists
        folder = tmp_path / kind
        folder.mkdir()
        for name, options in (("one.npz", ()), ("several", ("--shard-rows", 4 if kind == "images" else 400))):
            assert command("encode", cell, source, "-o", folder / name, *options) == 0
            to = folder / f"{name}.{target}"
            rooted = ("--root", tmp_path) if kind == "images" else ()
            assert command("export", folder / name, "--to", target, "-o", to, *rooted) == 0
        one, several = (exported(folder / f"{name}.{target}", target, kind) for name in ("one.npz", "several"))
        assert one == several
        assert len(one)


def exported(output, target, kind):
    """What a reader sees of an export."""
    if target == "parquet":
        return pyarrow.parquet.read_table(output).to_pylist()
    if target == "lancedb":
        import lancedb

        table = lancedb.connect(str(output)).open_table("images" if kind == "images" else "vectors")
        return table.to_arrow().to_pylist()
    if target == "milvus":
        return [
            row for file in sorted(output.glob("*.parquet")) for row in pyarrow.parquet.read_table(file).to_pylist()
        ]
    if target == "faiss":
        return output.read_bytes(), output.with_name(f"{output.name}.paths").read_bytes()
    return {file.name: file.read_bytes() for file in output.iterdir() if file.name != "manifest.json"}


def test_a_launcher_that_runs_cells_only_and_options_without_one_are_refused(made, tmp_path, capsys):
    line = ("encode", made.cell, made.vectors, "-o", tmp_path / "codes")
    assert command(*line, "--launcher", "ray") == 2
    assert "add it, or leave them out" in capsys.readouterr().err
    assert command(*line, "--shard-rows", ROWS, "--jobs", 2) == 2
    assert "are for --launcher" in capsys.readouterr().err
    assert command(*line, "--shard-rows", ROWS, "--launcher", "local") == 2
    assert "launcher local runs cells only; use ray" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_encodes_the_same_bytes_when_one_of_two_nodes_dies(made, encoder, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = cluster.add_node(num_cpus=1)
    launcher = spreading_launcher("ray", {"ray": {"address": cluster.address, "retries": 5}}, 2)
    ended = []

    def spread(parts):
        for result in launcher.spread(partial(shards.worker, *shards.sent(encoder)), parts):
            ended.append(result[0])
            if len(ended) == 2:  # both nodes have done one part, and each has another in work
                cluster.remove_node(lost, allow_graceful=False)
            yield result

    try:
        shards.encode(encoder, items_of(encoder, [made.vectors]), tmp_path / "codes", 40, spread=spread)
    finally:
        launcher.close()
        cluster.shutdown()
    assert sorted(ended) == list(range(-(-COUNT // 40)))
    shards.encode(encoder, items_of(encoder, [made.vectors]), tmp_path / "here", 40)
    assert contents(tmp_path / "codes") == contents(tmp_path / "here")


@pytest.mark.slow
def test_killed_fifty_times_each_item_has_one_row_and_the_bytes_are_the_same(made, whole, tmp_path):
    rng, folder, longest = np.random.default_rng(0), tmp_path / "codes", 4.0  # seconds; start-up takes half of them
    run = [sys.executable, "-c", "from hashzoo.cli.main import main; main()"]
    line = [*run, "encode", made.cell, made.vectors, "-o", folder, "--shard-rows", ROWS]
    kills = 0
    while kills < 50:
        process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, longest))
        process.kill()
        code = process.wait()
        assert code in (0, -9)
        kills += code == -9
        if (folder / "manifest.json").exists() and json.loads((folder / "manifest.json").read_text())["complete"]:
            assert contents(folder) == contents(whole)
            shutil.rmtree(folder)
    assert subprocess.run(list(map(str, line)), check=False, capture_output=True).returncode == 0
    assert contents(folder) == contents(whole)
