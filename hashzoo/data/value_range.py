"""Images of more than 8 bits: which of their values are black and white."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile

from hashzoo.errors import EnvironmentFailure

#: The key in ``Image.info`` of the text about values that fill a part of their type only.
VALUES = "hashzoo_values"

STRIP = 1 << 20  # pixels that are converted at a time
DARK = 15  # the largest high byte of 12 bits
_NATIVE = "L" if sys.byteorder == "little" else "B"


def value_range(image: Image.Image) -> tuple[float, float]:
    """The values of black and white in an image of more than 8 bits.

    Black is 0 and white the smallest of 1 (floats only), 255, 4095 (integers only) and 65535 that no value exceeds:
    files of 16 bits often hold 8 or 12. If a value is negative or above 65535, they are the smallest and the largest
    value.

    >>> value_range(Image.new("I;16", (1, 1), 300)), value_range(Image.new("F", (1, 1), 0.5))
    ((0.0, 4095.0), (0.0, 1.0))
    >>> value_range(Image.new("F", (1, 1), -2.0))
    (-2.0, -1.0)
    """
    low, high = np.inf, -np.inf
    for _, strip in strips(image):
        values = np.asarray(strip, np.float64)
        finite = np.isfinite(values)
        low = min(low, float(values.min(initial=np.inf, where=finite)))
        high = max(high, float(values.max(initial=-np.inf, where=finite)))
    if low > high:
        return 0.0, 1.0  # no value is finite
    if high == 0 == low and image.mode != "F":
        return 0.0, 65535.0  # black in any range
    for white in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 4095.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high if high > low else low + 1.0


def describe_range(mode: str, low: float, high: float) -> str:
    """A text about values that fill a part of their type only; empty for the usual range of a type."""
    usual = 1.0 if mode == "F" else 65535.0
    kind = "float" if mode == "F" else "16-bit" if mode.startswith("I;16") else "32-bit"
    return "" if (low, high) == (0.0, usual) else f"{kind} file with values read as {low:g} (black) to {high:g} (white)"


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Strips of an image, each with its first row."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def sixteen_bits(file: ImageFile.ImageFile) -> str:
    """The raw mode of an opened color image of 16 bits a channel, of which Pillow decodes the high bytes; or empty."""
    raw = _raw_mode(file.tile[0][3]) if file.tile else ""
    mode, _, order = raw.partition(";16")
    return raw if mode in ("RGB", "RGBX", "RGBA", "LA") and order in ("B", "L", "N") else ""


def _raw_mode(args: object) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def is_dark(image: Image.Image) -> bool:
    """Whether no high byte of a color image exceeds that of 12 bits, so that the low bytes are needed."""
    return _highest(image) <= DARK


def _highest(image: Image.Image) -> int:
    """The largest value of a channel of color."""
    bands = 1 if image.mode == "LA" else 3
    return max(int(top) for _, top in image.getextrema()[:bands])  # type: ignore[misc]


def with_low_bytes(high: Image.Image, file: ImageFile.ImageFile, raw: str) -> Image.Image:
    """A color image of 16 bits a channel that holds 8 or 12 of them, scaled to 8.

    Args:
        high: The decoded image, which has the high bytes only.
        file: The same file, opened and not yet decoded.
        raw: Its raw mode. Read in the other byte order, the file gives the low bytes.

    Raises:
        EnvironmentFailure: For gray with transparency, of which Pillow cannot decode the low bytes.
    """
    if raw.startswith("LA"):
        raise EnvironmentFailure("16 bits with values below 4096 and transparency; save it with 8 bits")
    order = raw[-1] if raw[-1] != "N" else _NATIVE
    other = raw[:-1] + ("B" if order == "L" else "L")
    file.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in file.tile
    ]
    file.load()
    white = 4095.0 if _highest(high) else 255.0
    image = Image.new(high.mode, high.size)
    for (top, upper), (_, lower) in zip(strips(high), strips(file), strict=True):
        values = np.asarray(upper, np.float64) * 256 + np.asarray(lower, np.float64)
        scaled = (values / white * 255).round().clip(0, 255).astype(np.uint8)
        if high.mode == "RGBA":
            scaled[..., 3] = np.asarray(upper)[..., 3]  # transparency has its own range
        image.paste(Image.fromarray(scaled, high.mode), (0, top))
    if _highest(image):
        image.info[VALUES] = describe_range("I;16", 0.0, white)
    return image
