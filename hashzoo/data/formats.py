"""Image formats by file name and first bytes: which are decoded, which with an extra, and the cure for the others."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import ImageFile, features

from hashzoo.errors import EnvironmentFailure

#: File name suffixes of images; compared in lower case.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib",
    ".heic", ".heif", ".hif", ".avif",
)  # fmt: skip

_RAW, _DRAWING, _OTHER = "camera RAW; export it as JPEG", "a drawing; render it as PNG", "convert it to PNG or JPEG"


def _table(rows: Mapping[str, str]) -> dict[str, str]:
    return {suffix: text for suffixes, text in rows.items() for suffix in suffixes.split()}


#: Suffixes of image files that are not decoded, each with what the file is and the cure.
UNDECODED_SUFFIXES: Mapping[str, str] = _table(
    {
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf": _RAW,
        ".raw .rw2 .rwl .sr2 .srf .srw .x3f": _RAW,
        ".svg .svgz .eps .ai .wmf .emf .cdr": _DRAWING,
        ".jxl": f"JPEG XL; {_OTHER}",
        ".jp2 .j2k .j2c .jpf .jpx .jpm .jpc": f"JPEG 2000; {_OTHER}",
        ".jxr .wdp .hdp": f"JPEG XR; {_OTHER}",
        ".psd .psb .xcf .kra .ora .afphoto": "a file of an image editor; export it as PNG",
        ".ppm .pgm .pbm .pnm .pam .pfm .tga .ico .cur .icns .pcx .sgi .ras .xbm .xpm .dds .hdr .exr": _OTHER,
        ".fits .fit .dcm .bpg .flif .qoi .heics .heifs .avifs": _OTHER,
    }
)

#: Suffixes of files that are certainly no images, which are therefore not opened to look at their first bytes.
_TEXT_SUFFIXES = (
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".html", ".py", ".ipynb",
    ".npy", ".npz", ".parquet", ".pdf", ".zip", ".tar", ".gz", ".mp4", ".mov", ".avi", ".mp3", ".wav", ".pt", ".pth",
    ".safetensors", ".index", ".db", ".ini", ".log", ".lock", ".mat", ".pkl", ".h5", ".aae", ".xmp", ".thm",
)  # fmt: skip

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

#: What a file is by its first bytes, if it is not decoded: the start, its offset, and the cure.
_UNDECODED_STARTS: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\x0a", 0, f"JPEG XL; {_OTHER}"),
    (b"\0\0\0\x0cJXL ", 0, f"JPEG XL; {_OTHER}"),
    (b"\0\0\0\x0cjP  ", 0, f"JPEG 2000; {_OTHER}"),
    (b"\xffO\xffQ", 0, f"JPEG 2000; {_OTHER}"),
    (b"II\xbc\x01", 0, f"JPEG XR; {_OTHER}"),
    (b"8BPS", 0, "a file of an image editor; export it as PNG"),
    (b"<svg", 0, _DRAWING),
    (b"FUJIFILMCCD-RAW", 0, _RAW),
    (b"IIRO", 0, _RAW),
    (b"IIU\0", 0, _RAW),
    (b"FOVb", 0, _RAW),
    (b"ftypcrx ", 4, _RAW),
)

# TIFF 6.0 and DNG 1.7
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
_REDUCED = 1  # the bit of the subfile type for a reduced-resolution version of another image in the file


class MissingDecoderError(EnvironmentFailure):
    """An image needs a package that is not installed, so that the same file may decode tomorrow."""


def undecoded(suffix: str, start: bytes) -> str:
    """What an image file is that is not decoded, and the cure; empty if it is decoded, or no image.

    Args:
        suffix: The suffix of its name.
        start: The first bytes of the file, if its suffix is not known; see :func:`needs_start`.

    >>> undecoded(".CR2", b""), undecoded(".jpg", b""), undecoded(".txt", b"hello")
    ('camera RAW; export it as JPEG', '', '')
    >>> undecoded("", bytes([255, 216, 255, 224]))
    'an image by its content; end its name with the suffix of its format, such as .jpg'
    """
    if suffix.lower() in UNDECODED_SUFFIXES:
        return UNDECODED_SUFFIXES[suffix.lower()]
    if start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or iso_format(start):
        return "an image by its content; end its name with the suffix of its format, such as .jpg"
    return ""


def needs_start(suffix: str) -> bool:
    """Whether only the first bytes of a file tell that it is an image."""
    lower = suffix.lower()
    return lower not in IMAGE_SUFFIXES and lower not in UNDECODED_SUFFIXES and lower not in _TEXT_SUFFIXES


def iso_format(data: bytes) -> str:
    """``"HEIC"`` or ``"AVIF"`` by the brands of a file (ISO/IEC 23008-12 and AV1-AVIF); empty for any other file.

    >>> iso_format(bytes(3) + bytes([24]) + b"ftypmif1" + bytes(4) + b"mif1avif"), iso_format(b"GIF89a")
    ('AVIF', '')
    """
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4], "big"), 512)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, max(size, 16), 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def open_iso(data: bytes, kind: str) -> ImageFile.ImageFile:
    """Open a HEIC or AVIF file: its header is read, its pixels are not decoded.

    Raises MissingDecoderError if nothing that is installed decodes it; the message names the extra.
    """
    if kind == "AVIF" and features.check("avif"):  # Pillow 11.3 or later, if it was built with it
        from PIL import AvifImagePlugin

        return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    try:
        import pillow_heif

        decoder: type[ImageFile.ImageFile] = pillow_heif.HeifImageFile if kind == "HEIC" else pillow_heif.AvifImageFile
    except (ImportError, AttributeError) as error:
        raise MissingDecoderError(
            f"{'a HEIC' if kind == 'HEIC' else 'an AVIF'} image, which needs the extra heif: pip install "
            "'hashzoo[heif]'; or convert it to JPEG"
        ) from error
    return decoder(io.BytesIO(data))


def refuse_undecoded(data: bytes) -> None:
    """Raise EnvironmentFailure for a file of a known format that is not decoded, with the cure."""
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    found = next((what for start, at, what in _UNDECODED_STARTS if data[at : at + len(start)] == start), "")
    if found or text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in data[:4096]):
        raise EnvironmentFailure(found or _DRAWING)


def refuse_thumbnail(data: bytes, tags: Mapping[int, Any]) -> None:
    """Raise EnvironmentFailure for a TIFF whose first image is the thumbnail of a camera RAW."""
    kind = tags.get(_SUBFILE_TYPE, 0)
    if data[8:10] == b"CR" or _DNG_VERSION in tags or (isinstance(kind, int) and kind & _REDUCED):
        raise EnvironmentFailure(_RAW)
