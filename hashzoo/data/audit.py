"""What is wrong with a protocol: faults that raise, lower or blur every score measured on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.data.near_duplicates import DAMAGED, MISSING, Prints, copies, lookalikes, name_of, take
from hashzoo.data.split_file import asked, relevant_counts
from hashzoo.types import ProgressCallback, Split, Splits

SHOWN = 3  # examples of a finding
ORDERED = 0.1  # how far from random (0) to sorted by class (1) a database may lie
SURE = 5  # standard deviations above what random order gives


@dataclass(frozen=True)
class Kind:
    """One kind of finding: why it matters, the cure, and the key of ``Splits.notes`` by which data declares it."""

    why: str
    cure: str
    note: str = ""


#: Every kind by its name, which never changes: scripts name it in --allow.
KINDS = {
    "query-in-database": Kind(
        "a query finds itself first, at distance 0, whatever the method", "take the queries out of the database"
    ),
    "query-in-train": Kind("a method has learned from what it is asked", "take the queries out of train"),
    "query-copy-in-database": Kind(
        "a query finds its own pixels under another id, whatever the method", "drop one of the two", "copies"
    ),
    "query-copy-in-train": Kind(
        "a method has learned from the very pixels it is asked, under another id", "drop one of the two", "copies"
    ),
    "query-near-database": Kind(
        "a query finds what looks like the same image, scaled or compressed anew",
        "look at the examples; drop one of each two, or declare them",
        "copies",
    ),
    "query-near-train": Kind(
        "a method has learned from what looks like the image it is asked",
        "look at the examples; drop one of each two, or declare them",
        "copies",
    ),
    "duplicates": Kind("an image counts more than once in one part", "list every image once"),
    "unlabelled-queries": Kind(
        "a query without a label has no right answer; hashzoo leaves it out of means, other code counts it as 0",
        "take it out of the queries",
    ),
    "queries-without-relevant": Kind(
        "no database item shares a label with the query; hashzoo leaves it out of means, other code counts it as 0",
        "take it out of the queries, or its classes into the database",
    ),
    "class-ordered-database": Kind(
        "code that breaks ties by the order of the database scores too high or too low; hashzoo, whose ties have no "
        "order, scores as before",
        "shuffle the database before giving it to other code",
    ),
    "train-in-database": Kind(
        "labels of database images are learned from, so scores flatter and do not compare with disjoint protocols",
        "take train out of the database, or declare it: notes = {'train': 'inside the database'}, or let it pass: "
        "--allow train-in-database",
        "train",
    ),
    "class-missing-in-train": Kind(
        "a class that is asked for or stored has no image to learn from",
        "add images of it, or give train labels without its column: then it counts as never learned",
    ),
    "labels-not-binary": Kind(
        "labels other than 0 and 1 weigh images in losses and make similar of what is not", "make labels multi-hot"
    ),
    "contaminated": Kind(
        "the backbone was trained with labels on what this data is a part of; its scores are marked contaminated",
        "take a backbone trained on other data",
    ),
    "damaged": Kind("an image does not decode", "mend or remove it, or use hashzoo bench --on-bad-image skip"),
    "missing": Kind("the protocol lists an image that is not there", "fetch it, or take it off the list"),
    "no-images": Kind(
        "none of the images is there: copies and damage were not looked for", "name the folder that has them"
    ),
}
KINDS = {name: Kind(kind.why, kind.cure, kind.note or name) for name, kind in KINDS.items()}
#: What is said and never fails a check.
STATEMENTS = ("no-images",)


@dataclass(frozen=True)
class Finding:
    """``count`` of ``total`` things with one fault, some of them as ``examples``, and a number worth saying."""

    name: str
    count: int
    total: int
    examples: tuple[str, ...] = ()
    detail: str = ""

    def status(self, notes: Mapping[str, str], allowed: Sequence[str]) -> str:
        """``found`` fails a check; ``declared`` (by the data), ``allowed`` (by the user) and ``stated`` do not."""
        if self.name in STATEMENTS:
            return "stated"
        if KINDS[self.name].note in notes:
            return "declared"
        return "allowed" if self.name in allowed else "found"


def check(data: Splits, *, near: int | None = None, tell: ProgressCallback = lambda *_: None) -> list[Finding]:
    """Every finding of a protocol, in the order of ``KINDS``; empty where there is none.

    ``near`` asks for images that look alike too, within so many of 64 bits. ``tell`` is called with the images
    looked at so far, and with all of them.
    """
    found = [*of_ids(data), *of_labels(data), *of_images(data, near, tell)]
    order = list(KINDS)
    return sorted((one for one in found if one.count), key=lambda one: order.index(one.name))


def contaminated(data: Splits, trained_on: str) -> list[Finding]:
    """The finding that a backbone trained on ``trained_on`` has seen this data with labels."""
    if not trained_on or trained_on not in data.pretraining:
        return []
    return [Finding("contaminated", 1, 1, (trained_on,))]


def _examples(split: Split, rows: Tensor) -> tuple[str, ...]:
    return tuple(name_of(split, int(row)) for row in torch.nonzero(rows)[:SHOWN, 0])


def _some(name: str, split: Split, rows: Tensor, detail: str = "") -> Finding:
    """A finding of some rows (N,) bool of a part."""
    return Finding(name, int(rows.sum()), len(split), _examples(split, rows), detail)


def of_ids(data: Splits) -> list[Finding]:
    """Which images are where they must not be, by id."""
    learned = torch.cat([data.train.ids, data.validation.ids]) if data.validation is not None else data.train.ids
    found = [
        _some("query-in-database", data.query, torch.isin(data.query.ids, data.database.ids)),
        _some("query-in-train", data.query, torch.isin(data.query.ids, learned)),
        _some("train-in-database", data.train, torch.isin(data.train.ids, data.database.ids)),
    ]
    again, examples, where = 0, list[str](), list[str]()
    for name, part in data.parts().items():
        order = part.ids.sort(stable=True)
        repeats = torch.zeros(len(part), dtype=torch.bool)
        repeats[order.indices[1:]] = order.values[1:] == order.values[:-1]
        if count := int(repeats.sum()):
            again += count
            examples += _examples(part, repeats)
            where.append(f"{count} in {name}")
    total = sum(len(part) for part in data.parts().values())
    return [*found, Finding("duplicates", again, total, tuple(examples[:SHOWN]), ", ".join(where))]


def of_labels(data: Splits) -> list[Finding]:
    """What labels alone tell."""
    wanted, database = asked(data), data.database
    found = []
    for kind, rows in (
        ("unlabelled-queries", (wanted > 0).sum(1) == 0),
        ("queries-without-relevant", torch.from_numpy(relevant_counts(wanted, database.labels) == 0)),
    ):
        count = int(rows.sum())
        first = torch.nonzero(rows)[:SHOWN, 0].tolist()
        examples = tuple(f"pair {row}" if data.pairs is not None else name_of(data.query, row) for row in first)
        ceiling = f"where they count as 0, no mAP exceeds {1 - count / len(wanted):.4f}"
        found.append(Finding(kind, count, len(wanted), examples, ceiling))
    return [*found, _ordered(database), _unlearned(data), _not_binary(data)]


def _ordered(database: Split) -> Finding:
    """How many labels neighbouring rows share, against n_c (n_c - 1) / N a class c in random order."""
    labels = database.labels > 0
    sizes = labels.sum(0).double()
    shared = int((labels[1:] & labels[:-1]).sum())
    chance = float((sizes * (sizes - 1)).sum()) / max(1, len(labels))
    most = float((sizes - 1).clamp(min=0).sum())
    share = (shared - chance) / (most - chance) if most > chance else 0.0
    by_class = share > ORDERED and shared - chance > SURE * math.sqrt(chance + 1)
    detail = f"neighbours share {shared} labels; {chance:.0f} in random order, {most:.0f} if sorted by class"
    return Finding("class-ordered-database", shared if by_class else 0, int(most), (), detail)


def _unlearned(data: Splits) -> Finding:
    """Classes among the columns of train that only the other parts have images of."""
    learned = (data.train.labels > 0).any(0)
    columns = slice(0, len(learned))
    met = (asked(data)[:, columns] > 0).any(0) | (data.database.labels[:, columns] > 0).any(0)
    missing = torch.nonzero(met & ~learned)[:, 0].tolist()
    names = [data.class_names[c] if c < len(data.class_names) else str(c) for c in missing[:SHOWN]]
    return Finding("class-missing-in-train", len(missing), len(learned), tuple(names))


def _not_binary(data: Splits) -> Finding:
    count, examples = 0, list[str]()
    for part in data.parts().values():
        other = ((part.labels != 0) & (part.labels != 1)).any(1)
        count += int(other.sum())
        examples += _examples(part, other)
    total = sum(len(part) for part in data.parts().values())
    return Finding("labels-not-binary", count, total, tuple(examples[:SHOWN]))


def of_images(data: Splits, near: int | None, tell: ProgressCallback) -> list[Finding]:
    """What is learned from decoding every image once."""
    split = data.parts()
    prints = take(split, near is not None, min(8, os.cpu_count() or 1), tell)
    total = sum(len(part) for part in split.values())
    absent = sum(int((one.state == MISSING).sum()) for one in prints.values())
    if absent == total:
        return [Finding("no-images", total, total, _of_state(split, prints, MISSING))]
    found = [
        Finding(name, sum(int((one.state == state).sum()) for one in prints.values()), total, examples)
        for name, state in (("damaged", DAMAGED), ("missing", MISSING))
        for examples in [_of_state(split, prints, state)]
    ]
    learned = ["train", *(["validation"] if data.validation is not None else [])]
    for where, names in (("database", ["database"]), ("train", learned)):
        same, alike = dict[int, str](), dict[int, str]()
        ids = data.query.ids.numpy()
        for name in names:
            sides = prints["query"], ids, prints[name], split[name].ids.numpy()
            same |= _named(copies(*sides), data.query, split[name])
            if near is not None:
                alike |= _named(lookalikes(*sides, near), data.query, split[name])
        found += [
            Finding(f"query-{what}-{at}", len(pairs), len(ids), tuple(pairs.values())[:SHOWN])
            for what, at, pairs in (("copy-in", where, same), ("near", where, alike))
        ]
    return found


def _named(pairs: Mapping[int, int], query: Split, among: Split) -> dict[int, str]:
    return {row: f"{name_of(query, row)} = {name_of(among, other)}" for row, other in pairs.items()}


def _of_state(split: Mapping[str, Split], prints: Mapping[str, Prints], state: int) -> tuple[str, ...]:
    """Images of a state with what is wrong with them."""
    shown: dict[str, None] = {}
    for name, part in split.items():
        for row in np.flatnonzero(prints[name].state == state)[:SHOWN].tolist():
            shown[f"{name_of(part, row)}: {prints[name].reasons[row]}"] = None
    return tuple(shown)[:SHOWN]


def report(found: Iterable[Finding], notes: Mapping[str, str], allowed: Sequence[str]) -> list[dict[str, Any]]:
    """Findings as plain dicts, with their status, why they matter and what to do."""
    made = []
    for one in found:
        kind, status = KINDS[one.name], one.status(notes, allowed)
        made.append(
            {
                "finding": one.name,
                "status": status,
                "count": one.count,
                "of": one.total,
                "examples": list(one.examples),
                "detail": one.detail,
                "why": kind.why,
                "cure": kind.cure if status != "declared" else f"declared: {kind.note}: {notes[kind.note]}",
            }
        )
    return made
