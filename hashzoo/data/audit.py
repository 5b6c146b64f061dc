"""Audit of a protocol: problems that raise, lower or distort every score measured on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.data.class_names import similar_names
from hashzoo.data.finding_kinds import KINDS, STATEMENTS
from hashzoo.data.near_duplicates import (
    DAMAGED,
    MISSING,
    OK,
    Fingerprints,
    compute_fingerprints,
    find_copies,
    find_copies_inside,
    find_near_duplicates,
    name_of,
)
from hashzoo.data.split_file import query_labels, relevant_counts
from hashzoo.data.vector_checks import vector_findings
from hashzoo.data.vectors import holds_vectors
from hashzoo.types import ProgressCallback, SourceFinding, Split, Splits

EXAMPLES = 3  # per finding
ORDERED = 0.1  # how far from random (0) to sorted by class (1) a database counts as ordered by class
SIGNIFICANT = 5  # standard deviations above random order


@dataclass(frozen=True)
class AuditFinding:
    """``count`` of ``total`` items have the problem ``name``; some of them as ``examples``, and a detail."""

    name: str
    count: int
    total: int
    examples: tuple[str, ...] = ()
    detail: str = ""

    def status(self, notes: Mapping[str, str], allowed: Sequence[str]) -> str:
        """``found`` fails a check; ``declared`` (by the dataset), ``allowed`` (by the user) and ``stated`` do not."""
        if self.name in STATEMENTS:
            return "stated"
        if KINDS[self.name].note in notes:
            return "declared"
        return "allowed" if self.name in allowed else "found"


def audit_splits(
    data: Splits, *, near: int | None = None, progress: ProgressCallback = lambda *_: None
) -> list[AuditFinding]:
    """All findings of a protocol, in the order of ``KINDS``.

    With ``near``, images whose perceptual hashes differ in at most ``near`` of 64 bits are found too.
    """
    findings = [*source_findings(data), *id_findings(data), *(label_findings(data) if data.labelled else [])]
    findings += image_findings(data, near, progress)
    order = list(KINDS)
    return sorted((one for one in findings if one.count), key=lambda one: order.index(one.name))


def source_findings(data: Splits) -> list[AuditFinding]:
    """What the dataset found while it read its files, and names of classes that are hard to tell apart."""
    pairs = similar_names(data.class_names)
    examples = tuple(f"{first!r} and {second!r}" for first, second in pairs[:EXAMPLES])
    return [
        *(AuditFinding(**vars(finding)) for finding in data.findings),
        AuditFinding("similar-class-names", len(pairs), len(data.class_names), examples),
    ]


def lost_classes(data: Splits, usable: Mapping[str, NDArray[np.bool_]]) -> list[AuditFinding]:
    """The classes that have images, of which none is usable; ``usable`` says it of each image of each part."""
    columns = max(part.labels.shape[1] for part in data.parts().values())
    before, after = torch.zeros(columns), torch.zeros(columns)
    for name, part in data.parts().items():
        labels = part.labels > 0
        before[: labels.shape[1]] += labels.sum(0)
        after[: labels.shape[1]] += labels[torch.from_numpy(usable[name])].sum(0)
    lost = torch.nonzero((before > 0) & (after == 0))[:, 0].tolist()
    names = tuple(data.class_names[c] if c < len(data.class_names) else str(c) for c in lost[:EXAMPLES])
    return [AuditFinding("class-without-images", len(lost), int((before > 0).sum()), names)]


def describe(finding: AuditFinding | SourceFinding) -> str:
    """A finding as one line, without its name."""
    kind = KINDS[finding.name]
    example = f", such as {finding.examples[0]}" if finding.examples else ""
    detail = f" ({finding.detail})" if finding.detail else ""
    cure = "" if finding.name in STATEMENTS else f"; {kind.cure}"
    return f"{finding.count:,} of {finding.total:,}{example}: {kind.why}{detail}{cure}"


def contaminated(data: Splits, trained_on: str) -> list[AuditFinding]:
    """The finding that a backbone trained on ``trained_on`` was trained with the labels of this data."""
    if not trained_on or trained_on not in data.pretraining:
        return []
    return [AuditFinding("contaminated", 1, 1, (trained_on,))]


def _examples(split: Split, rows: Tensor) -> tuple[str, ...]:
    return tuple(name_of(split, int(row)) for row in torch.nonzero(rows)[:EXAMPLES, 0])


def _finding_of_rows(name: str, split: Split, rows: Tensor) -> AuditFinding:
    """A finding in the rows (N,) bool of a part."""
    return AuditFinding(name, int(rows.sum()), len(split), _examples(split, rows))


def id_findings(data: Splits) -> list[AuditFinding]:
    """Images that are in several parts, or several times in one, by id."""
    learned = torch.cat([data.train.ids, data.validation.ids]) if data.validation is not None else data.train.ids
    findings = [
        _finding_of_rows("query-in-database", data.query, torch.isin(data.query.ids, data.database.ids)),
        _finding_of_rows("query-in-train", data.query, torch.isin(data.query.ids, learned)),
        _finding_of_rows("train-in-database", data.train, torch.isin(data.train.ids, data.database.ids)),
    ]
    total_repeats, examples, details = 0, list[str](), list[str]()
    for name, part in data.parts().items():
        order = part.ids.sort(stable=True)
        repeats = torch.zeros(len(part), dtype=torch.bool)
        repeats[order.indices[1:]] = order.values[1:] == order.values[:-1]
        if count := int(repeats.sum()):
            total_repeats += count
            examples += _examples(part, repeats)
            details.append(f"{count} in {name}")
    total = sum(len(part) for part in data.parts().values())
    return [*findings, AuditFinding("duplicates", total_repeats, total, tuple(examples[:EXAMPLES]), ", ".join(details))]


def label_findings(data: Splits) -> list[AuditFinding]:
    """Findings that need only labels."""
    labels, database = query_labels(data), data.database
    findings = []
    for kind, rows in (
        ("unlabelled-queries", (labels > 0).sum(1) == 0),
        ("queries-without-relevant", torch.from_numpy(relevant_counts(labels, database.labels) == 0)),
    ):
        count = int(rows.sum())
        first = torch.nonzero(rows)[:EXAMPLES, 0].tolist()
        examples = tuple(f"pair {row}" if data.pairs is not None else name_of(data.query, row) for row in first)
        ceiling = f"if they count as 0, mAP cannot exceed {1 - count / len(labels):.4f}"
        findings.append(AuditFinding(kind, count, len(labels), examples, ceiling))
    return [*findings, _class_order(database), _untrained_classes(data), _non_binary_labels(data)]


def _class_order(database: Split) -> AuditFinding:
    """Labels shared by adjacent rows, compared with random order: n_c (n_c - 1) / N for a class c of n_c images."""
    labels = database.labels > 0
    sizes = labels.sum(0).double()
    shared = int((labels[1:] & labels[:-1]).sum())
    chance = float((sizes * (sizes - 1)).sum()) / max(1, len(labels))
    most = float((sizes - 1).clamp(min=0).sum())
    share = (shared - chance) / (most - chance) if most > chance else 0.0
    by_class = share > ORDERED and shared - chance > SIGNIFICANT * math.sqrt(chance + 1)
    detail = f"adjacent rows share {shared} labels; {chance:.0f} in random order, {most:.0f} if sorted by class"
    return AuditFinding("class-ordered-database", shared if by_class else 0, int(most), (), detail)


def _untrained_classes(data: Splits) -> AuditFinding:
    """Classes with a column in the training labels that have images in other parts only."""
    trained = (data.train.labels > 0).any(0)
    columns = slice(0, len(trained))
    used = (query_labels(data)[:, columns] > 0).any(0) | (data.database.labels[:, columns] > 0).any(0)
    missing = torch.nonzero(used & ~trained)[:, 0].tolist()
    names = [data.class_names[c] if c < len(data.class_names) else str(c) for c in missing[:EXAMPLES]]
    return AuditFinding("class-missing-in-train", len(missing), len(trained), tuple(names))


def _non_binary_labels(data: Splits) -> AuditFinding:
    count, examples = 0, list[str]()
    for part in data.parts().values():
        other = ((part.labels != 0) & (part.labels != 1)).any(1)
        count += int(other.sum())
        examples += _examples(part, other)
    total = sum(len(part) for part in data.parts().values())
    return AuditFinding("labels-not-binary", count, total, tuple(examples[:EXAMPLES]))


def image_findings(data: Splits, near: int | None, progress: ProgressCallback) -> list[AuditFinding]:
    """Findings that need the images, or vectors; each is read once."""
    if holds_vectors(data.database.images):
        return [AuditFinding(**vars(one)) for one in vector_findings(data, progress)]
    parts = data.parts()
    prints = compute_fingerprints(parts, near is not None, min(8, os.cpu_count() or 1), progress)
    total = sum(len(part) for part in parts.values())
    missing = sum(int((one.state == MISSING).sum()) for one in prints.values())
    if missing == total:
        return [AuditFinding("no-images", total, total, _state_examples(parts, prints, MISSING))]
    findings = [
        AuditFinding(
            name,
            sum(int((one.state == state).sum()) for one in prints.values()),
            total,
            _state_examples(parts, prints, state),
        )
        for name, state in (("damaged", DAMAGED), ("missing", MISSING))
    ]
    findings += [
        *lost_classes(data, {name: one.state == OK for name, one in prints.items()}),
        _value_ranges(parts, prints),
        _copies_inside(parts, prints),
        *([_near_inside(parts, prints, near)] if near is not None else []),
    ]
    training = ["train", *(["validation"] if data.validation is not None else [])]
    ids = data.query.ids.numpy()
    for where, names in (("database", ["database"]), ("train", training)):
        copies, similar = dict[int, str](), dict[int, str]()
        for name in names:
            sides = prints["query"], ids, prints[name], parts[name].ids.numpy()
            copies |= _describe_pairs(find_copies(*sides), data.query, parts[name])
            if near is not None:
                similar |= _describe_pairs(find_near_duplicates(*sides, near), data.query, parts[name])
        findings += [
            AuditFinding(name, len(pairs), len(ids), tuple(pairs.values())[:EXAMPLES])
            for name, pairs in ((f"query-copy-in-{where}", copies), (f"query-near-{where}", similar))
        ]
    return findings


def _copies_inside(parts: Mapping[str, Split], prints: Mapping[str, Fingerprints]) -> AuditFinding:
    """Exact copies of images inside each part."""
    count, unlike, examples, details = 0, 0, list[str](), list[str]()
    for name, part in parts.items():
        if pairs := find_copies_inside(prints[name], part.ids.numpy()):
            rows, originals = list(pairs), list(pairs.values())
            unlike += int((part.labels[rows] != part.labels[originals]).any(1).sum())
            count += len(pairs)
            examples += _describe_pairs(dict(list(pairs.items())[:EXAMPLES]), part, part).values()
            details.append(f"{len(pairs)} in {name}")
    total = sum(len(part) for part in parts.values())
    detail = ", ".join(details) + (f"; {unlike} with other labels than the first" if unlike else "")
    return AuditFinding("copies-in-a-part", count, total, tuple(examples[:EXAMPLES]), detail)


def _near_inside(parts: Mapping[str, Split], prints: Mapping[str, Fingerprints], distance: int) -> AuditFinding:
    """Images inside each part that look like an earlier one."""
    count, examples, details = 0, list[str](), list[str]()
    for name, part in parts.items():
        sides = prints[name], part.ids.numpy()
        near = {row: other for row, other in find_near_duplicates(*sides, *sides, distance).items() if other < row}
        if near:
            count += len(near)
            examples += _describe_pairs(dict(list(near.items())[:EXAMPLES]), part, part).values()
            details.append(f"{len(near)} in {name}")
    total = sum(len(part) for part in parts.values())
    return AuditFinding("near-in-a-part", count, total, tuple(examples[:EXAMPLES]), ", ".join(details))


def _value_ranges(parts: Mapping[str, Split], prints: Mapping[str, Fingerprints]) -> AuditFinding:
    """Images whose range of values was recognized."""
    rows = {name: [row for row in one.reasons if one.state[row] == OK] for name, one in prints.items()}
    total = sum(len(part) for part in parts.values())
    examples = [
        f"{name_of(parts[n], row)}: {prints[n].reasons[row]}" for n, found in rows.items() for row in found[:EXAMPLES]
    ]
    return AuditFinding("value-range", sum(map(len, rows.values())), total, tuple(examples[:EXAMPLES]))


def _describe_pairs(pairs: Mapping[int, int], query: Split, other: Split) -> dict[int, str]:
    return {row: f"{name_of(query, row)} = {name_of(other, match)}" for row, match in pairs.items()}


def _state_examples(parts: Mapping[str, Split], prints: Mapping[str, Fingerprints], state: int) -> tuple[str, ...]:
    """Examples of images in a state, each with the reason."""
    examples: dict[str, None] = {}
    for name, part in parts.items():
        for row in np.flatnonzero(prints[name].state == state)[:EXAMPLES].tolist():
            examples[f"{name_of(part, row)}: {prints[name].reasons[row]}"] = None
    return tuple(examples)[:EXAMPLES]


def report(findings: Iterable[AuditFinding], notes: Mapping[str, str], allowed: Sequence[str]) -> list[dict[str, Any]]:
    """Findings as plain dicts, with their status, why they matter and how to fix them."""
    records = []
    for finding in findings:
        kind, status = KINDS[finding.name], finding.status(notes, allowed)
        records.append(
            {
                "finding": finding.name,
                "status": status,
                "count": finding.count,
                "of": finding.total,
                "examples": list(finding.examples),
                "detail": finding.detail,
                "why": kind.why,
                "cure": kind.cure if status != "declared" else f"declared: {kind.note}: {notes[kind.note]}",
            }
        )
    return records
