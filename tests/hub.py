"""The Hugging Face hub as far as a data set's files go, on this machine: what the real client asks is answered from a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """One data set of one commit. `forged` files are other than their checksums say, `missing` ones are listed only."""

    def __init__(self, folder: Path, repository: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder, self.repository = folder, repository
        self.forged: set[str] = set()
        self.missing: set[str] = set()
        self.sent: list[str] = []  # names of the files sent whole

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def listing(self) -> dict[str, object]:
        files = sorted(self.folder.rglob("*.parquet"))
        contents = [(str(file.relative_to(self.folder)), file.read_bytes()) for file in files]
        siblings = [
            {"rfilename": name, "size": len(c), "lfs": {"sha256": sha256(c), "size": len(c), "pointerSize": 1}}
            for name, c in contents
        ]
        return {"id": self.repository, "sha": COMMIT, "siblings": [*siblings, {"rfilename": "README.md", "size": 1}]}


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        if path.startswith(f"/api/datasets/{self.server.repository}"):
            assert path.endswith("/revision/refs/convert/parquet"), path
            self._send(200, json.dumps(self.server.listing()).encode(), with_body)
            return
        name = path.removeprefix(f"/datasets/{self.server.repository}/resolve/{COMMIT}/")
        if name == path or not (self.server.folder / name).is_file() or (name in self.server.missing and self.command == "GET"):
            self._send(404, b"", with_body)
            return
        content = (self.server.folder / name).read_bytes()
        etag = sha256(content)
        if name in self.server.forged:
            content = content[:8] + bytes([content[8] ^ 1]) + content[9:]
        code, start, stop = 200, 0, len(content)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            code, start, stop = 206, int(first), int(last) + 1 if last else len(content)
        beside = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if code == 206:
            beside["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(code, content[start:stop], with_body, beside)
        if with_body and code == 200:
            self.server.sent.append(name)

    def _send(self, code: int, body: bytes, with_body: bool, beside: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in (beside or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def hub(folder: Path, repository: str) -> Iterator[Hub]:
    """The hub, for as long as this lasts."""
    server = Hub(folder, repository)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
