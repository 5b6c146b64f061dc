"""Image files beyond the usual: which are decoded, which need an extra, and which values are black and white."""

from __future__ import annotations

import os
import struct
import sys
import types
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from hashzoo.data import integrity
from hashzoo.data.formats import IMAGE_SUFFIXES, MissingDecoderError, iso_format, undecoded
from hashzoo.data.image_files import ImageFiles, decode
from hashzoo.data.image_paths import find_images, list_folder
from hashzoo.data.value_range import VALUES
from hashzoo.errors import EnvironmentFailure, UsageError
from tests.data.odd_images import scene, stored


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def without_adobe(data: bytes) -> bytes:
    """A JPEG without Adobe's marker."""
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


INKS = {
    "red": (0, 255, 255, 0), "green": (255, 0, 255, 0), "blue": (255, 255, 0, 0), "black": (0, 0, 0, 255),
    "white": (0, 0, 0, 0), "grey": (0, 0, 0, 128),
}  # fmt: skip


@pytest.mark.parametrize("name", INKS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_plain_cmyk_jpegs_are_no_negatives_and_those_of_adobe_neither(name, options):
    image = Image.new("CMYK", (16, 16), INKS[name])
    wanted = pixels(image.convert("RGB"))
    inverted = Image.new("CMYK", (16, 16), tuple(255 - ink for ink in INKS[name]))
    assert abs(pixels(decode(stored(image, "JPEG", quality=95, **options))) - wanted).max() <= 4
    plain = without_adobe(stored(inverted, "JPEG", quality=95, **options))  # Pillow writes every CMYK JPEG inverted
    assert abs(pixels(decode(plain)) - wanted).max() <= 4


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, (H, W, channels)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff16(values: np.ndarray, order: str) -> bytes:
    """An uncompressed TIFF of 16 bits a channel, (H, W, 3)."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, None), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, channels),
        (278, 3, height), (279, 4, len(data)),
    ]  # fmt: skip
    bits_at = 8 + len(data) + 2 + 12 * len(tags) + 4
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        if value is None:
            directory += struct.pack(f"{order}HHII", tag, 3, channels, bits_at)
        else:
            field = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", *((value, 0) if kind == 3 else (value,)))
            directory += struct.pack(f"{order}HHI", tag, kind, 1) + field
    start = b"II*\0" if order == "<" else b"MM\0*"
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    return start + struct.pack(f"{order}I", 8 + len(data)) + data + directory + bytes(4) + bits


def grey16(values: np.ndarray, kind: str) -> bytes:
    return stored(Image.fromarray(values[..., 0].astype(np.uint16)), kind)


WRITERS = {
    "grey PNG": (1, lambda values: grey16(values, "PNG")),
    "grey TIFF": (1, lambda values: grey16(values, "TIFF")),
    "colour PNG": (3, png16),
    "transparent PNG": (4, png16),
    "colour TIFF": (3, lambda values: tiff16(values, "<")),
    "colour TIFF of the other order": (3, lambda values: tiff16(values, ">")),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_8_and_12_bits_in_16_are_recognised_and_said(writer, white):
    channels, write = WRITERS[writer]
    values = np.random.default_rng(0).integers(0, white + 1, (9, 14, channels))
    values[0, 0] = white
    if channels == 4:
        values[..., 3] = 65535
    image = decode(write(values))
    wanted = np.round(values[..., :3] / white * 255)
    assert abs(pixels(image) - wanted).max() <= 1
    assert (f"0 (black) to {white}" in image.info.get(VALUES, "")) == (white < 65535)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 65535), st.integers(0, 99), st.sampled_from(["grey PNG", "colour PNG", "colour TIFF"]))
def test_any_16_bit_image_is_scaled_by_the_smallest_white_that_no_value_exceeds(highest, seed, writer):
    channels, write = WRITERS[writer]
    values = np.random.default_rng(seed).integers(0, highest + 1, (4, 5, channels))
    values[0, 0] = highest
    white = next(white for white in (255, 4095, 65535) if highest <= white)
    assert abs(pixels(decode(write(values))) - np.round(values / white * 255)).max() <= 1


@pytest.mark.parametrize(("white", "said"), [(1.0, False), (255.0, True), (65535.0, True)])
def test_the_range_of_a_float_file_is_recognised_and_said(white, said):
    ramp = np.linspace(0, white, 256, dtype=np.float32).reshape(8, 32)
    image = decode(stored(Image.fromarray(ramp), "TIFF"))
    assert abs(pixels(image)[..., 0].ravel() - np.arange(256)).max() <= 1
    assert (VALUES in image.info) == said


def test_black_images_say_nothing_and_a_turned_one_keeps_what_is_said():
    assert VALUES not in decode(grey16(np.zeros((3, 3, 1)), "PNG")).info
    assert VALUES not in decode(png16(np.zeros((3, 3, 3)))).info
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = stored(Image.fromarray(np.full((3, 5), 200, np.uint16)), "TIFF", exif=exif)
    assert decode(turned).size == (3, 5)
    assert "255 (white)" in decode(turned).info[VALUES]


def test_dark_grey_of_16_bits_with_transparency_is_refused():
    values = np.full((3, 3, 2), 4000)
    values[..., 1] = 65535
    with pytest.raises(EnvironmentFailure, match="save it with 8 bits"):
        decode(png16(values))


#: The first bytes of files that are not decoded, and the cure.
STARTS = {
    "JPEG XL": (b"\xff\x0a" + bytes(40), "JPEG XL; convert"),
    "JPEG XL container": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL; convert"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000; convert"),
    "JPEG XR": (b"II\xbc\x01" + bytes(40), "JPEG XR; convert"),
    "Photoshop": (b"8BPS\0\x01" + bytes(40), "image editor; export"),
    "SVG": (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="x"/>', "a drawing; render"),
    "SVG alone": (b"\xef\xbb\xbf \n<svg/>", "a drawing; render"),
    "RAF": (b"FUJIFILMCCD-RAW 0201" + bytes(40), "camera RAW; export"),
    "ORF": (b"IIRO\x08\0\0\0" + bytes(40), "camera RAW; export"),
    "CR3": (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera RAW; export"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_file_of_a_known_format_that_is_not_decoded_is_named_with_the_cure(name):
    data, cure = STARTS[name]
    with pytest.raises(EnvironmentFailure, match=cure):
        decode(data)


def test_the_thumbnail_in_a_camera_raw_is_not_taken_for_the_image():
    small = scene(0).resize((16, 12))
    for tags in ({50706: b"\x01\x04\0\0"}, {254: 1}):
        with pytest.raises(EnvironmentFailure, match="camera RAW; export"):
            decode(stored(small, "TIFF", tiffinfo=tags))
    whole = stored(small, "TIFF")
    with pytest.raises(EnvironmentFailure, match="camera RAW; export"):
        decode(whole[:8] + b"CR" + whole[10:])
    assert decode(whole).size == (16, 12)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


class FakeHeic(ImageFile.ImageFile):
    """Decodes nothing but says what it was given: a red image."""

    format = "HEIF"

    def _open(self) -> None:
        self._mode, self._size = "RGB", (8, 6)
        self.tile = []

    def load(self):
        self.im = Image.new("RGB", (8, 6), "red").im
        return super().load()


class Files(ImageFiles):
    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def __len__(self) -> int:
        return len(self.contents)

    def read(self, row: int) -> bytes:
        return self.contents[row]

    def name(self, row: int) -> str:
        return f"{row}.heic"

    def stamp(self, row: int) -> str:
        return f"a test {self.contents[row][:40]!r}"


def test_heic_names_the_extra_and_is_decoded_once_it_is_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(integrity, "cache_folder", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDecoderError, match=r"pip install 'hashzoo\[heif\]'"):
        decode(HEIC)
    assert list(integrity.scan(Files([HEIC])).bad) == [0]
    module = types.ModuleType("pillow_heif")
    module.HeifImageFile = FakeHeic
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    assert decode(HEIC).getpixel((0, 0)) == (255, 0, 0)
    assert list(integrity.scan(Files([HEIC])).bad) == []  # a missing decoder is not remembered


def test_avif_is_decoded_by_pillow_or_names_the_extra(monkeypatch):
    one = scene(0)
    if features.check("avif"):
        data = stored(one, "AVIF", quality=95)
        assert iso_format(data) == "AVIF"
        assert abs(pixels(decode(data)) - pixels(one)).mean() < 4
    monkeypatch.setattr("hashzoo.data.formats.features.check", lambda name: False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDecoderError, match=r"an AVIF image.*hashzoo\[heif\]"):
        decode(HEIC.replace(b"heic", b"avif"))


def test_every_suffix_is_either_decoded_or_has_a_cure():
    assert not any(undecoded(suffix, b"") for suffix in IMAGE_SUFFIXES)
    for suffix in (".heic", ".HEIF", ".avif", ".hif"):
        assert suffix.lower() in IMAGE_SUFFIXES
    for suffix in (".jxl", ".svg", ".CR2", ".cr3", ".nef", ".arw", ".dng", ".jp2", ".psd", ".ppm", ".tga", ".exr"):
        assert "; " in undecoded(suffix, b"") or "convert" in undecoded(suffix, b"")


def test_the_images_of_a_folder_come_with_the_files_that_are_left_out(tmp_path):
    for name in ("a/1.png", "a/@eaDir/1.png", "b/2.heic", "b/._2.png", "c/none.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored(Image.new("RGB", (2, 2)), "PNG"))
    (tmp_path / "c" / "3.nef").write_bytes(b"MM\0*")
    (tmp_path / "c" / "4").write_bytes(stored(Image.new("RGB", (2, 2)), "JPEG"))
    found = find_images([tmp_path])
    assert [path.as_posix() for path in found.images] == ["a/1.png", "b/2.heic"]
    assert [line.rpartition("/")[2].split(":")[0] for line in found.left_out] == ["3.nef", "4"]
    assert found.passed_over == {"@eaDir": 1, "hidden files": 1}
    assert len(list_folder(tmp_path).files) == 5
    with pytest.raises(UsageError, match=r"no images in .* \(2 that are not decoded, such as .*3\.nef: camera RAW"):
        find_images([tmp_path / "c"])
    assert find_images([tmp_path / "c" / "4"]).left_out == []


def test_a_pipe_is_not_opened_to_look_at_its_first_bytes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert list_folder(tmp_path).left_out == {}
