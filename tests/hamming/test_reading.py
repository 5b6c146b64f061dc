"""Codes and labels of any type: the right number, or a refusal whose hint gives the right number."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.distance import Hamming
from hashzoo.evaluation.metrics import evaluate
from hashzoo.hamming.packing import pack
from hashzoo.hamming.reading import is_missing, read_codes, read_labels
from hashzoo.hamming.relevance import relevance
from hashzoo.index import Scan

LABELS = np.arange(6) % 3, np.arange(40) % 3


def bits(seed: int = 0, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Codes of 6 queries and 40 items that say something about their class."""
    rng = np.random.default_rng(seed)
    centers = rng.random((3, width)) < 0.5
    sides = (centers[labels] ^ (rng.random((len(labels), width)) < 0.3) for labels in LABELS)
    return tuple(sides)


def slow_score(query, database, query_labels=LABELS[0], labels=LABELS[1]) -> float:
    """Mean average precision by brute force; items at equal distance count as in every order of them."""
    precisions = []
    for code, label in zip(query, query_labels, strict=True):
        distances = [sum(bool(a) != bool(b) for a, b in zip(code, item, strict=True)) for item in database]
        relevant = [int(label == other) for other in labels]
        total, before, hits = 0.0, 0, 0
        for distance in sorted(set(distances)):
            group = [r for d, r in zip(distances, relevant, strict=True) if d == distance]
            n, r = len(group), sum(group)
            for i in range(1, n + 1):  # the item in place i of the group
                share = (i - 1) * (r - 1) / (n - 1) if n > 1 else 0
                total += r / n * (hits + 1 + share) / (before + i)
            before, hits = before + n, hits + r
        precisions.append(total / max(1, sum(relevant)))
    return float(np.mean(precisions))


def by_sign(codes, dtype):
    return (2 * codes.astype(np.int64) - 1).astype(dtype)


#: Forms of bits that can be read in one way only.
READ = {
    "bool": lambda codes: codes,
    "a list of lists": lambda codes: codes.tolist(),
    "packed": pack,
    **{f"{t} 0 1": lambda codes, t=t: codes.astype(t) for t in ("int8", "int64", "uint16", "float16", "float64")},
    **{f"{t} -1 +1": lambda codes, t=t: by_sign(codes, t) for t in ("int8", "int32", "float32", "float64")},
    "tensor": lambda codes: torch.from_numpy(by_sign(codes, "float32")).requires_grad_(),
    "Fortran order": lambda codes: np.asfortranarray(codes.astype(int)),
    "a column in two": lambda codes: np.repeat(codes, 2, axis=1)[:, ::2].astype(int),
}

#: Forms that are refused, each with a hint that is an expression.
HINTED = {
    "uint8 0 1": lambda codes: codes.astype(np.uint8),
    "uint8 0 255": lambda codes: codes.astype(np.uint8) * np.uint8(255),
    "uint8 1 255": lambda codes: by_sign(codes, np.int8).view(np.uint8),
    "uint8 3 7": lambda codes: np.where(codes, 7, 3).astype(np.uint8),
    "int 0 255": lambda codes: codes.astype(int) * 255,
    "float -.5 +.5": lambda codes: codes - 0.5,
    "float32 .1 .7": lambda codes: np.where(codes, 0.7, 0.1).astype(np.float32),
    "int -1 0": lambda codes: codes.astype(int) - 1,
    "int8 packed": lambda codes: (pack(codes).astype(int) - 128).astype(np.int8),
    "int8 packed in int64": lambda codes: pack(codes).astype(int) - 128,
    "packed in int64": lambda codes: pack(codes).astype(int),
    "packed in uint16": lambda codes: pack(codes).astype(np.uint16),
    "words of 32 bits": lambda codes: pack(np.pad(codes, ((0, 0), (0, 8)))).view(np.uint32),
    "words of 64 bits": lambda codes: pack(np.pad(codes, ((0, 0), (40, 0)))).view(np.int64),
    "real": lambda codes: by_sign(codes, float) * (0.25 + np.arange(codes.size).reshape(codes.shape) % 7),
}

#: Forms that are refused without an expression: nobody but the user knows the threshold.
REFUSED = {
    "shares": lambda codes: codes * 0.5 + 0.1 + np.arange(codes.size).reshape(codes.shape) % 3 * 0.1,
    "signs with 0": lambda codes: by_sign(codes, int) * (np.arange(codes.size).reshape(codes.shape) % 5 > 0),
    "whole floats": lambda codes: by_sign(codes, float) * (1 + np.arange(codes.size).reshape(codes.shape) % 3),
    "NaN": lambda codes: np.where(codes, 1.0, np.nan),
    "infinite": lambda codes: np.where(codes, np.inf, 0.5),
    "complex": lambda codes: codes.astype(complex),
    "texts": lambda codes: codes.astype(str),
    "quantized": lambda codes: by_sign(codes, np.int16) * np.int16(130) + np.arange(codes.shape[1], dtype=np.int16),
    "flat": lambda codes: codes.reshape(-1).astype(int),
    "masked": lambda codes: np.ma.masked_array(codes, mask=codes),
    "ragged": lambda codes: [[1, 0], *([[1]] * (len(codes) - 1))],
}


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("seed", range(2))
def test_codes_that_can_be_read_in_one_way_give_the_right_number(form, seed):
    sides = bits(seed)
    found = evaluate(*map(READ[form], sides), *LABELS).means["map@all"]
    assert found == pytest.approx(slow_score(*sides), abs=1e-12)


@pytest.mark.parametrize("form", HINTED)
@pytest.mark.parametrize("seed", range(2))
def test_every_hint_gives_the_right_number_when_it_is_followed(form, seed):
    sides = bits(seed)
    given_codes = [HINTED[form](side) for side in sides]
    with pytest.raises(ValueError, match="query_codes") as caught:
        evaluate(*given_codes, *LABELS)
    expressions = re.findall("`([^`]+)`", str(caught.value))
    assert len(expressions) == 1
    obeyed = [eval(expressions[0], {"np": np, "codes": codes}) for codes in given_codes]
    assert evaluate(*obeyed, *LABELS).means["map@all"] == pytest.approx(slow_score(*sides), abs=1e-12)


@pytest.mark.parametrize("form", REFUSED)
def test_codes_whose_threshold_is_unknown_are_refused_without_an_expression(form):
    with pytest.raises(ValueError, match="_codes") as caught:
        evaluate(*map(REFUSED[form], bits()), *LABELS)
    assert "`" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packed_int8_is_named_as_the_precision_of_sentence_transformers():
    with pytest.raises(ValueError, match='"binary" of sentence-transformers'):
        evaluate(*map(HINTED["int8 packed"], bits()), *LABELS)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (1, 255), (3, 7), (0, 128), (254, 255)])
def test_packed_bytes_of_two_values_are_read_as_packed_only_if_their_bits_are_given(values):
    rng = np.random.default_rng(1)
    codes = [rng.choice(values, (n, 3)).astype(np.uint8) for n in (6, 40)]
    with pytest.raises(ValueError, match=r"or packed bytes; .*bits=24"):
        evaluate(*codes, *LABELS)
    unpacked = [np.unpackbits(side, axis=1) for side in codes]
    assert evaluate(*codes, *LABELS, bits=24).means["map@all"] == pytest.approx(slow_score(*unpacked))


def test_two_values_on_each_side_are_not_packed_even_if_they_differ():
    sides = bits()
    codes = sides[0].astype(np.uint8), sides[1].astype(np.uint8) * np.uint8(255)
    with pytest.raises(ValueError, match="values 0, 1, 255, which can be one bit") as caught:
        evaluate(*codes, *LABELS)
    expression = re.findall("`([^`]+)`", str(caught.value))[0]
    obeyed = [eval(expression, {"codes": side}) for side in codes]
    assert evaluate(*obeyed, *LABELS).means["map@all"] == pytest.approx(slow_score(*sides))
    signs = (np.arange(6 * 24).reshape(6, 24) % 3 - 1).astype(np.int8).view(np.uint8)
    with pytest.raises(ValueError, match="one bit in each column, turn them into bool"):
        evaluate(signs, signs, LABELS[0], LABELS[0])
    few = np.array([[3, 7]], np.uint8), np.array([[3, 7], [9, 1]], np.uint8)  # one query of packed bytes
    assert evaluate(*few, [0], [0, 1]).means["map@all"] == 1


@pytest.mark.parametrize("high", [1, 255])
def test_bits_as_many_as_columns_say_that_bytes_are_single_bits(high):
    sides = bits()
    codes = [side.astype(np.uint8) * np.uint8(high) for side in sides]
    found = evaluate(*codes, *LABELS, bits=24)
    assert found.means["map@all"] == pytest.approx(slow_score(*sides))
    assert "uint8 of 0 and" in found.notes[0]
    with pytest.raises(ValueError, match="values other than 0 and 1"):
        evaluate(codes[0] + np.uint8(2), codes[1], *LABELS, bits=24)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_array_of_numbers_is_read_rightly_or_refused(data):
    """Columns of any values in any type; the slow reader compares the bits of each pair of rows."""
    values = data.draw(st.sampled_from([(0, 1), (-1, 1), (1,), (0,), (-1,), (-1, 0, 1), (0, 2), (0, 1, 2), (-3, 4)]))
    dtype = data.draw(st.sampled_from(["int8", "int16", "int64", "float32", "float64"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    query, database = (rng.choice(values, (n, 5)).astype(dtype) for n in (3, 9))
    present = set(query.ravel().tolist()) | set(database.ravel().tolist())
    if not (present <= {0, 1} or present <= {-1, 1}):
        with pytest.raises(ValueError, match="must be bool"):
            read_codes(query, database)
        return
    read = read_codes(query, database)
    differing = [[sum(a != b for a, b in zip(q, d, strict=True)) for d in database.tolist()] for q in query.tolist()]
    found = np.unpackbits(read.query[:, None] ^ read.database[None], axis=2).sum(axis=2)
    assert found.tolist() == differing
    assert read.bits == 5


def test_queries_and_database_are_read_alike():
    ones, signs = np.ones((2, 4), int), by_sign(bits()[1][:, :4], int)
    assert read_codes(ones, signs).query.tolist() == [[240], [240]]
    with pytest.raises(ValueError, match="0 is neither -1 nor"):
        read_codes(ones * [0, 1, 0, 1], signs)


def test_how_numbers_were_read_is_said_and_of_bits_nothing():
    sides = bits()
    assert evaluate(*sides, *LABELS).notes == ()
    assert evaluate(sides[0].astype(int), sides[1], *LABELS).notes == ("query_codes: int64 of 0 and 1 read as 24 bits",)
    assert evaluate(sides[0] | True, sides[1] | True, *LABELS).notes == (
        "all codes are equal, so every ranking is one tie",
    )


NUMBERS = [np.int8, np.int64, np.uint16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_packing_and_searching_refuse_numbers_and_their_hint_gives_the_same_codes(dtype):
    wanted = bits()[1]
    for codes in (
        wanted.astype(dtype),
        by_sign(wanted, dtype) if np.dtype(dtype).kind != "u" else wanted.astype(dtype),
    ):
        with pytest.raises(ValueError, match="pack takes bool bits") as caught:
            pack(codes)
        expression = re.findall("`([^`]+)`", str(caught.value))[0]
        assert (pack(eval(expression, {"bits": codes})) == pack(wanted)).all()
        with pytest.raises(ValueError, match="make it bool with values > 0"):
            Scan(Hamming("code")).add({"code": torch.from_numpy(codes.astype("float32"))})
        index = Scan(Hamming("code"))
        index.add({"code": torch.from_numpy(wanted)})
        with pytest.raises(ValueError, match="pack takes bool bits"):
            index.search({"code": torch.from_numpy(codes.astype("float32"))}, 3)


#: Labels that are the classes 0, 1, 2, 0, 1, 2, ... in other forms.
SAME_CLASSES = {
    "a column": lambda labels: labels[:, None],
    "a list": lambda labels: labels.tolist(),
    "uint8": lambda labels: labels.astype(np.uint8),
    "Python integers": lambda labels: labels.astype(object),
    "whole floats": lambda labels: labels.astype(np.float32),
    "a column of whole floats": lambda labels: labels[:, None].astype(float),
    "one-hot": lambda labels: np.eye(3)[labels],
    "one-hot bool": lambda labels: np.eye(3, dtype=bool)[labels],
    "multi-hot with an empty class": lambda labels: np.eye(5, dtype=int)[labels],
    "from 1000": lambda labels: labels + 1000,
    "negative": lambda labels: -labels,
    "tensor": lambda labels: torch.from_numpy(labels),
}


@pytest.mark.parametrize("form", SAME_CLASSES)
def test_labels_in_any_form_of_one_meaning_give_the_same_number(form):
    sides = bits()
    found = evaluate(*sides, *map(SAME_CLASSES[form], LABELS))
    assert found.means["map@all"] == pytest.approx(slow_score(*sides))
    assert bool(found.notes) == ("floats" in form)


BAD_LABELS = {
    "NaN": np.array([0.0, np.nan]),
    "NaN object": np.array([0, float("nan")], object),
    "None": np.array([0, None], object),
    "None among texts": ["cat", None],
    "empty text": ["cat", ""],
    "blank text": ["cat", "  "],
    "text nan": ["cat", "NaN"],
    "text None": [["cat"], ["None"]],
    "bytes": np.array([b"cat", b""]),
    "fraction": np.array([0.0, 0.5]),
    "infinite": np.array([0.0, np.inf]),
    "too large a float": np.array([0.0, 2.0**60]),
    "too large an integer": np.array([0, 2**63], np.uint64),
    "bool": np.array([True, False]),
    "soft": np.array([[0.2, 0.8], [1.0, 0.0]]),
    "signs": np.array([[-1, 1], [1, -1]]),
    "numbers of classes": np.array([[3, 7], [1, 2]]),
    "masked": np.ma.masked_array([0, 1], mask=[False, True]),
    "lists": [["cat"], ["cat", "dog"]],
    "NaN in one-hot": np.array([[0, np.nan], [1, 0]]),
    "a column of 0 and 1": np.array([[0], [1]]),
    "one number": np.array(1),
    "one bool": np.array(True),
    "no axis of floats": np.array(1.5),
    "three axes": np.ones((2, 1, 1), int),
}


@pytest.mark.parametrize("form", BAD_LABELS)
def test_labels_that_are_missing_or_mean_two_things_are_refused(form):
    labels = BAD_LABELS[form]
    for sides in ((labels, labels), *([([0, 1], labels)] if form == "NaN" else [])):
        codes = np.eye(2, dtype=bool)
        with pytest.raises(ValueError, match="_labels") as caught:
            evaluate(codes, codes, *sides)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [np.array([[0], [1]] * 3), np.array([[0.0], [1.0]] * 3), np.zeros((6, 1), int)])
def test_the_hints_for_one_column_give_either_meaning(labels):
    codes = bits()[0]
    with pytest.raises(ValueError, match="two classes or a single label") as caught:
        evaluate(codes, codes, labels, labels)
    classes, single = re.findall("`([^`]+)`", str(caught.value))
    two = eval(classes, {"labels": labels})
    assert evaluate(codes, codes, two, two).excluded == 0
    one = eval(single, {"labels": labels})
    assert evaluate(codes, codes, one, one).excluded == int((labels == 0).sum())


def test_the_hint_for_two_other_values_and_for_texts_gives_the_right_labels():
    signs = np.array([[-1, 1], [1, -1], [1, 1]])
    with pytest.raises(ValueError, match="0 elsewhere; for these") as caught:
        relevance(signs, signs)
    labels = eval(re.findall("`([^`]+)`", str(caught.value))[0], {"labels": signs})
    assert relevance(labels, labels).grades(2).tolist() == [1, 1, 2]
    query, database = ["dog", "ant"], ["cat", "dog", "ant"]
    with pytest.raises(ValueError, match="not texts") as caught:
        relevance(query, database)
    scope = {"np": np, "query_labels": query, "database_labels": database}
    numbers = eval(re.findall("`([^`]+)`", str(caught.value))[0], scope)
    assert relevance(numbers[:2], numbers[2:]).relevant(0).tolist() == [False, True, False]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-3, 5), min_size=1, max_size=6),
    st.lists(st.integers(-3, 5), min_size=1, max_size=6),
    st.sampled_from([np.int8, np.int64, np.float16, np.float64]),
    st.booleans(),
)
def test_relevance_of_any_classes_is_that_of_comparing_them_one_by_one(query, database, dtype, column):
    sides = [np.array(side, dtype)[:, None] if column else np.array(side, dtype) for side in (query, database)]
    single = column and set(query) | set(database) <= {0, 1}  # whether an item has the one label
    if single and 0 in (*query, *database):
        with pytest.raises(ValueError, match="two classes or a single label"):
            relevance(*sides)
    pairs = relevance(*sides, multi_hot=True)
    for row, label in enumerate(query):
        wanted = [label == other == 1 if single else label == other for other in database]
        assert pairs.relevant(row).tolist() == wanted


def test_words_for_a_missing_value_in_any_case():
    words = ["", " ", "nan", "NaN", "None", "NULL", "N/A", "<NA>", "#N/A", "#REF!"]
    assert all(map(is_missing, words))
    assert not any(map(is_missing, ["cat", "nano", "nonesuch", "0", "-", "no"]))


def test_labels_of_both_sides_are_integers_after_reading():
    query, database, notes = read_labels([[2.0], [3.0]], [2, 3])
    assert (query.dtype.kind, query.tolist(), database.tolist(), len(notes)) == ("i", [2, 3], [2, 3], 1)
