"""The API of `hashzoo serve`: what it finds, what it changes, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import os
import random
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import hashzoo
from tests.serve.conftest import MOST, png, served
from tests.serve.load import TOKEN, call, run

for library in ("uvicorn", "fastapi", "prometheus_client"):
    pytest.importorskip(library, reason="the extra ui is not installed")

from hashzoo.hamming.packing import pack  # noqa: E402
from hashzoo.retrieval import code_file  # noqa: E402
from hashzoo.retrieval.image_index import open_index  # noqa: E402
from hashzoo.retrieval.index_folder import IndexFolder, convert  # noqa: E402
from hashzoo.retrieval.index_writer import Item, MetadataTable  # noqa: E402
from hashzoo.serve import served_index  # noqa: E402
from hashzoo.serve.guard import Limits, RequestGuard  # noqa: E402


@pytest.fixture
def folder(made, tmp_path):
    """An index folder of two hundred digits, with the column digit."""
    stored = code_file.read(made / "itq.index")
    index = convert(stored, tmp_path / "digits.index", "code")
    with index.writing() as writer:
        rows = {path: [int(path.split("/")[0])] for path in stored.paths}
        writer.set_metadata(MetadataTable({"digit": "INTEGER"}, rows))
    return index.path


@pytest.fixture
def api(folder):
    with served([folder], Limits(token=TOKEN, max_bytes=MOST)) as port:
        yield port


def in_base64(data):
    return base64.b64encode(data).decode()


def found(answer):
    return [[(hit["id"], hit["distance"]) for hit in one] for one in answer["answers"]]


def test_images_codes_and_ids_find_what_the_index_finds(api, folder):
    index = open_index(folder)
    images = [Image.open(io.BytesIO(png(row))) for row in (7, 30)]
    expected = [[(hit.id, hit.distance) for hit in one] for one in index.search(images, 9)]
    status, by_image = call(api, "POST", "/v1/search", {"images": [in_base64(png(7)), in_base64(png(30))], "k": 9})
    assert (status, found(by_image)) == (200, expected)
    status, encoded = call(api, "POST", "/v1/encode", {"images": [in_base64(png(7)), in_base64(png(30))]})
    packed = pack(index.encoder.encode(images)["code"].numpy())
    assert (status, encoded["bits"]) == (200, {"code": 16})
    assert encoded["codes"]["code"] == [row.tobytes().hex() for row in packed]
    assert found(call(api, "POST", "/v1/search", {"codes": encoded["codes"]["code"], "k": 9})[1]) == expected
    assert found(call(api, "POST", "/v1/search", {"like": ["7/7.png", "0/30.png"], "k": 9})[1]) == expected


def test_a_radius_and_a_condition_leave_out_images(api, folder):
    asked = {"like": ["7/7.png"], "k": 200, "radius": 3, "where": "digit = 7"}
    (hits,), index = found(call(api, "POST", "/v1/search", asked)[1]), open_index(folder)
    code = pack(index.codes(index.row("7/7.png"))["code"].numpy())
    (expected,) = IndexFolder(folder).snapshot("digit = 7").search(code, 200, 3)
    assert hits == [(hit.id, hit.distance) for hit in expected]
    assert 0 < len(hits) < 200
    for condition in ("digit = (SELECT 1)", "no_column > 1", "1; DROP TABLE items"):
        status, refused = call(api, "POST", "/v1/search", {**asked, "where": condition})
        assert (status, "the condition" in refused["detail"]) == (400, True)


def test_items_are_added_replaced_and_removed(api, folder):
    new = {"id": "sent/1", "image": in_base64(png(300)), "metadata": {"digit": 12, "note": "new"}}
    status, answer = call(api, "POST", "/v1/items", {"items": [new]}, TOKEN)
    assert (status, answer["added"], answer["replaced"]) == (200, 1, 0)
    (hits,) = found(
        call(api, "POST", "/v1/search", {"images": [in_base64(png(300))], "k": 1, "where": "digit = 12"})[1]
    )
    assert hits == [("sent/1", 0.0)]
    (upload,) = (folder / "uploads").iterdir()
    assert upload.read_bytes() == png(300)
    status, answer = call(api, "POST", "/v1/items", {"items": [{**new, "image": in_base64(png(301))}]}, TOKEN)
    assert (status, answer["added"], answer["replaced"]) == (200, 0, 1)
    assert call(api, "DELETE", "/v1/items?id=sent/1&id=nothing", token=TOKEN)[0] == 404
    status, answer = call(api, "DELETE", "/v1/items?id=sent/1&id=7/7.png", token=TOKEN)
    assert (status, answer["removed"]) == (200, 2)
    assert call(api, "POST", "/v1/search", {"like": ["sent/1"]})[0] == 404
    assert IndexFolder(folder).info()["images"] == 199
    assert not (folder / "uploads" / upload.name).exists() or upload.read_bytes() == png(300)


def test_an_item_without_an_image_shows_no_file_of_the_server(api, folder, made):
    secret = made / "pictures" / "0" / "0.png"
    item = {"id": str(secret), "codes": {"code": "ffff"}}
    assert call(api, "POST", "/v1/items", {"items": [item]}, TOKEN)[0] == 200
    state, row = call(api, "GET", "/v1/indexes")[1][0]["state"], 200
    assert open_index(folder).id(row) == str(secret)
    assert call(api, "GET", f"/image/0/{state}/{row}")[0] == 404


def test_changes_of_other_processes_are_seen(api, folder, monkeypatch):
    monkeypatch.setattr(served_index, "REFRESH", 0.0)
    before = call(api, "GET", "/v1/indexes")[1][0]
    with IndexFolder(folder).writing() as writer:
        writer.put([Item("nightly")], {"bits.code": np.array([[255, 255]], np.uint8)})
    deadline = time.monotonic() + 10
    while (after := call(api, "GET", "/v1/indexes")[1][0])["state"] == before["state"]:
        assert time.monotonic() < deadline
    assert (after["images"], after["state"]) == (before["images"] + 1, before["state"] + 1)
    assert found(call(api, "POST", "/v1/search", {"codes": ["ffff"], "k": 1})[1])[0][0] == ("nightly", 0.0)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("", 401), ("Bearer wrong", 401), ("Basic %%%", 401), (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200),
     ("Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode(), 200)],
)  # fmt: skip
def test_changes_need_the_token(api, authorization, status):
    connection = http.client.HTTPConnection("127.0.0.1", api, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    body = json.dumps({"items": [{"id": "a", "codes": {"code": "0000"}}]})
    connection.request("POST", "/v1/items", body, headers)
    answer = connection.getresponse()
    assert answer.status == status
    assert (answer.getheader("www-authenticate") is not None) == (status == 401)
    connection.close()


def test_without_a_token_there_are_no_changes_and_beyond_this_machine_nothing_is_answered_but_health(folder, made):
    with served([folder], Limits()) as port:
        status, refused = call(port, "DELETE", "/v1/items?id=7/7.png")
        assert (status, "start it with a token" in refused["detail"]) == (403, True)
        assert call(port, "POST", "/v1/search", {"like": ["7/7.png"]})[0] == 200
    with served([folder], Limits(token=TOKEN, private=True)) as port:
        assert [call(port, "GET", path)[0] for path in ("/", "/v1/indexes", "/metrics", "/openapi.json")] == [401] * 4
        assert [call(port, "GET", path, token=TOKEN)[0] for path in ("/", "/v1/indexes", "/metrics")] == [200] * 3
        assert call(port, "GET", "/health") == (200, {"status": "ok", "images": 200})
    with served([made / "itq.index"], Limits(token=TOKEN)) as port:
        item = {"items": [{"id": "a", "codes": {"code": "0000"}}]}
        status, refused = call(port, "POST", "/v1/items", item, TOKEN)
        assert (status, "hashzoo index convert" in refused["detail"]) == (400, True)


def test_one_of_several_indexes_is_named(made, folder):
    with served([made / "itq.index", folder], Limits()) as port:
        status, refused = call(port, "POST", "/v1/search", {"like": ["7/7.png"]})
        assert (status, refused["detail"]) == (400, "There are several indexes; name one: itq, digits")
        assert call(port, "POST", "/v1/search", {"like": ["7/7.png"], "index": "itq"})[0] == 200
        assert call(port, "POST", "/v1/search", {"like": ["7/7.png"], "index": "none"})[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "give one of images, codes and like"),
        ({"like": ["7/7.png"], "codes": ["0000"]}, 422, "give one of"),
        ({"like": ["7/7.png"], "k": 0}, 422, "body.k"),
        ({"like": ["7/7.png"], "k": 10**9}, 422, "body.k"),
        ({"like": ["7/7.png"], "unknown": 1}, 422, "body.unknown"),
        ({"like": ["a\0b"]}, 422, "body.like.0"),
        ({"like": ["none"]}, 404, "There is no image none"),
        ({"codes": ["00"]}, 400, "a code 'code' has 16 bits in 2 bytes, not 1"),
        ({"codes": ["zz"]}, 422, "body.codes.0"),
        ({"images": ["%%%"]}, 422, "not base64"),
        ({"images": [in_base64(b"no image")]}, 415, "images[0] does not decode as an image"),
        ({"images": [in_base64(png(0))] * 65}, 422, "body.images"),
        ([1, 2], 422, "body"),
    ],
)
def test_odd_requests_are_refused_with_the_reason(api, body, status, says):
    code, answer = call(api, "POST", "/v1/search", body)
    assert (code, says in answer["detail"]) == (status, True), answer


def test_two_hundred_hostile_requests_leave_the_server_well(api):
    lots = random.Random(0)
    paths = [
        "/v1/search",
        "/v1/items",
        "/v1/encode",
        "/v1/indexes",
        "/search",
        "/metrics",
        "/v1/../v1/items",
        "/%00",
        "/",
    ]
    bodies = [b"", b"{", b"[" * 5000, b'{"like":' + b"[" * 3000, b"\xff\xfe",
              b'{"k":1e400}', b'{"codes":["' + b"f" * 9000,
              json.dumps({"items": [{"id": "\ud800", "codes": {"code": "0000"}}]}).encode(),
              json.dumps({"items": [{"id": "x", "codes": {"code": "0000"}, "metadata": {"_place": 1}}]}).encode(),
              json.dumps({"items": [{"id": "x", "codes": {"code": "0000"}, "metadata": {'a"b': 2**63 - 1}}]}).encode(),
              json.dumps({"like": ["' OR 1=1 --"], "where": "randomblob(1e9)"}).encode()]  # fmt: skip
    for _ in range(200):
        connection = http.client.HTTPConnection("127.0.0.1", api, timeout=60)
        headers = {"Content-Type": lots.choice(["application/json", "text/plain", "multipart/form-data", ""])}
        if lots.random() < 0.5:
            headers["Authorization"] = lots.choice([f"Bearer {TOKEN}", "Bearer", "Basic ///", "x" * 5000])
        body = lots.choice(bodies) if lots.random() < 0.8 else lots.randbytes(lots.randrange(3000))
        connection.request(lots.choice(["POST", "PUT", "DELETE", "GET", "HEAD"]), lots.choice(paths), body, headers)
        assert connection.getresponse().status < 500
        connection.close()
    with socket.create_connection(("127.0.0.1", api)) as raw:  # not HTTP
        raw.sendall(b"\x16\x03\x01" + os.urandom(200))
    assert call(api, "GET", "/health")[0] == 200
    assert call(api, "POST", "/v1/search", {"like": ["7/7.png"]})[0] == 200


def test_metrics_count_requests_by_path_and_status(api):
    call(api, "POST", "/v1/search", {"like": ["7/7.png"]})
    call(api, "POST", "/v1/search", {})
    call(api, "GET", "/anything/else")
    text = call(api, "GET", "/metrics")[1]
    assert 'hashzoo_requests_total{method="POST",path="/v1/search",status="200"} 1.0' in text
    assert 'hashzoo_requests_total{method="POST",path="/v1/search",status="422"} 1.0' in text
    assert 'hashzoo_requests_total{method="GET",path="other",status="404"} 1.0' in text
    assert 'hashzoo_index_images{index="digits"} 200.0' in text


def guarded(
    limits, *, clock=time.monotonic, app=None, parts=({"type": "http.request", "body": b"", "more_body": False},)
):
    """The statuses of requests to an application that answers 200."""

    async def fine(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard, statuses = RequestGuard(app or fine, limits, clock), []

    async def ask():
        waiting = list(parts)

        async def receive():
            part = waiting.pop(0)
            return await part() if callable(part) else part

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"h")], "client": ("c", 1)}
        await guard(scope, receive, send)

    return ask, statuses


def test_more_requests_than_the_rate_are_refused_until_time_has_passed():
    now = [0.0]
    ask, statuses = guarded(Limits(["h"], rate=2), clock=lambda: now[0])

    async def all_of_them():
        for _ in range(6):
            await ask()
        now[0] = 1.0
        for _ in range(3):
            await ask()

    asyncio.run(all_of_them())
    assert statuses == [200] * 4 + [429] * 2 + [200] * 2 + [429]


def test_more_requests_at_once_than_may_wait_are_refused():
    async def slow(scope, receive, send):
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    ask, statuses = guarded(Limits(["h"], pending=3), app=slow)

    async def at_once():
        await asyncio.gather(*(ask() for _ in range(5)))

    asyncio.run(at_once())
    assert sorted(statuses) == [200] * 3 + [503] * 2


def test_a_request_that_does_not_arrive_in_time_is_refused(api, folder):
    with served([folder], Limits(seconds=0.3)) as port, socket.create_connection(("127.0.0.1", port)) as raw:
        head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 408")


def load(port, folder, clients, seconds):
    index = open_index(folder)
    return run(port, [index.id(row) for row in range(len(index))], index._stored.array("code"), clients, seconds)


def test_searches_are_right_while_items_are_added(folder):
    with served([folder], Limits(token=TOKEN)) as port:
        found = load(port, folder, 8, 3)
    assert found.wrong == []
    assert found.added >= 3
    assert len(found.seconds) >= 50


@pytest.mark.slow
def test_fifty_clients_search_for_a_minute_while_items_are_added(folder):
    with served([folder], Limits(token=TOKEN)) as port:
        found = load(port, folder, 50, 60)
    assert found.wrong == []
    assert found.added >= 20


def test_an_address_that_others_can_reach_requires_a_token(made, tmp_path):
    for host in ("192.0.2.1", "photos.example"):
        refused = hashzoo("serve", "itq.index", "--host", host, cwd=made, HASHZOO_TOKEN="")
        assert (refused.returncode, "requires a token" in refused.stderr) == (2, True)
    (tmp_path / "token").write_text("short\n")
    refused = hashzoo("serve", "itq.index", "--token-file", tmp_path / "token", cwd=made)
    assert (refused.returncode, "is not 16 or more printable ASCII characters" in refused.stderr) == (2, True)
    refused = hashzoo("serve", "itq.index", "--token-file", tmp_path / "none", cwd=made)
    assert (refused.returncode, f"cannot read {tmp_path / 'none'}" in refused.stderr) == (3, True)


@pytest.mark.slow
def test_a_generator_of_requests_finds_no_difference_from_the_description(folder):
    tool = shutil.which("schemathesis")
    if tool is None:
        pytest.skip("needs schemathesis: pip install schemathesis")
    with served([folder], Limits(token=TOKEN)) as port:
        line = [tool, "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
        done = subprocess.run(
            [*line, "--max-examples", "50", "--seed", "1", "--exclude-checks", "positive_data_acceptance"],
            cwd=folder.parent,  # where it keeps a cache
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-5000:]
