"""Multi-index hashing finds what a comparison with all codes finds, and tables are made when they pay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.hamming import multi_index
from hashzoo.hamming.multi_index import MultiIndex, RadiusSearch
from hashzoo.hamming.scanning import within


def near_codes(seed, rows, width, share):
    """Codes around a few centers, of which a share of the bits differ."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 256, (max(1, rows // 8), width), np.uint8)
    flips = np.packbits(rng.random((rows, 8 * width)) < share, axis=1)
    return centers[rng.integers(0, len(centers), rows)] ^ flips


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 18), st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    st.integers(-1, 30), st.sampled_from([1, 1e-9]),
)  # fmt: skip
def test_tables_find_what_a_scan_finds(seed, rows, width, share, radius, scan_share):
    codes = near_codes(seed, rows, width, share)
    queries = np.concatenate([codes[:3], near_codes(seed + 1, 2, width, 0.5)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(multi_index, "SCAN_SHARE", scan_share)  # few candidates are compared, or any number of them
        found = MultiIndex(codes).within(queries, radius)
    for mine, theirs in zip(found, within(queries, codes, radius=radius), strict=True):
        assert [array.tolist() for array in mine] == [array.tolist() for array in theirs]
        assert [array.dtype for array in mine] == [array.dtype for array in theirs]


def test_few_codes_are_compared_within_a_small_radius(monkeypatch):
    codes = np.random.default_rng(0).integers(0, 256, (200_000, 8), np.uint8)
    index, compared, compare = MultiIndex(codes), [], MultiIndex._compare

    def counted(self, query, candidates, radius):
        compared.append(len(candidates))
        return compare(self, query, candidates, radius)

    monkeypatch.setattr(MultiIndex, "_compare", counted)
    for row, (rows, distances) in enumerate(index.within(codes[:20], 3)):
        assert (rows[0], distances[0]) == (row, 0)
    assert max(compared) < 40  # 200,000 / 2^16 in each of four tables


def test_tables_are_made_once_scans_have_taken_as_long(monkeypatch):
    codes, made = near_codes(0, 500, 8, 0.05), []
    monkeypatch.setattr(multi_index, "LARGE", 500)
    monkeypatch.setattr(multi_index, "PATIENCE", 4)
    monkeypatch.setattr(MultiIndex, "__init__", made_by(MultiIndex.__init__, made))
    search = RadiusSearch(codes)
    for _ in range(6):  # a radius that leaves most codes to compare, and no radius
        search.within(codes[:3], None, 30)
        search.within(codes[:3], 5)
    for _ in range(4):
        search.within(codes[:1], None, 3)
    assert not made
    for k in (None, 2):
        for mine, theirs in zip(search.within(codes[:7], k, 3), within(codes[:7], codes, k, 3), strict=True):
            assert [array.tolist() for array in mine] == [array.tolist() for array in theirs]
    assert len(made) == 1
    assert search.within(codes[:0], None, 3) == []
    assert RadiusSearch(codes[:499]).within(codes[:9], None, 3)
    assert len(made) == 1


def made_by(function, calls):
    """A function that also records its calls."""

    def recorded(self, *arguments):
        calls.append(arguments)
        function(self, *arguments)

    return recorded
