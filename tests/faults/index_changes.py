"""Changes of an index folder in processes that are ended, or whose disk fails."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from hashzoo.errors import HashzooError
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_writer import MetadataTable
from tests.retrieval.folders import METADATA, entries

#: "put" with contents by id, "remove" with ids, "compact", "merge", "describe" with a value for all, or "create".
Change = tuple[str, Any]


def changes_of(seed: int, contents: dict[str, int]) -> Change:
    """The change with a number, of an index with these contents."""
    lots = random.Random(seed)
    kind = lots.choice(["put", "put", "remove", "compact", "merge"])
    if kind == "put" or not contents:
        return "put", {f"{lots.randrange(400)}.jpg": lots.randrange(10**6) for _ in range(lots.choice([1, 20, 150]))}
    if kind == "remove":
        return "remove", lots.sample(sorted(contents), min(len(contents), lots.choice([1, 10, 100])))
    return kind, None


def changed(contents: dict[str, int], change: Change) -> dict[str, int]:
    """The contents after a change."""
    kind, given = change
    kept = dict(contents)
    for name in given if kind in ("put", "remove") else ():
        kept.pop(name, None)
    return kept | given if kind == "put" else kept


def make(path: Path, change: Change) -> None:
    """Make a change."""
    kind, given = change
    if kind == "create":
        IndexFolder.create(path, METADATA)
        return
    with IndexFolder(path).writing() as writer:
        if kind == "put":
            writer.put(*entries(given))
        elif kind == "remove":
            writer.remove(given)
        elif kind == "describe":
            writer.set_metadata(MetadataTable({"year": "INTEGER"}, {item.id: [given] for item in writer.items()}))
        elif kind == "merge":
            writer.merge_last()
        else:
            writer.compact()


def work(path: Path, seeds: range, contents: dict[str, int], pipe: Any) -> None:
    """Make changes one after another, and tell of each one that is complete."""
    for seed in seeds:
        change = changes_of(seed, contents)
        make(path, change)
        contents = changed(contents, change)
        pipe.send(seed)


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except HashzooError as error:
        print(json.dumps([error.exit_code, str(error)]))
    else:
        print(json.dumps([0, ""]))
