"""Metrics as their definitions read, with plain loops over a ranking that is written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction


def orders(distances: Sequence[float]) -> Iterator[tuple[int, ...]]:
    """Every ranking that sorting by distance could give, each once."""
    groups = []
    for distance in sorted(set(distances)):
        groups.append([i for i, d in enumerate(distances) if d == distance])
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain(*parts))


def mean_over_orders(metric: str, distances: Sequence[float], grades: Sequence[int], cut: int) -> float:
    values = [RANKED[metric]([grades[i] for i in order], cut) for order in orders(distances)]
    return float(sum(values) / len(values))


def extreme_over_orders(pick, distances: Sequence[float], grades: Sequence[int], cut: int) -> float:
    return float(pick(average_precision([grades[i] for i in order], cut) for order in orders(distances)))


def _precision_sum(ranking: Sequence[int], cut: int) -> Fraction:
    found, total = 0, Fraction(0)
    for place, grade in enumerate(ranking[:cut], start=1):
        if grade > 0:
            found += 1
            total += Fraction(found, place)
    return total


def average_precision(ranking: Sequence[int], cut: int) -> Fraction:
    relevant = sum(grade > 0 for grade in ranking)
    return _precision_sum(ranking, cut) / min(relevant, cut)


def average_precision_by_hits(ranking: Sequence[int], cut: int) -> Fraction:
    hits = sum(grade > 0 for grade in ranking[:cut])
    return _precision_sum(ranking, cut) / hits if hits else Fraction(0)


def precision(ranking: Sequence[int], cut: int) -> Fraction:
    return Fraction(sum(grade > 0 for grade in ranking[:cut]), cut)


def recall(ranking: Sequence[int], cut: int) -> Fraction:
    return Fraction(sum(grade > 0 for grade in ranking[:cut]), sum(grade > 0 for grade in ranking))


def dcg(ranking: Sequence[int], cut: int) -> float:
    return sum((2**grade - 1) / math.log2(place + 1) for place, grade in enumerate(ranking[:cut], start=1))


def ndcg(ranking: Sequence[int], cut: int) -> float:
    return dcg(ranking, cut) / dcg(sorted(ranking, reverse=True), cut)


def acg(ranking: Sequence[int], cut: int) -> Fraction:
    return Fraction(sum(ranking[:cut]), cut)


def weighted_average_precision(ranking: Sequence[int], cut: int) -> Fraction:
    assert cut == len(ranking)
    places = [place for place, grade in enumerate(ranking, start=1) if grade > 0]
    return sum((acg(ranking, place) for place in places), Fraction(0)) / len(places)


RANKED = {
    "map": average_precision,
    "map:hits": average_precision_by_hits,
    "p": precision,
    "r": recall,
    "ndcg": ndcg,
    "acg": acg,
    "wap": weighted_average_precision,
}


def hamming(a: Sequence[bool], b: Sequence[bool]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def shared(a, b) -> int:
    """Shared labels of two multi-hot rows, or whether two classes are one."""
    return int(a == b) if isinstance(a, int) else sum(x == y == 1 for x, y in zip(a, b, strict=True))


def histogram(query, codes, label, labels, bits: int) -> tuple[list[int], list[int]]:
    """Items and relevant items at each Hamming distance 0..bits."""
    items, relevant = [0] * (bits + 1), [0] * (bits + 1)
    for code, other in zip(codes, labels, strict=True):
        distance = hamming(query, code)
        items[distance] += 1
        relevant[distance] += shared(label, other) > 0
    return items, relevant


def nearest(query, codes, k: int) -> list[tuple[int, int]]:
    """(distance, row) of the k nearest, ties by row."""
    return sorted((hamming(query, code), row) for row, code in enumerate(codes))[:k]
