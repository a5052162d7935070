"""A small web site that sources are fetched from: files of a directory, with ranges and ETags, as real ones have."""

import http.server
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from dev.serving import served

PIECE = 256 * 1024  #: bytes


@contextmanager
def site(directory: Path) -> Iterator[str]:
    """Its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_SiteHandler, directory))
    with served(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


class _SiteHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, directory: Path, *args: Any) -> None:
        self._directory = directory
        super().__init__(*args)

    def do_GET(self) -> None:
        file = self._directory / self.path.strip("/")
        if not file.is_file():
            self.send_error(404)
            return
        size, etag = file.stat().st_size, f'"{sha256(self.path.encode()).hexdigest()}"'
        begin, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", etag) == etag:
            begin, end, status = int(asked[1]), min(int(asked[2] or size) + 1, size), 206
            if begin >= size:
                status, end = 416, begin
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        if status != 200:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}" if status == 206 else f"bytes */{size}")
        self.end_headers()
        with suppress(ConnectionError), file.open("rb") as body:
            body.seek(begin)
            while begin < end and (piece := body.read(min(PIECE, end - begin))):
                self.wfile.write(piece)
                begin += len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence the access log."""
