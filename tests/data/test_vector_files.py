"""Files of vectors: every form is read as it was written, and what cannot be read is said in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hashzoo.data.vector_files import read_vectors
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError

X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
SMALL = (20 * X).clip(-120, 120).astype(np.int8)


def vecs(array: np.ndarray) -> bytes:
    return b"".join(np.int32(len(row)).tobytes() + row.tobytes() for row in array)


def header(array: np.ndarray) -> bytes:
    return np.array(array.shape, np.uint32).tobytes()


def bfloat16(array: np.ndarray) -> np.ndarray:
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def safetensors(path: Path, **tensors: torch.Tensor) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)


def bytes_of(data: bytes):
    return lambda path: path.write_bytes(data)


AS_BFLOAT16 = (bfloat16(X).astype(np.uint32) << 16).view(np.float32)
FORMS = {
    "float32.npy": (lambda p: np.save(p, X), X),
    "float64.npy": (lambda p: np.save(p, X.astype(float)), X),
    "float16.npy": (lambda p: np.save(p, X.astype(np.float16)), X.astype(np.float16)),
    "big-endian.npy": (lambda p: np.save(p, X.astype(">f4")), X),
    "columns-first.npy": (lambda p: np.save(p, np.asfortranarray(X)), X),
    "int8.npy": (lambda p: np.save(p, SMALL), SMALL),
    "uint8.npy": (lambda p: np.save(p, SMALL.view(np.uint8)), SMALL.view(np.uint8)),
    "bfloat16.npy": (lambda p: np.save(p, bfloat16(X).view("V2")), AS_BFLOAT16),
    "one.npz": (lambda p: np.savez(p, anything=X), X),
    "named.npz": (lambda p: np.savez(p, other=X[:, :2], embeddings=X), X),
    "f32.safetensors": (lambda p: safetensors(p, x=torch.from_numpy(X)), X),
    "bf16.safetensors": (lambda p: safetensors(p, emb=torch.from_numpy(AS_BFLOAT16).bfloat16()), AS_BFLOAT16),
    "x.fvecs": (bytes_of(vecs(X)), X),
    "x.bvecs": (bytes_of(vecs(SMALL.view(np.uint8))), SMALL.view(np.uint8)),
    "x.ivecs": (bytes_of(vecs(SMALL.astype(np.int32))), SMALL),
    "x.fbin": (bytes_of(header(X) + X.tobytes()), X),
    "x.u8bin": (bytes_of(header(X) + SMALL.tobytes()), SMALL.view(np.uint8)),
    "x.i8bin": (bytes_of(header(X) + SMALL.tobytes()), SMALL),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_vectors_that_were_written(name, tmp_path):
    write, expected = FORMS[name]
    write(tmp_path / name)
    read = Vectors(read_vectors(tmp_path / name).matrix)
    assert (len(read), read.dim) == X.shape
    assert read[np.arange(12)].dtype == torch.float32
    np.testing.assert_array_equal(read[np.arange(12)].numpy(), expected.astype(np.float32))
    rows = np.array([7, 8, 9, 2, 2, 11])
    np.testing.assert_array_equal(read[rows].numpy(), expected[rows].astype(np.float32))
    np.testing.assert_array_equal(read.take(torch.tensor([4, 1]))[0].numpy(), expected[4].astype(np.float32))


def test_hdf5_files_of_benchmarks_have_their_queries_and_their_metric(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["train"], file["test"], file["neighbors"] = X, X[:3], np.zeros((3, 2), int)
        file.attrs["distance"] = "euclidean"
    found = read_vectors(tmp_path / "x.hdf5")
    assert (found.metric, found.queries.shape) == ("l2", (3, 5))
    rows = np.array([3, 1, 3])
    np.testing.assert_array_equal(found.matrix.read(rows), X[rows])
    np.testing.assert_array_equal(found.matrix.read(np.arange(2, 5)), X[2:5])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("form", ["parquet", "arrow", "dataset"])
def test_list_columns_of_tables_and_saved_datasets_are_read(form, fixed, tmp_path):
    pyarrow, parquet, ipc = (pytest.importorskip(f"pyarrow{part}") for part in ("", ".parquet", ".ipc"))
    kind = pyarrow.list_(pyarrow.float32(), 5) if fixed else pyarrow.list_(pyarrow.float32())
    table = pyarrow.table({"id": list(range(12)), "emb": pyarrow.array(X.tolist(), kind)})
    path = tmp_path / f"x.{form}"
    if form == "parquet":
        parquet.write_table(table, path, row_group_size=5)
    elif form == "arrow":
        with ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    else:
        path.mkdir()
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in ("a.arrow", "b.arrow")]}))
        for name, part in (("a.arrow", table[:7]), ("b.arrow", table[7:])):
            with ipc.new_stream(path / name, table.schema) as file:
                file.write_table(part)
    np.testing.assert_array_equal(read_vectors(path).matrix.read(np.arange(12)), X)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1.0, 2.0], [3.0]], "row 1 of emb of .* has 1 numbers, and row 0 has 2"),
        ([[1.0], None], "row 1 of emb of .* is missing"),
        ([[1.0], [None]], "row 1 of emb of .* has a missing number"),
    ],
)
def test_ragged_and_missing_rows_of_tables_are_named(rows, said, tmp_path):
    pyarrow, parquet = (pytest.importorskip(f"pyarrow{part}") for part in ("", ".parquet"))
    parquet.write_table(pyarrow.table({"emb": rows}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=said):
        read_vectors(tmp_path / "x.parquet")


def ragged() -> bytes:
    return vecs(X) + np.int32(4).tobytes() + X[0, :4].tobytes() + np.int32(5).tobytes() + X[0, :4].tobytes()


BAD = {
    "missing.npy": (lambda p: None, UsageError, "there is no file"),
    "x.txt": (lambda p: p.write_text("1 2 3"), UsageError, r"no file of vectors.*\.npy"),
    "folder": (lambda p: p.mkdir(), EnvironmentFailure, "is a folder"),
    "objects.npy": (lambda p: np.save(p, np.array([[1], [1, 2]], object)), UsageError, "Python objects.*np.stack"),
    "codes.npy": (lambda p: np.save(p, X > 0), UsageError, "hashzoo evaluate"),
    "words.npy": (lambda p: np.save(p, np.array([["a"]])), UsageError, "save float64, float32"),
    "line.npy": (lambda p: np.save(p, X[0]), UsageError, r"shape \(5,\)"),
    "cube.npy": (lambda p: np.save(p, X[None]), UsageError, r"x.reshape\(len\(x\), -1\)"),
    "none.npy": (lambda p: np.save(p, X[:0]), UsageError, "has 0 rows"),
    "no-columns.npy": (lambda p: np.save(p, X[:, :0]), UsageError, "0 numbers"),
    "noise.npy": (bytes_of(b"\x00" * 99), EnvironmentFailure, "not a readable .npy"),
    "empty.npy": (bytes_of(b""), EnvironmentFailure, "not a readable .npy"),
    "several.npz": (lambda p: np.savez(p, a=X, b=X), UsageError, "several arrays, a, b; name one with the option key"),
    "objects.npz": (lambda p: np.savez(p, x=np.array([{}])), EnvironmentFailure, "Python objects"),
    "noise.safetensors": (bytes_of(b"\xff" * 64), EnvironmentFailure, "not a readable .safetensors"),
    "ragged.fvecs": (bytes_of(vecs(X)[:-4]), EnvironmentFailure, "cut off or its rows differ"),
    "negative.fvecs": (bytes_of(b"\xff" * 64), EnvironmentFailure, "its first row says"),
    "short.fbin": (bytes_of(b"\x00\x01"), EnvironmentFailure, "no header"),
    "cut.fbin": (bytes_of(header(X) + X.tobytes()[:-1]), EnvironmentFailure, "has 247 bytes, and its 12 rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_of_vectors_is_refused_in_one_line(name, tmp_path):
    write, kind, said = BAD[name]
    write(tmp_path / name)
    with pytest.raises(kind, match=said) as caught:
        read_vectors(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_of_another_length_inside_a_file_is_named(tmp_path):
    data = vecs(X) + np.int32(4).tobytes() + X[0].tobytes()
    (tmp_path / "x.fvecs").write_bytes(data)
    matrix = read_vectors(tmp_path / "x.fvecs").matrix
    with pytest.raises(EnvironmentFailure, match=r"row 12 of .* says that it has 4 numbers, and row 0 has 5"):
        matrix.read(np.arange(13))


@pytest.mark.parametrize("change", ["shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_an_error(change, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    matrix = read_vectors(path).matrix
    matrix.read(np.arange(3))
    if change == "shrink":
        os.truncate(path, 200)
    else:
        path.write_bytes(path.read_bytes())
        os.utime(path, (1, 1))
    with pytest.raises(EnvironmentFailure, match=r"x\.npy (became shorter|changed) while it was read"):
        matrix.read(np.arange(12))


def test_the_key_names_one_of_several_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", a=X, b=X[:, :2])
    assert read_vectors(tmp_path / "x.npz", "b").matrix.shape == (12, 2)
    with pytest.raises(UsageError, match="no 'c'; it has a, b"):
        read_vectors(tmp_path / "x.npz", "c")


def test_vectors_of_length_one_are_divided_by_their_lengths(tmp_path):
    np.save(tmp_path / "x.npy", np.concatenate([3 * X, np.zeros((1, 5), np.float32)]))
    unit = Vectors(read_vectors(tmp_path / "x.npy").matrix, unit=True)
    assert unit[:12].norm(dim=1).numpy() == pytest.approx(1)
    assert unit[12].tolist() == [0] * 5
