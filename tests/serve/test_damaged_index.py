"""An index that is damaged while it is served: the state before is searched until it is restored."""

from __future__ import annotations

import base64
import logging
import shutil

import pytest

from tests.serve.conftest import MOST, png, served
from tests.serve.load import TOKEN, call

for library in ("uvicorn", "fastapi", "prometheus_client"):
    pytest.importorskip(library, reason="the extra ui is not installed")

from hashzoo.retrieval import code_file  # noqa: E402
from hashzoo.retrieval.index_folder import convert  # noqa: E402
from hashzoo.serve import served_index  # noqa: E402
from hashzoo.serve.guard import Limits  # noqa: E402


def in_base64(row):
    return base64.b64encode(png(row)).decode()


def spoil(file, damage):
    """Replace a file, as a copy from a broken disk does; pages of the file that are mapped stay as they were."""
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(byte ^ 0x5A for byte in data))


@pytest.mark.parametrize("part", ["index.sqlite", "segments/*"])
@pytest.mark.parametrize("damage", ["cut", "other bytes", "missing"])
def test_the_state_before_is_searched_until_the_index_is_restored(made, tmp_path, monkeypatch, caplog, part, damage):
    monkeypatch.setattr(served_index, "REFRESH", 0.0)
    folder, copy = (
        convert(code_file.read(made / "itq.index"), tmp_path / "digits.index", "code").path,
        tmp_path / "copy",
    )
    search = ("POST", "/v1/search", {"images": [in_base64(7)], "k": 3})
    change = ("POST", "/v1/items", {"items": [{"id": "new", "image": in_base64(300)}]})
    with served([folder], Limits(token=TOKEN, max_bytes=MOST)) as port:
        status, expected = call(port, *search)
        shutil.copytree(folder, copy)
        for file in folder.glob(part):
            spoil(file, damage)
        assert (status, call(port, *change, TOKEN)[0]) == (200, 503)
        for _ in range(2):
            assert call(port, *search) == (200, expected)
            status, told = call(port, "GET", "/health")
            assert (status, str(tmp_path) in told["detail"]) == (503, False)
            assert [call(port, "GET", path, None, TOKEN)[0] for path in ("/", "/metrics", "/v1/indexes")] == [200] * 3
            assert call(port, "GET", "/like/0/77/3")[0] == 404
        told = [one.message for one in caplog.records if "the state before is searched" in one.message]
        assert len(told) <= 2  # once for what is wrong, and not for each request
        assert all(str(folder) in one and "\n" not in one for one in told)
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        assert call(port, *search) == (200, expected)
        assert call(port, "GET", "/health")[0] == 200
        assert call(port, *change, TOKEN)[0] == 200
        answers = call(port, "POST", "/v1/search", {"like": ["new"], "radius": 0, "k": 100})[1]["answers"]
        assert "new" in [hit["id"] for hit in answers[0]]
    assert not [one for one in caplog.records if one.levelno > logging.ERROR or one.exc_info]
