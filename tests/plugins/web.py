"""A web server of this machine for tests of downloads: it counts what it sends and can misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """``files`` by path. ``cut`` are the bytes after which answers break off, one an answer, ``fail`` their status."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    tags: bool = True
    heeds: bool = True  # If-Range
    length: bool = True
    chunked: bool = False
    cut: list[int] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)
    silence: float = 0.0
    moved: dict[str, str] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, span = handler.path, handler.headers.get("Range")
        self.asked.append((path, span))
        time.sleep(self.silence)
        if path in self.moved:
            return self.say(handler, 302, {"Location": self.moved[path]})
        if self.fail:
            return self.say(handler, self.fail.pop(0))
        if path not in self.files:
            return self.say(handler, 404)
        data = self.files[path]
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        headers = {"ETag": tag} if self.tags else {}
        fits = handler.headers.get("If-Range") in (None, tag) or not self.heeds
        status, start = 200, 0
        if span and self.ranges and fits:
            start = int(re.fullmatch(r"bytes=(\d+)-", span)[1])
            if start >= len(data):
                return self.say(handler, 416, headers | {"Content-Range": f"bytes */{len(data)}"})
            status, headers = 206, headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        body = data[start:]
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif self.length:
            headers["Content-Length"] = str(len(body))
        self.say(handler, status, headers, body[: self.cut.pop(0)] if self.cut else body)

    def say(self, handler, status, headers=None, body=b""):
        handler.send_response(status)
        for name, value in (({"Content-Length": "0"} if status >= 300 else {}) | (headers or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        self.sent[handler.path] += len(body)  # before the client can have seen the last byte
        handler.wfile.write(body)


class Served:
    """The server while a ``with`` lasts."""

    def __init__(self, site: Site) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):  # whoever asked has gone
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.site = site
        site.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Site:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self.site

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
