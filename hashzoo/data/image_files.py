"""Image files and their decoding, with limits on memory."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from hashzoo.data.formats import iso_format, open_iso, refuse_thumbnail, refuse_undecoded
from hashzoo.data.value_range import (
    VALUES,
    describe_range,
    is_dark,
    sixteen_bits,
    strips,
    value_range,
    with_low_bytes,
)
from hashzoo.errors import EnvironmentFailure

#: Version of :func:`decode`. Increment it with any change of the decoded images or of the files that are refused.
DECODER = 2

#: Images with more pixels are refused: a small file can contain an image of many gigabytes.
MAX_PIXELS = 64 << 20

#: The same limit for JPEGs, which are decoded at 1/2, 1/4 or 1/8 of their size until they have ``MAX_PIXELS`` or less.
MAX_JPEG_PIXELS = 8 * MAX_PIXELS

#: Limit on the bytes of coefficients of a JPEG that its decoder keeps in memory, as for progressive JPEGs.
MAX_COEFFICIENT_BYTES = 512 << 20

#: Divisors of the size at which a JPEG can be decoded.
SCALES = (1, 2, 4, 8)

#: Decoders by the first bytes of a file. ``Image.open`` would also run the decoders of rare formats (EPS starts another
#: program), and has its own limits and warnings.
DECODERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
)

DECODED = tuple(reader for _, reader in DECODERS)

#: EXIF 2.3, tag 0x0112, and the transposition that makes an image upright for each value.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

TILE_SIDES = (322, 323)  # TIFF 6.0: TileWidth, TileLength
LARGE = MAX_PIXELS // 4  # larger images are decoded by one thread at a time
_LARGE_IMAGE = threading.Lock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # our errors report the same problems


class ImageFiles(Sequence[Any], ABC):
    """A sequence of image files that are decoded one at a time, on access. Base class for ``Split.images``.

    Subclasses implement ``__len__``, ``read``, ``name`` and ``stamp``. hashzoo then computes fingerprints from the
    bytes of the files, and finds images that cannot be decoded before it trains anything.

    Attributes:
        form: What is done with an image after decoding, such as ``"256 x 256"``; part of fingerprints. Empty if images
            are used as decoded.
    """

    form: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """Read one file.

        Args:
            row: The index of the image.

        Returns:
            The bytes of the file.

        Raises:
            OSError: If the file cannot be read.
        """

    @abstractmethod
    def name(self, row: int) -> str:
        """The name of an image in messages.

        Args:
            row: The index of the image.

        Returns:
            A path, or a name inside an archive.
        """

    @abstractmethod
    def stamp(self, row: int) -> str:
        """Identify the content of a file without reading it.

        Args:
            row: The index of the image.

        Returns:
            Text that changes whenever the file changes, such as its path, size and time of modification.

        Raises:
            OSError: If the file does not exist.
        """

    def __getitem__(self, row: Any) -> Any:
        """Decode one image.

        Args:
            row: The index of the image.

        Returns:
            The image (``PIL.Image.Image``), upright, in RGB.

        Raises:
            IndexError: If there is no such row.
            EnvironmentFailure: If the image cannot be read or decoded; the message names it.
        """
        return self.decoded(row)

    def decoded(self, row: int, side: int | None = None) -> Image.Image:
        """Decode one image, as by index, or a JPEG at a fraction of its size whose sides are at least ``side``."""
        if row >= len(self):
            raise IndexError(row)
        try:
            return decode(self.read(row), side)
        except (EnvironmentFailure, OSError) as error:
            raise EnvironmentFailure(f"{self.name(row)}: {error}") from error


def decode(data: bytes, side: int | None = None) -> Image.Image:
    """Decode the bytes of an image file, upright, in RGB. Raises EnvironmentFailure with the reason.

    With ``side``, a JPEG is decoded at a half, a quarter or an eighth of its size if its sides are at least ``side``
    then: this takes less time, and the mean of a block of pixels replaces the filter of a later resizing.

    JPEG, PNG, GIF, WebP, TIFF and BMP are supported, and HEIC and AVIF if a package decodes them; of several frames the
    first is used. Transparent pixels are blended with white, 16 bits are reduced to 8, and color profiles are not
    applied. If the values of an image of more than 8 bits fill a part of their type only, ``image.info`` says which, as
    ``info[VALUES]``. Decoding takes less than 1 GiB.
    """
    silence_pillow()
    try:
        with _open(data, side) as file, _decoding_slot(file):
            raw = sixteen_bits(file)
            file.load()
            transposition = _transposition(file)
            image = to_rgb(with_low_bytes(file, _open(data), raw) if raw and is_dark(file) else file)
            if transposition is None:
                return image
            upright = image.transpose(transposition)
            upright.info.clear()  # it still contains the EXIF orientation
            upright.info |= {key: image.info[key] for key in (VALUES,) if key in image.info}
            return upright
    except EnvironmentFailure:
        raise
    except Image.DecompressionBombError as error:
        raise EnvironmentFailure(f"more than {MAX_PIXELS} pixels; make the image smaller") from error
    except MemoryError as error:
        raise EnvironmentFailure("not enough memory to decode it") from error
    except Exception as error:  # Pillow raises many types of exceptions for damaged files
        raise EnvironmentFailure(_reason(error)) from error


def silence_pillow() -> None:
    """Ignore the warnings of Pillow, also if warnings have been turned into errors.

    ``warnings.catch_warnings`` could do it for one call, but replaces the filters of all threads.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or "PIL" not in str(first[3]):
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _open(data: bytes, side: int | None = None) -> ImageFile.ImageFile:
    """Open an image file: its header is read and checked, its pixels are not decoded."""
    if not data:
        raise EnvironmentFailure("the file is empty")
    decoder = next((reader for start, reader in DECODERS if data.startswith(start)), None)
    if decoder is None:
        kind = iso_format(data)
        if not kind:
            refuse_undecoded(data)
            raise EnvironmentFailure("not a JPEG, PNG, GIF, WebP, TIFF, BMP, HEIC or AVIF file")
        file = open_iso(data, kind)
    else:
        file = decoder(io.BytesIO(data))
    _check_size(file, data, side)
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        refuse_thumbnail(data, file.tag_v2)
    if isinstance(file, JpegImagePlugin.JpegImageFile) and file.mode == "CMYK" and "adobe" not in file.info:
        # Pillow takes every CMYK JPEG as inverted, which only Adobe's marker says
        file.tile = [tile._replace(args=("CMYK", "")) for tile in file.tile]
    return file


def _decoding_slot(file: ImageFile.ImageFile) -> AbstractContextManager[Any]:
    """Context for decoding: a lock for large images, so that one thread at a time decodes them."""
    return _LARGE_IMAGE if file.width * file.height > LARGE else nullcontext()


def _transposition(file: ImageFile.ImageFile) -> Image.Transpose | None:
    """The transposition that makes an image upright; None if there is none or its EXIF data is damaged."""
    try:
        return UPRIGHT.get(file.getexif().get(ORIENTATION, 1))
    except Exception:
        return None


def _check_size(file: ImageFile.ImageFile, data: bytes, side: int | None) -> None:
    """Refuse images that need too much memory, before it is allocated; set large JPEGs to decode at a lower size.

    Lower is also the size that ``side`` allows.
    """
    width, height = file.size
    limit, reason = MAX_PIXELS, ""
    if isinstance(file, JpegImagePlugin.JpegImageFile):
        limit = MAX_JPEG_PIXELS
        if not _one_scan(file, data):
            limit = min(limit, int(MAX_COEFFICIENT_BYTES / _coefficient_bytes(file)))
            reason = " for such a JPEG with several scans"
    if isinstance(file, WebPImagePlugin.WebPImageFile) or not isinstance(file, DECODED):
        limit, reason = MAX_PIXELS // 2, " for a WebP, HEIC or AVIF"  # decoders keep three copies of the image
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        tile_width, tile_height = (int(file.tag_v2.get(tag, 1)) for tag in TILE_SIDES)
        if tile_width * tile_height > MAX_PIXELS:
            raise EnvironmentFailure(f"tiles of {tile_width} x {tile_height} pixels; the limit is {MAX_PIXELS} pixels")
    if width < 1 or height < 1:
        raise EnvironmentFailure("the image has no pixels")
    if width * height > limit:
        raise EnvironmentFailure(
            f"{width} x {height} pixels; the limit is {limit} pixels{reason}; make the image smaller"
        )
    scale = next(s for s in SCALES if width * height <= MAX_PIXELS * s * s)
    if side:
        scale = max(scale, *(s for s in SCALES if s == 1 or min(width, height) >= s * side))
    if scale > 1:
        file.draft(None, (width // scale, height // scale))


def _one_scan(file: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Whether a newly opened JPEG stores its components in one scan, so that it can be decoded line by line.

    Otherwise, as for a progressive JPEG, the decoder keeps all coefficients in memory, at full size.
    """
    length = 6 + 2 * file.layers  # of the header of a scan with all components (ITU T.81, B.2.3)
    header = b"\xff\xda" + length.to_bytes(2, "big")
    end = file.fp.tell() if file.fp else 0
    return "progressive" not in file.info and data[: end - length + 2].endswith(header)


def _coefficient_bytes(file: JpegImagePlugin.JpegImageFile) -> float:
    """Bytes of coefficients per pixel: two per component, fewer for a subsampled component."""
    factors = [(max(1, horizontal), max(1, vertical)) for _, horizontal, vertical, _ in file.layer]
    largest = max(horizontal for horizontal, _ in factors) * max(vertical for _, vertical in factors)
    return 2 * sum(horizontal * vertical for horizontal, vertical in factors) / largest


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB: transparent pixels on white, values of more than 8 bits scaled to 8.

    It is converted in strips, so that few pixels are in memory in more than two modes.

    >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
    (255, 255, 255)
    """
    deep = image.mode[0] in "IF"
    transparent = image.has_transparency_data and not deep
    if image.mode == "RGB" and not transparent:
        return image
    low, high = value_range(image) if deep else (0.0, 255.0)
    rgb = Image.new("RGB", image.size, "white")
    if text := describe_range(image.mode, low, high) if deep else image.info.get(VALUES):
        rgb.info[VALUES] = text
    for top, strip in strips(image):
        if transparent:
            rgba = strip.convert("RGBA")
            rgb.paste(rgba, (0, top), rgba)
        elif deep:
            values = np.nan_to_num(np.asarray(strip, np.float64), nan=low, posinf=high, neginf=low)
            scaled = ((values - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)
            rgb.paste(Image.fromarray(scaled).convert("RGB"), (0, top))
        else:
            rgb.paste(strip.convert("RGB"), (0, top))
    return rgb


def _reason(error: Exception) -> str:
    """One readable line for an exception that a damaged file raised."""
    text = " ".join(str(error).split())[:200]
    readable = isinstance(error, OSError | SyntaxError | ValueError) and any(c.isalpha() for c in text)
    return f"damaged ({text})" if readable else f"damaged ({type(error).__name__} {text})".replace(" )", ")")


def short_digest(data: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 digest."""
    return hashlib.sha256(data).digest()[:16]
