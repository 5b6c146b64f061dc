"""Images in every form that occurs in users' folders, and ways to damage them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDES = (96, 64)


def scene(seed: int, sides: tuple[int, int] = SIDES) -> Image.Image:
    """Soft blobs of colour, another image for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(sides, Image.Resampling.BICUBIC)


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as the bytes of a file."""
    packed = io.BytesIO()
    image.copy().save(packed, kind, **options)
    return packed.getvalue()


def deep(image: Image.Image, dtype: type[np.generic], scale: float) -> Image.Image:
    """A grey image with values up to ``scale`` in another number type."""
    grey = np.asarray(image.convert("L"), np.float64) / 255
    return Image.fromarray((grey * scale).astype(dtype))


def turned(image: Image.Image, orientation: int) -> dict[str, Any]:
    """The option for a file with an EXIF orientation."""
    exif = image.getexif()
    exif[0x0112] = orientation
    return {"exif": exif.tobytes()}


def faded(image: Image.Image) -> Image.Image:
    """An RGBA image with a transparent left half."""
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height))
    made = image.copy()
    made.putalpha(alpha)
    return made


def film(seed: int) -> dict[str, Any]:
    """The options for a file with two more frames; new images, since an image keeps the options of its last encoder."""
    return {"save_all": True, "append_images": [scene(seed + 1000), scene(seed + 2000)]}


def good(seed: int = 0) -> dict[str, bytes]:
    """Files of every kind, by name, with the same scene."""
    one = scene(seed)
    palette = one.quantize(200)
    kinds = {
        "plain.jpg": stored(one, "JPEG", quality=95),
        "grey.JPG": stored(one.convert("L"), "JPEG"),
        "progressive.jpeg": stored(one, "JPEG", progressive=True, quality=95),
        "fine.jpg": stored(one, "JPEG", subsampling=0, quality=95),
        "cmyk.jpg": stored(one.convert("CMYK"), "JPEG", quality=95),
        "several.mpo": stored(one, "MPO", quality=95, **film(seed)),
        "plain.png": stored(one, "PNG"),
        "palette.png": stored(palette, "PNG"),
        "clear palette.png": stored(palette, "PNG", transparency=bytes([255] * 100 + [0] * 20)),
        "one clear colour.png": stored(palette, "PNG", transparency=3),
        "clear grey.png": stored(faded(one).convert("LA"), "PNG"),
        "clear.PNG": stored(faded(one), "PNG"),
        "deep.png": stored(deep(one, np.uint16, 65535), "PNG"),
        "bit.png": stored(one.convert("1"), "PNG"),
        "moving.png": stored(one, "PNG", **film(seed)),
        "moving.gif": stored(one, "GIF", **film(seed)),
        "clear.gif": stored(faded(one), "GIF"),
        "plain.webp": stored(one, "WEBP", quality=95),
        "exact.webp": stored(one, "WEBP", lossless=True),
        "clear.webp": stored(faded(one), "WEBP", lossless=True),
        "moving.webp": stored(one, "WEBP", lossless=True, **film(seed)),
        "plain.tif": stored(one, "TIFF"),
        "packed.tiff": stored(one, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": stored(one, "TIFF", compression="jpeg", quality=95),
        "fax.tif": stored(one.convert("1"), "TIFF", compression="group4"),
        "cmyk.tif": stored(one.convert("CMYK"), "TIFF"),
        "lab.tif": stored(one.convert("LAB"), "TIFF"),
        "deep.tif": stored(deep(one, np.uint16, 65535), "TIFF"),
        "deeper.tif": stored(deep(one, np.int32, 1e9), "TIFF"),
        "float.tif": stored(deep(one, np.float32, 1.0), "TIFF"),
        "pages.tif": stored(one, "TIFF", **film(seed)),
        "plain.bmp": stored(one, "BMP"),
        "palette.bmp": stored(palette, "BMP"),
        "bit.bmp": stored(one.convert("1"), "BMP"),
    }
    for orientation in range(1, 9):
        kinds[f"turned {orientation}.jpg"] = stored(one, "JPEG", quality=95, **turned(one, orientation))
    return kinds


def bad() -> dict[str, bytes]:
    """Files without an image, by name."""
    whole = {name: data for name, data in good().items() if name.startswith("plain.")}
    broken = {f"cut {name}": data[: len(data) // 2] for name, data in whole.items()}
    return broken | bombs() | {
        "empty.jpg": b"",
        "zeros.png": bytes(5000),
        "page.jpg": b"<!doctype html><title>404 Not Found</title>",
        "drawing.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        "header only.jpg": b"\xff\xd8\xff",
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Small files whose images take gigabytes."""
    return {
        "bomb.png": png_bomb(50_000),
        "bomb.gif": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x4c\1\0;",
        "tiles.tif": tiff(100, 100, tile=0x7FFFFFF0),
        "wide tiles.tif": tiff(40_000, 40_000, tile=32_768),
        "lines.tif": tiff(2**31 - 1, 2**31 - 1),
        "bomb.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, *[0] * 6),
        "bomb.webp": webp_bomb(),
        "bomb.jpg": jpeg_of(65_500, 65_500, b"\xc0"),
        "bomb progressive.jpg": jpeg_of(30_000, 30_000, b"\xc2"),
    }  # fmt: skip


def png_bomb(side: int) -> bytes:
    """A white 1-bit image, whole: side * side / 8 bytes when unpacked."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    line = b"\0" + b"\xff" * ((side + 7) // 8)
    body = b"".join(packer.compress(line * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(width: int, height: int, tile: int = 0) -> bytes:
    """The header of a deflated grey TIFF, in one strip or in tiles of ``tile`` x ``tile`` pixels."""
    place = [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 100)]
    if tile:
        place = [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8), (325, 4, 1, 100)]
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), *place]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + zlib.compress(bytes(100_000))


def webp_bomb() -> bytes:
    """The header of an animation on the largest canvas."""
    side = (16_383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of(width: int, height: int, frame: bytes) -> bytes:
    """A JPEG whose header has another size and frame type than its data."""
    data = bytearray(stored(scene(0), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1 : at + 2] = frame
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A damaged copy: flipped bits, truncated, spliced with another file, or other numbers near the beginning."""
    made = bytearray(data)
    way = rng.choice(["bits", "cut", "splice", "header", "numbers", "repeat"])
    if way == "bits":
        for _ in range(rng.choice([1, 3, 30])):
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    elif way == "cut":
        del made[rng.randrange(1, len(made)) :]
    elif way == "splice":
        made[rng.randrange(len(made)) :] = other[rng.randrange(len(other)) :]
    elif way == "header":
        for _ in range(rng.choice([1, 4])):
            made[rng.randrange(2, min(len(made), 120))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif way == "numbers":
        at = rng.randrange(4, min(len(made), 400) - 4)
        made[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice([0, 1, 0xFFFF, 2**31, 2**32 - 1, 50_000]))
    else:
        start, end = sorted(rng.randrange(len(made)) for _ in range(2))
        made[start:start] = made[start:end]
    return bytes(made)
