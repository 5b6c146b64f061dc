"""Clients that search a served index while another one adds items, and what they find wrong."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKEN = "0123456789abcdef0123"


def call(port: int, method: str, path: str, body: Any = None, token: str = "", kept: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer; ``kept`` is a connection to use."""
    connection = kept or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    if kept is None:
        connection.close()
    kind = answer.getheader("content-type") or ""
    return answer.status, json.loads(data) if "json" in kind else data.decode("latin-1")


@dataclass
class Load:
    """What clients found.

    Attributes:
        seconds: The time of each search.
        wrong: Descriptions of errors and of wrong results.
        added: Items that were added.
        adds: The time to add an item and to find it.
    """

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    added: int = 0
    adds: list[float] = field(default_factory=list)


def run(
    port: int, ids: Sequence[str], codes: NDArray[np.uint8], clients: int, seconds: float, checked: int = 1
) -> Load:
    """Search from many threads for a time, and add items from one.

    Args:
        port: Where the index is served.
        ids: The N ids of the index at the start.
        codes: Their codes, packed (N, B).
        clients: Threads that search.
        seconds: The time.
        checked: One of so many answers of a client is compared with all codes; all have the query itself first.
    """
    found, end, known = Load(), time.monotonic() + seconds, {one: row for row, one in enumerate(ids)}

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        connection, asks = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
        while time.monotonic() < end:
            asks += 1
            row = int(rng.integers(len(ids)))
            asked = {"codes": [codes[row].tobytes().hex()], "k": 50}
            started = time.perf_counter()
            status, answer = call(port, "POST", "/v1/search", asked, kept=connection)
            found.seconds.append(time.perf_counter() - started)
            if status != 200:
                found.wrong.append(f"{status}: {answer}")
                continue
            hits = answer["answers"][0]
            if asks % checked and hits[0]["distance"] == 0 and len(hits) == 50:
                continue
            distances = np.bitwise_count(codes ^ codes[row]).sum(1, dtype=np.uint8)
            first = [(hit["distance"], known[hit["id"]]) for hit in hits if hit["id"] in known]
            added = sum(hit["id"].startswith("added") for hit in hits)
            rows = np.argsort(distances, kind="stable")[: len(first)]
            expected = list(zip(distances[rows].tolist(), rows.tolist(), strict=True))
            if first != expected or len(first) + added != min(50, len(hits)):
                found.wrong.append(f"row {row}: {first[:5]} instead of {expected[:5]}")
        connection.close()

    def add() -> None:
        rng = np.random.default_rng(0)
        while time.monotonic() < end:
            code = rng.integers(0, 256, codes.shape[1], np.uint8).tobytes().hex()
            name, started = f"added-{found.added}", time.perf_counter()
            status, answer = call(port, "POST", "/v1/items", {"items": [{"id": name, "codes": {"code": code}}]}, TOKEN)
            seen = call(port, "POST", "/v1/search", {"like": [name], "k": 1})[1] if status == 200 else {}
            if not seen or seen["answers"][0][0]["distance"] != 0 or seen["state"] < answer["state"]:
                found.wrong.append(f"added {name}: {status} {answer} {seen}")
            found.added += 1
            found.adds.append(time.perf_counter() - started)
            time.sleep(0.05)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(clients)]
    threads.append(threading.Thread(target=add))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
