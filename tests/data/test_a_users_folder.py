"""A user's folder of photos: every unusual file is decoded or reported, nothing crashes, memory stays bounded."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hashzoo_plugins.datasets.folder import folder
from PIL import Image

from hashzoo.bench.benchmark_file import Benchmark, read
from hashzoo.bench.fallback import choose_backbone
from hashzoo.bench.overrides import Overrides
from hashzoo.bench.plan import plan
from hashzoo.data.image_files import MAX_PIXELS, decode
from hashzoo.data.integrity import inspect_splits
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.registry import zoo
from tests.cli.command import hashzoo
from tests.data import odd_images
from tests.data.odd_images import bad, deep, faded, good, scene, stored, turned

PHOTOS = Path("/work/shared/data/imagenette224_val.npz")
GREY = ("grey", "deep", "float", "clear grey")
GOOD, BAD = good(), bad()
BITS = ("bit", "fax")


def difference(decoded: Image.Image, wanted: Image.Image) -> float:
    return float(np.abs(np.asarray(decoded, float) - np.asarray(wanted.convert("RGB"), float)).mean())


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_kind_of_file_decodes_to_the_stored_image(name):
    one = wanted = scene(0)
    if name.startswith(GREY):
        wanted = one.convert("L")
    if name.startswith(BITS):
        wanted = one.convert("1")
    if name.startswith("clear") and "palette" not in name:
        wanted = Image.alpha_composite(Image.new("RGBA", one.size, "white"), faded(wanted.convert("RGB")))
    if name.startswith("turned"):
        wanted = wanted.transpose(TURNS[number]) if (number := int(name[7])) in TURNS else wanted
    decoded = decode(GOOD[name])
    assert (decoded.mode, decoded.size) == ("RGB", wanted.size)
    coarse = ("palette", "colour", ".gif", "deeper")  # few colours, or an unknown white
    loose = 20 if name == "clear palette.png" else 9 if any(word in name for word in coarse) else 3
    assert difference(decoded, wanted) < loose


#: The transposition that EXIF 2.3 prescribes, by orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_any_orientation_decodes_upright(orientation):
    """Rotated pixels with the EXIF orientation that undoes the rotation decode to the upright image in every format."""
    upright = scene(3)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    lying = upright.transpose(back.get(orientation, TURNS.get(orientation))) if orientation > 1 else upright
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        decoded = decode(stored(lying, kind, **options, **turned(lying, orientation)))
        assert decoded.size == upright.size
        assert difference(decoded, upright) < 3


def test_transparent_colours_are_blended_with_white():
    names = [name for name in GOOD if name.startswith("clear") and "palette" not in name]
    for name in names:
        assert decode(GOOD[name]).getpixel((5, 5)) == (255, 255, 255), name
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert decode(stored(palette, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(stored(palette, "PNG", transparency=0)).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize(
    ("dtype", "most"),
    [*((np.int32, most) for most in (255, 65535, 2**31 - 1)), *((np.float32, most) for most in (1, 255, 3e38))],
)
def test_images_of_more_than_8_bits_are_scaled_and_not_clipped(dtype, most):
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))
    decoded = np.asarray(decode(stored(deep(ramp, dtype, most), "TIFF")))[0, :, 0].astype(int)
    assert abs(decoded - np.arange(256)).max() <= 1
    assert decoded.max() == 255


def test_nan_and_infinite_pixels_are_black_or_white():
    for values in ([np.nan, 0, 1, np.inf, -np.inf], [np.nan] * 5, [-2, -1, 0, 7, 3e38]):
        decoded = np.asarray(decode(stored(Image.fromarray(np.array([values], np.float32)), "TIFF")))
        assert decoded.shape == (1, 5, 3)


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_file_without_an_image_is_refused_with_one_readable_line(name):
    with pytest.raises(EnvironmentFailure) as caught:
        decode(BAD[name])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).split()) >= 4


def test_damaged_exif_does_not_rotate_the_image():
    data = stored(scene(0), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 90)
    assert difference(decode(data), scene(0)) < 3


def test_decoding_emits_no_warning_in_any_thread():
    odd = [
        stored(scene(0).quantize(20), "PNG", transparency=bytes([0, 128] * 10)),
        stored(scene(0), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0" + b"\xff" * 40),
        stored(scene(0), "TIFF")[:-3] + b"\0\0\0",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            sizes = [image.size for image in pool.map(decode, odd * 30)]
    assert sizes == [scene(0).size] * 90


def test_a_jpeg_of_108_megapixels_is_decoded_at_half_its_size_and_other_formats_are_refused():
    data = stored(scene(0).resize((12_000, 9_000)), "JPEG", quality=50)
    decoded = decode(data)
    assert decoded.size == (6_000, 4_500)
    assert difference(decoded.resize((96, 64)), scene(0)) < 9
    side = int(MAX_PIXELS**0.5) + 8
    with pytest.raises(
        EnvironmentFailure,
        match=f"{side} x {side} pixels; the limit is {MAX_PIXELS} pixels; make the image smaller",
    ):
        decode(stored(Image.new("1", (side, side)), "PNG"))


MUTATE = """
import random, sys
from hashzoo.errors import EnvironmentFailure
from hashzoo.data.image_files import decode
from tests.data.odd_images import bad, good, mutated

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

files, dice, before = list(good().values()), random.Random(2024), peak()
whole = refused = 0
for turn in range(int(sys.argv[1])):
    try:
        image = decode(mutated(files[turn % len(files)], dice.choice(files), dice))
        assert image.mode == "RGB" and image.width * image.height > 0
        image.load()
        whole += 1
    except EnvironmentFailure as error:
        assert str(error) and "\\n" not in str(error)
        refused += 1
for data in bad().values():
    try:
        decode(data)
    except EnvironmentFailure:
        continue
    sys.exit("a file without an image decodes")
print(whole, refused, round(peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_damaged_files_and_decompression_bombs_decode_or_are_refused_within_a_gibibyte():
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", MUTATE, "1800"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr[-2000:]
    whole, refused, mebibytes = map(int, completed.stdout.split())
    assert whole + refused == 1800
    assert min(whole, refused) > 300
    assert mebibytes < 1024


LARGEST = """
import sys
from hashzoo.data.image_files import decode

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

with open(sys.argv[1], "rb") as file:
    data = file.read()
before = peak()
print(decode(data).width, round(peak() - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["cmyk progressive", "clear png", "float tiff", "clear webp", "200 megapixels"])
def test_the_largest_supported_images_take_less_than_a_gibibyte(kind, tmp_path):
    side = int(MAX_PIXELS**0.5)
    file = tmp_path / "large"
    if kind == "cmyk progressive":
        data = stored(scene(0, (side, side)).convert("CMYK"), "JPEG", progressive=True, subsampling=0)
    elif kind == "clear png":
        data = stored(faded(scene(0, (side, side))), "PNG", compress_level=1)
    elif kind == "float tiff":
        data = stored(deep(scene(0, (side, side)), np.float32, 1e6), "TIFF")
    elif kind == "clear webp":
        data = stored(faded(scene(0, (side // 2, side))), "WEBP", quality=20, method=0)
    else:
        data = stored(scene(0, (16_320, 12_240)), "JPEG")
    file.write_bytes(data)
    del data
    completed = subprocess.run(
        [sys.executable, "-c", LARGEST, str(file)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert int(completed.stdout.split()[1]) < 1024


def images(root: Path) -> tuple[int, list[str]]:
    """Write three classes of every kind of file, and all bad files; return the number of good and the bad names."""
    count = 0
    for number, kind in enumerate(("beach", "猫 & co", "new\nline")):
        (root / kind).mkdir(parents=True)
        for name, data in good(10 * number).items():
            (root / kind / name).write_bytes(data)
            count += 1
    for name, data in BAD.items():
        (root / "beach" / name).write_bytes(data)
    (root / "beach" / "notes.txt").write_text("not an image")
    return count, sorted(BAD)


def photos(root: Path) -> int:
    """Add real photos, some of them grey."""
    with np.load(PHOTOS, allow_pickle=False) as packed:
        offsets, labels, data = packed["offsets"], packed["labels"], packed["jpeg"]
    for label, kind in ((0, "tench"), (1, "springer")):
        (root / kind).mkdir()
        for row in np.flatnonzero(labels == label)[:30]:
            (root / kind / f"{row}.jpg").write_bytes(data[offsets[row] : offsets[row + 1]].tobytes())
    return 60


@pytest.mark.parametrize("with_photos", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_works_on_a_users_folder(with_photos, tmp_path):
    if with_photos and not PHOTOS.is_file():
        pytest.skip("the real photographs are not on this machine")
    root = tmp_path / "my photos"
    count, wrong = images(root)
    if with_photos:
        count += photos(root)
    arguments = (
        *("bench", "--dataset", "folder", "--root", "my photos", "--bits", "16"),
        *("--methods", "itq,dhn" if with_photos else "itq"),
        *("--epochs", "2", "--no-baselines", "--jobs", "1", "--results", "r"),
    )
    refused_run = hashzoo(*arguments, cwd=tmp_path)
    assert refused_run.returncode == 3
    assert any(name in refused_run.stderr for name in wrong)
    assert "--on-bad-image skip" in refused_run.stderr
    assert len(refused_run.stderr.strip().splitlines()) == 1
    completed = hashzoo(*arguments, "--on-bad-image", "skip", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "Traceback" not in completed.stderr
    with (tmp_path / "r" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert {row["status"] for row in rows.values()} == {"ok"}
    for cell in (tmp_path / "r" / "cells").glob("*.json"):
        facts = json.loads(cell.read_text())["cell"]["facts"]
        assert facts["train"] + facts["database"] + facts["queries"] == count
        assert facts["bad_pictures"] == len(wrong)
    assert float(rows["itq"]["map@all"]) > 0.4


def test_root_is_passed_only_to_datasets_with_such_an_option(tmp_path):
    house, root = zoo.load_plugins(), Path("p=q")
    file = Benchmark(name="x", dataset=["digits.small", "folder"], backbone="pixels")
    changed = [part.set for part, _ in Overrides(root=root).apply(file, house)]
    assert changed == [{"folder": {"root": str(Path.cwd() / "p=q")}}] * 2
    with pytest.raises(UsageError, match=r"digits\.small has no option root"):
        Overrides(root=root).apply(Benchmark(name="x", dataset="digits.small"), house)


def test_the_benchmark_for_own_images_requires_a_root_and_plans(tmp_path):
    house, file = zoo.load_plugins(), read("folder")
    with pytest.raises(UsageError, match="--root FOLDER"):
        plan(file, house)
    for number in range(160):  # half of them to train on, and codes of up to 64 bits
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stored(scene(number, (40 + number % 40, 50)), "PNG"))
    file = choose_backbone(file, house, None, print)  # as the command does where the extra weights is not installed
    jobs = plan(file.model_copy(update={"set": {"folder": {"root": tmp_path, "size": 32}}}), house)
    assert not [job.refusal for job in jobs if job.refusal]
    assert {job.identity.method for job in jobs} > {"lsh", "dhn", "chance"}


def test_images_cropped_to_another_size_have_other_digests(tmp_path):
    for number in range(8):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stored(scene(number), "PNG"))
    small, again, large = (inspect_splits(folder(root=tmp_path, size=size)).pools for size in (32, 32, 64))
    assert small == again
    assert not set(small.values()) & set(large.values())


def test_formats_are_recognised_by_their_first_bytes_and_no_program_is_started(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    for start in (b"%!PS-Adobe-3.0 EPSF", b"8BPS\0\1", b"SIMPLE  =", b"\x80\x02]q\0.", b"II\x1a\0"):
        with pytest.raises(
            EnvironmentFailure,
            match=r"not a JPEG, PNG, GIF, WebP, TIFF, BMP, HEIC or AVIF file|a file of an image editor",
        ):
            decode(start + bytes(1000))
    assert Image.open(io.BytesIO(odd_images.tiff(5, 5))).size == (5, 5)
