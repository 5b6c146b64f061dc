"""Image files as they are stored, and how each becomes an image."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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

from hashzoo.errors import EnvironmentFailure

#: The version of :func:`decode`. Raise it with any change that gives another image, or refuses another file.
DECODER = 1

#: Images above this many pixels are refused: a small file can hold an image of many gigabytes.
PIXELS = 64 << 20

#: The same of JPEGs, which are read at 1/2, 1/4 or 1/8 of their sides until they have at most ``PIXELS``.
JPEG_PIXELS = 8 * PIXELS

#: Bytes of coefficients of a JPEG that must be held in memory at full size, as those of a progressive one.
COEFFICIENTS = 512 << 20

#: Kinds of file by their first bytes. ``Image.open`` would also run the decoders of exotic ones (EPS starts another
#: program), and warns or refuses by limits of its own.
KINDS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
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

#: EXIF 2.3, tag 0x0112: what brings an image upright.
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
STRIP = 1 << 20  # pixels that are converted at a time
LARGE = PIXELS // 4  # larger ones are decoded by one thread at a time
ONE_AT_A_TIME = threading.Lock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of odd files is said by our errors


class ImageFiles(Sequence[Any], ABC):
    """A sequence of image files, decoded one at a time, when asked for. Nothing is held in memory.

    What a dataset gives as ``Split.images`` where images are files: fingerprints are then made of the bytes of the
    files, and images that do not decode are found before anything is trained. ``form`` says what is done with a
    image after it is decoded, as "256 x 256", and is part of fingerprints; empty where nothing is.
    """

    form: str = ""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The bytes of one file. OSError where they cannot be read."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What a message calls the image: a path, or a name inside an archive."""

    @abstractmethod
    def stamp(self, row: int) -> str:
        """Text that changes whenever the file does, found without reading it (a path, its size and time)."""

    def __getitem__(self, row: Any) -> Any:
        """One image, upright, in RGB. EnvironmentFailure naming it where it does not decode."""
        if row >= len(self):
            raise IndexError(row)
        try:
            return decode(self.read(row))
        except (EnvironmentFailure, OSError) as error:
            raise EnvironmentFailure(f"{self.name(row)}: {error}") from error


def decode(data: bytes) -> Image.Image:
    """The image in a file's bytes, upright, in RGB. EnvironmentFailure with the reason where it does not decode.

    JPEG, PNG, GIF, WebP, TIFF and BMP are read, of several images the first. What is see-through stands on white;
    16 bits become 8; colour profiles are not applied. The image and what decodes it take less than 1 GiB.
    """
    hush()
    try:
        with _opened(data) as file, _place(file):
            file.load()
            turn = _turn(file)
            image = in_rgb(file)
            if turn is None:
                return image
            upright = image.transpose(turn)
            upright.info.clear()  # it would still say how to turn the image
            return upright
    except EnvironmentFailure:
        raise
    except Image.DecompressionBombError as error:
        raise EnvironmentFailure(f"it has more than the {PIXELS} pixels that are read; make it smaller") from error
    except MemoryError as error:
        raise EnvironmentFailure("it needs more memory than there is") from error
    except Exception as error:  # damaged bytes lead Pillow to nearly any
        raise EnvironmentFailure(_reason(error)) from error


def hush() -> None:
    """Turn Pillow's warnings on odd files off, wherever warnings have been made errors since.

    ``warnings.catch_warnings`` would do it for one call, but swaps the filters of all threads.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or "PIL" not in str(first[3]):
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _opened(data: bytes) -> ImageFile.ImageFile:
    """A file whose header is read and whose image is not."""
    if not data:
        raise EnvironmentFailure("the file is empty")
    kind = next((reader for start, reader in KINDS if data.startswith(start)), None)
    if kind is None:
        raise EnvironmentFailure("it is no JPEG, PNG, GIF, WebP, TIFF or BMP")
    file = kind(io.BytesIO(data))
    _check(file, data)
    return file


def _place(file: ImageFile.ImageFile) -> AbstractContextManager[Any]:
    """What a thread waits for before it decodes: nothing, but where the image is large."""
    return ONE_AT_A_TIME if file.width * file.height > LARGE else nullcontext()


def _turn(file: ImageFile.ImageFile) -> Image.Transpose | None:
    """How an image must be turned to stand upright; damaged EXIF turns nothing."""
    try:
        return UPRIGHT.get(file.getexif().get(ORIENTATION, 1))
    except Exception:
        return None


def _check(file: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse what would take too much memory, before any is taken; a large JPEG is set to be read smaller."""
    width, height = file.size
    limit, why = PIXELS, ""
    if isinstance(file, JpegImagePlugin.JpegImageFile):
        limit = JPEG_PIXELS
        if not _one_scan(file, data):
            limit, why = min(limit, int(COEFFICIENTS / _coefficients(file))), " in such a JPEG of several scans"
    if isinstance(file, WebPImagePlugin.WebPImageFile):
        limit, why = PIXELS // 2, " in a WebP"  # its decoder holds the image three times
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        across, down = (int(file.tag_v2.get(tag, 1)) for tag in TILE_SIDES)
        if across * down > PIXELS:
            raise EnvironmentFailure(f"it has tiles of {across} x {down} pixels; at most {PIXELS} pixels are read")
    if width < 1 or height < 1:
        raise EnvironmentFailure("it has no pixels")
    if width * height > limit:
        raise EnvironmentFailure(f"it has {width} x {height} pixels; at most {limit} are read{why}; make it smaller")
    scale = next(s for s in (1, 2, 4, 8) if width * height <= PIXELS * s * s)
    if scale > 1:
        file.draft(None, (width // scale, height // scale))


def _one_scan(file: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Whether a JPEG just opened holds its components in one scan, so that it can be decoded line by line.

    Else, as when it is progressive, all its coefficients are held in memory, at the full size.
    """
    length = 6 + 2 * file.layers  # of the header of a scan with every component (ITU T.81, B.2.3)
    header = b"\xff\xda" + length.to_bytes(2, "big")
    end = file.fp.tell() if file.fp else 0
    return "progressive" not in file.info and data[: end - length + 2].endswith(header)


def _coefficients(file: JpegImagePlugin.JpegImageFile) -> float:
    """Bytes of coefficients for each pixel: two for each component, less where it is sampled more coarsely."""
    sides = [(max(1, across), max(1, down)) for _, across, down, _ in file.layer]
    most = max(across for across, _ in sides) * max(down for _, down in sides)
    return 2 * sum(across * down for across, down in sides) / most


def in_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB, what is see-through on white, integers and floats of more than 8 bits scaled.

    A strip at a time, so that little is in memory in more than two modes.

    >>> in_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> in_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
    (255, 255, 255)
    """
    deep = image.mode[0] in "IF"
    clear = image.has_transparency_data and not deep
    if image.mode == "RGB" and not clear:
        return image
    low, high = span(image) if deep else (0.0, 255.0)
    made = Image.new("RGB", image.size, "white")
    for top, strip in strips(image):
        if clear:
            seen = strip.convert("RGBA")
            made.paste(seen, (0, top), seen)
        elif deep:
            values = np.nan_to_num(np.asarray(strip, np.float64), nan=low, posinf=high, neginf=low)
            light = ((values - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)
            made.paste(Image.fromarray(light).convert("RGB"), (0, top))
        else:
            made.paste(strip.convert("RGB"), (0, top))
    return made


def span(image: Image.Image) -> tuple[float, float]:
    """The values that stand for black and white in an image of more than 8 bits.

    Those of its type where the values agree with one: 0 to 1 (floats), 255 or 65535. Else its own least and largest.

    >>> span(Image.new("I;16", (1, 1), 300)), span(Image.new("F", (1, 1), 0.5)), span(Image.new("F", (1, 1), -2.0))
    ((0.0, 65535.0), (0.0, 1.0), (-2.0, -1.0))
    """
    if image.mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = np.inf, -np.inf
    for _, strip in strips(image):
        values = np.asarray(strip, np.float64)
        finite = np.isfinite(values)
        low = min(low, float(values.min(initial=np.inf, where=finite)))
        high = max(high, float(values.max(initial=-np.inf, where=finite)))
    if low > high:
        return 0.0, 1.0  # no number in it is finite
    for white in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high if high > low else low + 1.0


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image in strips of some rows, each with the row where it begins."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _reason(error: Exception) -> str:
    """One line in words for whatever damaged bytes led to."""
    text = " ".join(str(error).split())[:200]
    plain = isinstance(error, OSError | SyntaxError | ValueError) and any(c.isalpha() for c in text)
    return f"it is damaged ({text})" if plain else f"it is damaged ({type(error).__name__} {text})".replace(" )", ")")


def digest(data: bytes) -> bytes:
    """16 bytes that stand for a file's content."""
    return hashlib.sha256(data).digest()[:16]
