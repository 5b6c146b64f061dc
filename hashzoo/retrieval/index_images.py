"""Images of an index folder: which are new or have changed since, and their codes. torch is imported to encode only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashzoo.data import image_paths
from hashzoo.data.image_files import short_digest
from hashzoo.errors import EnvironmentFailure, UsageError, printable
from hashzoo.retrieval import metadata_file
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_transaction import creating, new_folder
from hashzoo.retrieval.index_writer import IndexWriter, Item, MetadataTable

if TYPE_CHECKING:
    from hashzoo.retrieval.encoder import Encoder, ImageLike
    from hashzoo.types import ProgressCallback

SETTLED = 2_000_000_000  # nanoseconds after which a file that changes again has another time


@dataclass(frozen=True)
class Update:
    """How an index is updated.

    Attributes:
        encoder: Opens the method; called only if there is an image to encode.
        metadata: A CSV file; see :func:`hashzoo.retrieval.metadata_file.read`.
        delete: Remove images whose files, in the given folders, do not exist any more; None does not look for them.
        strict: Raise for an image that does not decode, instead of leaving it out.
        wait: Seconds to wait for another writer.
        progress: Called with the number of images that were encoded and their total.
    """

    encoder: Callable[[], Encoder]
    metadata: Path | None = None
    delete: bool | None = False
    strict: bool = False
    wait: float = 0.0
    progress: ProgressCallback | None = None


@dataclass
class Changes:
    """What an update did.

    Attributes:
        added: Number of new images.
        changed: Number of images with new content, which were encoded again.
        unchanged: Number of images with the same content.
        removed: Number of images removed, since their files do not exist.
        gone: Ids of images whose files do not exist, and which the index keeps.
        left_out: A line for each image that was left out.
        unknown: Names in the metadata that the index does not have.
        images: Number of images in the index.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    gone: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    images: int = 0


@dataclass
class _Found:
    """Images that were compared with an index: those to encode, and those that only have another name or time."""

    encode: list[tuple[Path, Item]] = field(default_factory=list)
    touched: list[Item] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)


def update_index(
    folder: str | os.PathLike[str] | IndexFolder,
    images: Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    delete: bool = False,
    metadata: str | os.PathLike[str] | None = None,
) -> Changes:
    """Add new images to an index folder, and encode those again that have changed.

    An image is compared by the digest of its file. A file whose size and time of modification are those of the last
    update is not read.

    Args:
        folder: The index folder, or its path.
        images: Image files, and folders, which stand for all images below them.
        run: The ``.json`` of the cell whose method built the index; needed if the cell was moved.
        device: Where images are encoded.
        plugins: Plugin files or modules to load.
        delete: Remove images whose files, in ``images``, do not exist any more.
        metadata: A CSV file of metadata with a column ``id`` or ``path``.

    Returns:
        What was done. It takes effect in one step, or not at all if an exception is raised.

    Raises:
        UsageError: If a path does not exist.
        EnvironmentFailure: If another process is changing the index, or the disk fails.
    """
    opened = folder if isinstance(folder, IndexFolder) else IndexFolder(folder)
    encoder = encoder_of(opened, None if run is None else Path(run), device, plugins)
    given = None if metadata is None else Path(metadata)
    return update(opened, [Path(image) for image in images], Update(encoder, given, delete))


def encoder_of(
    folder: IndexFolder, run: Path | None = None, device: str = "cpu", plugins: Sequence[str] = ()
) -> Callable[[], Encoder]:
    """A function that opens the method that built an index; its arguments are those of :func:`update_index`."""

    def opened() -> Encoder:
        from hashzoo.retrieval.encoder import Encoder
        from hashzoo.retrieval.image_index import open_encoder

        with folder.snapshot() as state:
            stored = StoredCodes(state.metadata, [], {})
        return open_encoder(Encoder, stored, folder.path, run, device=device, plugins=plugins)

    return opened


def update(folder: IndexFolder, images: Sequence[Path], how: Update) -> Changes:
    """Update an index; see :func:`update_index`. Without images, only metadata is set."""
    if not images and how.metadata is None:
        raise UsageError("there is nothing to update; name images, or a CSV file with --metadata")
    described = None if how.metadata is None else metadata_file.read(how.metadata)
    with folder.writing(how.wait) as writer:
        changes = Changes()
        if images:
            _update_images(writer, images, how, {} if described is None else described.ids, changes)
        if described is not None:
            changes.unknown = set_metadata(writer, described)
        changes.images = writer.count()
    return changes


def _update_images(
    writer: IndexWriter, images: Sequence[Path], how: Update, ids: Mapping[str, str], changes: Changes
) -> None:
    root = Path(writer.metadata["root"])
    listed = image_paths.find_images(images)
    _refuse_left_out(listed.left_out, how.strict)
    changes.left_out += listed.left_out
    found = _compare(listed, root, ids, writer, changes)
    if how.delete is not None:
        _find_gone(writer, root, images, how.delete, changes)
    if found.encode:
        items, stored = _encode(how.encoder(), found.encode, list(writer.metadata["codes"]), how, changes.left_out)
        changes.changed = sum(writer.find(item.id) is not None for item in items)
        changes.added = len(items) - changes.changed
        writer.put(items, stored.arrays)
    for item in found.touched:
        writer.touch(item)
    if found.renamed:
        writer.remove(found.renamed)


def build(
    output: Path, images: Sequence[Path], root: Path | None, how: Update, codes: Callable[[Encoder], tuple[Any, str]]
) -> Changes:
    """Create an index folder of images.

    Args:
        output: The folder, which does not exist.
        images: Image files and folders.
        root: The folder that ids are relative to; None for the common parent of the images.
        how: How images are encoded and described.
        codes: Gives, of the method, the names of the codes to keep, and that by whose Hamming distance it ranks.
    """
    described = None if how.metadata is None else metadata_file.read(how.metadata)
    with new_folder(output):
        listed = image_paths.find_images(images)
        _refuse_left_out(listed.left_out, how.strict)
        encoder = how.encoder()
        names, ranks_by = codes(encoder)
        changes = Changes(left_out=list(listed.left_out))
        base = listed.root if root is None else Path(os.path.abspath(root))  # noqa: PTH100 - links stay
        found = _compare(listed, base, {} if described is None else described.ids, None, changes)
        items, stored = _encode(encoder, found.encode, names, how, changes.left_out)
        if not items:
            raise EnvironmentFailure(f"none of {len(listed.images)} images decodes: {changes.left_out[0]}")
        metadata = {name: value for name, value in stored.metadata.items() if name != "count"}
        metadata |= {"root": str(base), "ranks_by": ranks_by, "run": _inside(output, stored.metadata["run"])}
        with creating(output, metadata) as writer:
            writer.put(items, stored.arrays)
            if described is not None:
                changes.unknown = set_metadata(writer, described)
            changes.added = changes.images = writer.count()
    return changes


def _inside(output: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a cell; one that lies in the index is named relative to it."""
    cell, folder = Path(run["cell"]), os.path.abspath(output)  # noqa: PTH100 - links stay
    return {**run, "cell": cell.name if str(cell.parent) == folder else str(cell)}


def _refuse_left_out(lines: Sequence[str], strict: bool) -> None:
    if strict and lines:
        raise EnvironmentFailure(f"{lines[0]} ({len(lines)} such files in total)")


def name_of(root: Path, file: Path) -> str:
    """The id of a file: its path relative to the root, or its absolute path if it is outside.

    >>> name_of(Path("/a"), Path("/a/b/c.jpg")), name_of(Path("/a"), Path("/d.jpg"))
    ('b/c.jpg', '/d.jpg')
    """
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def _compare(
    listed: image_paths.ImageList, root: Path, ids: Mapping[str, str], writer: IndexWriter | None, changes: Changes
) -> _Found:
    """Compare images with those of an index, by size and time, then by digest.

    The digest is that of the file before it is encoded: if the file changes in between, its time does too, and the next
    update finds the difference.
    """
    found, now = _Found(), time.time_ns()
    for relative in listed.images:
        file = listed.root / relative
        name = name_of(root, file)
        by_file = None if writer is None else writer.find_file(name)
        item = ids.get(name, name if by_file is None else by_file.id)
        known = by_file if writer is None or (by_file and by_file.id == item) else writer.find(item)
        try:
            status = file.stat()
            modified = status.st_mtime_ns if status.st_mtime_ns < now - SETTLED else None
            own = None if name == item else name
            if known and modified and (known.bytes, known.modified, known.file) == (status.st_size, modified, own):
                changes.unchanged += 1
                continue
            new = Item(item, own, short_digest(image_paths.read_image_file(file)), status.st_size, modified)
        except (OSError, EnvironmentFailure) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            changes.left_out.append(f"{printable(file)} cannot be read: {reason}")
            continue
        if known and known.digest == new.digest:
            changes.unchanged += 1
            found.touched.append(new)
        else:
            found.encode.append((file, new))
        if by_file and by_file.id != item:
            found.renamed.append(by_file.id)
    return found


def _find_gone(writer: IndexWriter, root: Path, images: Sequence[Path], delete: bool, changes: Changes) -> None:
    """Find, and remove, items whose files were in folders and do not exist any more."""
    folders = [Path(os.path.abspath(path)) for path in images if path.is_dir()]  # noqa: PTH100 - links stay
    for item in writer.items() if folders else ():
        file = root / (item.id if item.file is None else item.file)
        if any(file.is_relative_to(folder) for folder in folders) and not os.path.lexists(file):
            changes.gone.append(item.id)
    if delete:
        changes.removed = writer.remove(changes.gone)
        changes.gone = []


def _encode(
    encoder: Encoder, wanted: Sequence[tuple[Path, Item]], names: Sequence[str] | None, how: Update, left_out: list[str]
) -> tuple[list[Item], StoredCodes]:
    """Encode images; those that do not decode are left out."""
    collector, rows = CodeCollector(names), list[int]()
    files: list[ImageLike] = [file for file, _ in wanted]
    on_unreadable = None if how.strict else lambda _, reason: left_out.append(reason)
    for indices, codes in encoder.encode_batches(files, on_unreadable, how.progress):
        collector.add(codes)
        rows += indices
    items = [wanted[row][1] for row in rows]
    return items, collector.finish(encoder.describe(), Path(), [Path(item.id) for item in items])


def set_metadata(writer: IndexWriter, described: metadata_file.MetadataFile) -> list[str]:
    """Set the metadata of a file; the names in it that the index does not have."""
    table = described.table
    if described.by_path:
        found = {name: item.id for name in table.rows if (item := writer.find_file(name))}
        rows = {found.get(name, name): values for name, values in table.rows.items()}
        table = MetadataTable(table.columns, rows)
    return writer.set_metadata(table)
