"""The page of `hashzoo serve`, asked over a real connection: what it shows, and what it refuses."""

from __future__ import annotations

import http.client
import io
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hashzoo.cli.serve import names
from hashzoo.retrieval.image_index import ImageIndex, open_index
from hashzoo.serve.views import make_query, search_index
from tests.cli.command import hashzoo
from tests.serve.conftest import MOST, png

for library in ("uvicorn", "fastapi", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="the extra ui is not installed")


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if isinstance(body, bytes):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body if isinstance(body, bytes) else None)
    answer = connection.getresponse()
    text = answer.read().decode("latin-1")
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def form(*files: tuple[str, bytes], **fields: str) -> tuple[bytes, str]:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()]
    for name, data in files:
        head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


def post(port: int, *files: tuple[str, bytes], **fields: str) -> tuple[int, str, dict[str, str]]:
    body, kind = form(*files, **fields)
    return ask(port, "POST", "/search", body, Content_Type=kind)


def hits(page: str) -> list[list[str]]:
    """The images that each index found."""
    lists = re.findall(r'<ol class="hits">(.*?)</ol>', page, re.DOTALL)
    return [re.findall(r"<small>(.*?)</small>", one) for one in lists]


def test_an_image_finds_itself_first_in_every_index(port):
    status, page, headers = post(port, ("seven.png", png(7)), top="12")
    assert status == 200
    assert [len(found) for found in hits(page)] == [12, 12]
    assert page.count("0 of 16 bits differ") >= 2
    assert all("7/7.png" in found for found in hits(page))
    assert "seven.png" in page
    assert "script-src 'self'" in headers["content-security-policy"]


def test_neighbours_are_those_of_the_index(port, made):
    (expected,) = open_index(made / "itq.index").search(Image.open(io.BytesIO(png(7))), 12)
    _, page, _ = post(port, ("seven.png", png(7)), top="12")
    assert [made / "pictures" / name for name in hits(page)[0]] == [hit.path for hit in expected]


def test_two_images_are_composed(port):
    pages = [
        post(port, ("a.png", png(1)), ("b.png", png(7)), operation=operation, top="12")
        for operation in ("union", "intersection", "difference")
    ]
    assert [status for status, _, _ in pages] == [200] * 3
    assert len({str(hits(page)) for _, page, _ in pages}) == 3
    assert "selected>only the first shows" in pages[2][1]


def test_where_a_method_looks_is_shown_or_why_it_is_not(port):
    _, page, _ = post(port, ("a.png", png(1)))
    assert page.count("where the method looks") == 1  # dhn
    assert "itq on pixels has no attention map" in page


def test_a_neighbour_is_asked_with_in_turn(port):
    _, page, _ = post(port, ("a.png", png(1)))
    link = re.search(r'href="(/like/0/0/\d+)"', page)[1]
    status, again, _ = ask(port, "GET", link)
    assert status == 200
    assert len(hits(again)[0]) == 24


def test_stored_images_are_shown_small(port):
    status, _, headers = ask(port, "GET", "/image/0/0/3")
    assert (status, headers["content-type"]) == (200, "image/jpeg")


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(60_001))) + chunk(b"IEND", b"")


NO_IMAGES = {
    "an empty file": b"",
    "text": b"not an image",
    "a page": b"<html><script>alert(1)</script></html>",
    "an svg with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "half a png": png(0)[:60],
    "a png of 3.6 billion pixels": bomb(),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "a zip": b"PK\x03\x04" + bytes(100),
    "postscript, which a reader would run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) run",
    "a program": b"\x7fELF" + bytes(100),
    "jpeg in name only": b"\xff\xd8\xff" + bytes(200),
}


@pytest.mark.parametrize("data", NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_what_is_no_image_is_refused(port, data):
    status, page, _ = post(port, ("odd.png", data))
    assert status == 415
    assert "odd.png does not decode as an image" in page


ADDRESSES = [
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc/passwd",
    "/image/0/0/../../../etc/passwd",
    "/image/0/0/..%2f..%2fetc%2fpasswd",
    "/image/0/0/-1",
    "/image/0/0/200",
    "/image/0/99999999999999999999/0",
    "/image/7/0/0",
    "/like/0/0/200",
    "/page.css/../app.py",
    "/app.py",
    "//etc/passwd",
]


@pytest.mark.parametrize("path", ADDRESSES)
def test_no_address_leads_to_another_file(port, path):
    status, page, _ = ask(port, "GET", path)
    assert status == 404
    assert "root:" not in page


def test_too_much_is_refused_before_it_is_read(port):
    status, page, _ = ask(port, "POST", "/search", Content_Length=str(10**12), Content_Type=form()[1])
    assert (status, "limit is 1 MiB" in page) == (413, True)


def test_too_much_that_does_not_say_so_is_refused(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body, kind = form(("big.png", png(0) + bytes(2 * MOST)))
    connection.request("POST", "/search", iter([body]), {"Content-Type": kind}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {"Host": "evil.example"}),  # a site elsewhere whose name leads here
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
    ],
)
def test_other_sites_may_not_ask(port, status, headers):
    body, kind = form(("a.png", png(0)))
    found, _, sent = ask(port, "POST", "/search", body, Content_Type=kind, **headers)
    assert (found, "default-src 'none'" in sent["content-security-policy"]) == (status, True)


def test_it_answers_at_its_address_and_by_the_names_that_it_was_given(port):
    for name in ("127.0.0.1", f"127.0.0.1:{port}", "photos.example", "PHOTOS.example:443"):
        assert ask(port, "GET", "/", Host=name)[0] == 200
    for name in ("", "localhost.evil.example", "photos.example.evil", "127.0.0.2", "[::1]", "photos.example@evil"):
        assert ask(port, "GET", "/", Host=name)[0] == 400


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        form(),
        form(("", b"")),  # what a browser sends where nothing was chosen
        form(*[(f"{n}.png", png(n)) for n in range(3)]),
        form(("a.png", png(0)), **{f"field{n}": "x" for n in range(20)}),
        (b"--x\r\nrubbish", "multipart/form-data; boundary=x"),
        (b"image=../../etc/passwd", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ],
)
def test_odd_forms_are_refused(port, body, kind):
    status, page, _ = ask(port, "POST", "/search", body, Content_Type=kind)
    assert status == 400
    assert 'role="alert"' in page


def test_other_methods_are_refused(port):
    assert [ask(port, method, "/search", b"")[0] for method in ("PUT", "DELETE", "PATCH")] == [405] * 3


def test_the_name_of_a_image_stays_text(port):
    status, page, _ = post(port, ("<script>alert(1)</script>.png", png(0)), top="1e9", operation="__class__")
    assert status == 200
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert [len(found) for found in hits(page)] == [24, 24]


def test_no_page_tells_where_files_lie(port, made):
    pages = [post(port, ("a.png", png(0)))[1], ask(port, "GET", "/")[1], post(port, ("a.png", b"x"))[1]]
    assert not any(str(made) in page or str(Path.home()) in page for page in pages)


def test_images_that_are_gone_are_said_to_be_without_telling_where_they_lay(port, made):
    lost = made / "pictures" / "0" / "0.png"
    row = open_index(made / "itq.index")._stored.paths.index("0/0.png")
    content = lost.read_bytes()
    lost.unlink()
    try:
        pages = [ask(port, "GET", f"/{what}/0/0/{row}") for what in ("image", "like")]
    finally:
        lost.write_bytes(content)
    assert [status for status, _, _ in pages] == [404, 404]
    assert all("was moved, deleted or damaged" in page and str(made) not in page for _, page, _ in pages)
    assert ask(port, "GET", f"/image/0/0/{row}")[0] == 200  # back again


def test_codes_beside_the_one_that_is_searched_do_no_harm(made):
    index = open_index(made / "itq.index")
    kept = index._stored
    more = {"metadata": {**kept.metadata, "codes": {"fine": {"bits": 16}, **kept.metadata["codes"]}}}
    more["arrays"] = {**kept.arrays, "bits.fine": kept.arrays["bits.code"]}
    index = ImageIndex(replace(kept, **more), index.encoder)
    image = Image.open(io.BytesIO(png(7)))
    assert (
        search_index(0, "x", 0, index, make_query([("a", image)], "union"), 12).neighbours[0].distance
        == "0 of 16 bits differ"
    )


def test_fifty_searches_at_once_are_all_answered(port):
    _, alone, _ = post(port, ("a.png", png(5)), top="12")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(port, ("a.png", png(5)), top="12"), range(50)))
    assert [status for status, _, _ in answers] == [200] * 50
    assert all(hits(page) == hits(alone) for _, page, _ in answers)


def test_the_command_serves_until_it_is_interrupted(made):
    process = subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", "serve", "itq.index", "--port", "0"],
        cwd=made,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            found = int(re.match(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[1])
            assert ask(found, "GET", "/")[0] == 200
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0


def test_a_port_that_is_taken_is_named(made, port):
    found = hashzoo("serve", "itq.index", "--port", port, cwd=made)
    assert found.returncode == 3
    assert f"port {port}" in found.stderr
    assert "--port" in found.stderr


def test_indexes_are_told_apart_by_their_names():
    assert names((Path("a/x.index"), Path("b/x.index"), Path("y.index"))) == ["a/x.index", "b/x.index", "y"]
