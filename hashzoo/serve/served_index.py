"""An index that is searched, and changed, while it is served.

Readers see the last state of an index folder; a change takes effect in one step. If the last state cannot be read, the
one before it is searched, and ``check`` tells the problem. Methods are not required to be thread-safe, so the caller
runs ``encode`` and the searches one at a time; a change can run beside them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hashzoo.data.image_files import short_digest
from hashzoo.errors import EnvironmentFailure, HashzooError, UsageError, printable
from hashzoo.hamming.packing import pack, unpack
from hashzoo.retrieval.code_file import array_name, binary_codes
from hashzoo.retrieval.hit import Hit
from hashzoo.retrieval.image_index import ImageIndex, open_index
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_snapshot import DATABASE, Snapshot, is_folder, read_about
from hashzoo.retrieval.index_writer import Item, MetadataTable
from hashzoo.retrieval.metadata_file import Value
from hashzoo.storage.database import database_errors, open_readable
from hashzoo.storage.files import replace_bytes
from hashzoo.types import Codes

logger = logging.getLogger("hashzoo.serve")

REFRESH = 1.0  # seconds after which the folder is asked whether another process has changed it
STATES = 3  # states whose rows can still be addressed
WAIT = 10.0  # seconds for another process that changes the index
SEGMENTS = 64  # after which a change merges the last ones
UPLOADS = "uploads"  # images that were sent, in the index folder


@dataclass(frozen=True)
class NewItem:
    """An item to add or replace.

    Attributes:
        id: Its id.
        codes: Its codes, (1, K) bool or (1, ...) values.
        image: The bytes of its image file; empty if only codes were sent.
        suffix: The suffix of the image file, such as ``.png``.
        metadata: Values of metadata columns by name.
    """

    id: str
    codes: Codes
    image: bytes
    suffix: str
    metadata: Mapping[str, Value]


class ServedIndex:
    """An index file, or an index folder of which the last state is searched.

    Args:
        path: The index.
        opening: Arguments of :func:`hashzoo.open_index`.
    """

    def __init__(self, path: Path, **opening: object) -> None:
        self.path, self.changeable = path, is_folder(path)
        self._index = open_index(path, **opening)  # type: ignore[arg-type]
        self.encoder, self._root = self._index.encoder, opening.get("root")
        self._state = self._read_state()
        self._known = {self._state: self._index}
        self._checked, self._guard, self._writing = time.monotonic(), threading.Lock(), threading.Lock()
        self._problem = ""

    def current(self) -> tuple[int, ImageIndex]:
        """The last state that could be read, and its number; at most ``REFRESH`` seconds old."""
        with self._guard:
            if self.changeable and time.monotonic() - self._checked >= REFRESH:
                self._refresh()
            return self._state, self._index

    def check(self) -> int:
        """The number of the last state.

        Raises EnvironmentFailure if it cannot be read, or the folder was replaced by an index of another method.
        """
        with self._guard:
            if self.changeable:
                self._refresh()
            if self._problem:
                raise EnvironmentFailure(self._problem)
            return self._state

    def _refresh(self) -> None:
        try:
            if self._read_state() != self._state:
                self._open()
            self._problem = ""
        except HashzooError as error:
            if str(error) != self._problem:
                logger.error("%s (the state before is searched until then)", error)
            self._problem = str(error)
        self._checked = time.monotonic()

    def at(self, state: int) -> ImageIndex | None:
        """One of the last states by its number; None if it is not kept any more."""
        with self._guard:
            return self._known.get(state)

    def _read_state(self) -> int:
        if not self.changeable:
            return 0
        if not is_folder(self.path):
            raise EnvironmentFailure(f"there is no index in {printable(self.path)} any more; restore it from a copy")
        with database_errors("read", self.path / DATABASE):
            connection = open_readable(self.path / DATABASE)
            try:
                return read_about(connection, self.path)[1]
            finally:
                connection.close()

    def _open(self) -> None:
        snapshot = Snapshot(self.path)
        if snapshot.metadata["run"]["state"] != self._index.metadata["run"]["state"]:
            raise EnvironmentFailure("the index was built anew with another method; start hashzoo serve again")
        self._index, self._state = self._of(snapshot), snapshot.state
        self._known[self._state] = self._index
        for old in sorted(self._known)[:-STATES]:
            del self._known[old]

    def _of(self, snapshot: Snapshot) -> ImageIndex:
        root = None if self._root is None else Path(str(self._root))
        return ImageIndex(snapshot.stored(), self.encoder, root)

    def encode(self, images: Sequence[Image.Image]) -> Codes:
        """The codes of images."""
        return self.encoder.encode(list(images))

    def unpacked(self, packed: Mapping[str, Sequence[bytes]]) -> Codes:
        """Codes of packed bits by name. Raises UsageError for a code of another length or name."""
        codes: Codes = {}
        for name, rows in packed.items():
            spec = self._index.metadata["codes"].get(name)
            if spec is None or "bits" not in spec:
                raise UsageError(f"the index has no binary code {name!r}; it has: {', '.join(self.binary())}")
            if wrong := next((row for row in rows if len(row) != spec["bytes"]), None):
                raise UsageError(f"a code {name!r} has {spec['bits']} bits in {spec['bytes']} bytes, not {len(wrong)}")
            array = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), spec["bytes"])
            codes[name] = torch.from_numpy(unpack(array, spec["bits"]))
        return codes

    def binary(self) -> dict[str, int]:
        """The bits of each binary code by its name."""
        return binary_codes(self._index.metadata)

    def search(
        self, queries: Codes | Sequence[str], k: int, radius: int | None = None, where: str = ""
    ) -> tuple[int, list[list[Hit]]]:
        """The nearest images of codes, or of images of the index by their ids, and the number of the state."""
        state, index = self.current()
        codes = queries if isinstance(queries, dict) else self._stored(index, queries)
        if where:
            if not self.changeable:
                raise UsageError("this index is a file without metadata; leave out where")
            with Snapshot(self.path, where) as snapshot:
                hits = _search(self._of(snapshot), codes, k, radius)
                return snapshot.state, hits
        return state, _search(index, codes, k, radius)

    def _stored(self, index: ImageIndex, ids: Sequence[str]) -> Codes:
        found = [index.codes(index.row(one)) for one in ids]
        return {name: torch.cat([codes[name] for codes in found]) for name in found[0]}

    def put(self, items: Sequence[NewItem]) -> tuple[int, int, int]:
        """Add items, or replace those with the same ids: the new state, and the numbers of added and replaced items.

        Raises:
            UsageError: If this is an index file, an id is given twice, or codes or metadata do not fit.
            EnvironmentFailure: If another process is changing the index, or the disk fails.
        """
        folder = self._folder()
        specs = self._index.metadata["codes"]
        for item in items:
            if missing := [name for name in specs if name not in item.codes]:
                raise UsageError(f"the item {item.id!r} has no code {missing[0]!r}; send its image, or all codes")
        arrays = {array_name(name, spec): _array(items, name, "bits" in spec) for name, spec in specs.items()}
        stored = [self._item(item) for item in items]
        with self._writing, folder.writing(WAIT) as writer:
            replaced = sum(writer.find(item.id) is not None for item in items)
            writer.put(stored, arrays)
            for table in _tables(items):
                writer.set_metadata(table)
            if writer.segments() > SEGMENTS:
                writer.merge_last()
        return self.check(), len(items) - replaced, replaced

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items, and the images that were sent for them: the new state. UsageError for an unknown id."""
        with self._writing, self._folder().writing(WAIT) as writer:
            files = [item.file for one in ids if (item := writer.find(one)) is not None]
            writer.remove(ids)
            left = [file for file in files if file and writer.find_file(file) is None]
        for file in left:
            if Path(file).parent == self._uploads():
                Path(file).unlink(missing_ok=True)
        return self.check()

    def _folder(self) -> IndexFolder:
        if not self.changeable:
            raise UsageError("this index is a file; hashzoo index convert makes a folder that can be changed")
        self.check()  # nothing is written to an index that cannot be read
        return IndexFolder(self.path)

    def _uploads(self) -> Path:
        return self.path.absolute() / UPLOADS

    def _item(self, item: NewItem) -> Item:
        """The item of the database, whose image is written first.

        Without an image, the file is one that does not exist, since an id must not address a file of this machine.
        """
        if not item.image:
            return Item(item.id, str(self._uploads() / "none"))
        digest = short_digest(item.image)
        file = self._uploads() / f"{digest.hex()}{item.suffix}"
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            replace_bytes(file, item.image)
        return Item(item.id, str(file), digest, len(item.image))


def _search(index: ImageIndex, codes: Codes, k: int, radius: int | None) -> list[list[Hit]]:
    return index.search(codes, k) if radius is None else index.within(codes, radius, k)


def _array(items: Sequence[NewItem], name: str, binary: bool) -> NDArray[np.uint8]:
    values = np.concatenate([item.codes[name].numpy() for item in items])
    return pack(values) if binary else np.ascontiguousarray(values)


def _tables(items: Sequence[NewItem]) -> list[MetadataTable]:
    """The metadata of items, one table for all that have the same columns."""
    found: dict[tuple[tuple[str, str], ...], dict[str, list[Value]]] = {}
    for item in items:
        named = sorted(item.metadata.items())
        columns = tuple((name, "TEXT" if isinstance(value, str) else "NUMERIC") for name, value in named)
        if columns:
            found.setdefault(columns, {})[item.id] = [value for _, value in named]
    return [MetadataTable(dict(columns), rows) for columns, rows in found.items()]
