"""hashzoo dedup and find_duplicates: groups, which image is kept, the table, the page, an index as source."""

from __future__ import annotations

import csv
import io

import pytest
from PIL import Image

from hashzoo import find_duplicates
from hashzoo.errors import UsageError
from tests.cli.command import hashzoo
from tests.data.test_copies import photograph


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images, two copies of the first, one of the second, and a damaged file."""
    made = tmp_path_factory.mktemp("images")
    for number in range(5):
        photograph(number).save(made / f"{number}.png")
    photograph(0).resize((300, 300)).save(made / "large.png")
    photograph(0).save(made / "small.jpg", quality=40)
    photograph(1).crop((10, 10, 190, 190)).save(made / "crop <b>.png")
    (made / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return made


def test_groups_name_the_largest_image_first_and_what_the_others_are(folder):
    found = find_duplicates([folder], threads=1)
    assert [[one.path.name for one in group] for group in found.groups] == [
        ["large.png", "0.png", "small.jpg"],
        ["1.png", "crop <b>.png"],
    ]
    assert (found.images, found.copies, len(found.left_out)) == (8, 3, 1)
    assert "damaged.png does not decode" in found.left_out[0]
    assert [one.what for one in found.groups[0]] == ["whole"] * 3
    assert found.groups[1][1].what == "part"
    assert [one.keep for one in found.groups[0]] == [True, False, False]
    assert {one.like.name for one in found.groups[0][1:]} == {"large.png"}


def test_the_command_writes_a_table_and_a_page_and_removes_nothing(folder, tmp_path):
    before = sorted(folder.iterdir())
    result = hashzoo("dedup", folder, "-o", "copies.csv", "--html", "page.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "8 images; 3 copies in 2 groups" in result.stdout
    assert "damaged.png does not decode" in result.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "copies.csv").read_text(encoding="utf-8"))))
    assert [row["keep"] for row in rows] == ["yes", "no", "no", "yes", "no"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 5
    assert "crop &lt;b&gt;.png" in page
    assert "<b>" not in page
    assert sorted(folder.iterdir()) == before


def test_without_copies_there_is_one_line(tmp_path):
    photograph(7).save(tmp_path / "a.png")
    result = hashzoo("dedup", tmp_path, cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "1 image; 0 copies in 0 groups")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "there is no file or folder"),
        (lambda path: path, "no images in"),
    ],
)
def test_input_without_images_is_refused_in_one_line(make, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        find_duplicates([make(tmp_path)])


def test_a_radius_at_which_all_images_are_candidates_is_refused(folder):
    with pytest.raises(UsageError, match="from 0 to 20 bits, not 32"):
        find_duplicates([folder], radius=32)


def test_an_index_stands_for_its_images(folder, tmp_path):
    for name in ("0.png", "small.jpg", "3.png"):
        with Image.open(folder / name) as image:
            image.save(tmp_path / name)
    built = hashzoo("index", "build", ".", "-o", "my.index", "--backbone", "scattering", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (group,) = find_duplicates([tmp_path / "my.index"]).groups
    assert {one.path for one in group} == {tmp_path / "0.png", tmp_path / "small.jpg"}
