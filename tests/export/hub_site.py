"""A stand-in for the Hugging Face Hub on this machine: what the client needs to create, push and download."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"


@dataclass
class Hub:
    """Commits by repository and branch; ``fail`` are statuses of the next answers, by a part of the address."""

    commits: dict[str, dict[str, list[tuple[str, dict[str, bytes]]]]] = field(default_factory=dict)
    fail: dict[str, list[int]] = field(default_factory=dict)
    cut: int | None = None  # bytes after which a download breaks off
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def files(self, repository, revision="main"):
        """The files of a branch or commit; None if there is none."""
        branches = self.commits[repository]
        if revision in branches:
            return branches[revision][-1] if branches[revision] else ("0" * 40, {})
        return next((one for made in branches.values() for one in made if one[0] == revision), None)

    def answer(self, handler):
        method, address = handler.command, handler.path.partition("?")[0]
        self.asked.append(f"{method} {address}")
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        for part, statuses in self.fail.items():
            if part in address and statuses:
                return self.say(handler, statuses.pop(0))
        if method == "POST":
            if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.say(handler, 401)
            return self.post(handler, address, body)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", address)
        if not found or found[1] not in self.commits:
            return self.say(handler, 404, {"X-Error-Code": "RepoNotFound"})
        commit = self.files(found[1], found[2].replace("%2F", "/"))
        if commit is None:
            return self.say(handler, 404, {"X-Error-Code": "RevisionNotFound"})
        if found[3] not in commit[1]:
            return self.say(handler, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit[0]})
        data = commit[1][found[3]]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit[0]}
        self.say(handler, 200, headers, data, self.cut if method == "GET" else None)

    def post(self, handler, address, body):
        if address == "/api/validate-yaml":
            return self.json(handler, {"errors": [], "warnings": []})
        if address == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else f"me/{given['name']}"
            known = name in self.commits
            self.commits.setdefault(name, {"main": []})
            return self.json(handler, {"url": f"{self.url}/{name}"}, 409 if known else 200)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", address)
        if not found or found[1] not in self.commits:
            return self.say(handler, 404, {"X-Error-Code": "RepoNotFound"})
        repository, action, revision = found.groups()
        if action == "branch":
            known = revision in self.commits[repository]
            self.commits[repository].setdefault(revision, [])
            return self.say(handler, 409 if known else 200)
        if action == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.json(handler, {"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"
        }
        oid = hashlib.sha1(body).hexdigest()
        whole = dict(self.files(repository, revision)[1]) | files
        self.commits[repository][revision].append((oid, whole))
        return self.json(handler, {"commitUrl": f"{self.url}/{repository}/commit/{oid}", "commitOid": oid})

    def json(self, handler, content, status=200):
        self.say(handler, status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def say(self, handler, status, headers=None, body=b"", cut=None):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[:cut])
        if cut is not None:
            handler.close_connection = True


@contextmanager
def serving():
    """A hub that answers until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            hub.answer(self)

        do_HEAD = do_POST = do_GET  # noqa: N815 - names of the base class

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
