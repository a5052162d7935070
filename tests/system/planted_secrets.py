"""Secrets that sing: planted where real ones lie, and looked for in everything that can be looked at."""

import base64
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import redis
from sqlalchemy import create_engine, inspect, text

from blobferry.sql.database_url import parse_url
from dev.serving import served

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")


@dataclass
class Canaries:
    """Secrets by what they are, and where one has been seen."""

    secrets: Mapping[str, str]
    seen: set[tuple[str, str]] = field(default_factory=set)
    looked_at: dict[str, int] = field(default_factory=dict)  #: bytes by place: an empty place proves nothing

    def look(self, place: str, found: object) -> None:
        """Look for all of them in a text, in bytes, or in the repr of anything else."""
        data = found if isinstance(found, bytes) else (found if isinstance(found, str) else repr(found)).encode()
        self.looked_at[place] = self.looked_at.get(place, 0) + len(data)
        plain = data + b"\n" + b"\n".join(_decoded(data))
        for name, secret in self.secrets.items():
            if any(form in plain for form in _forms(secret)):
                self.seen.add((place, name))

    def look_into(self, place: str, directory: Path, pattern: str = "*") -> None:
        """The same in every file."""
        for path in directory.rglob(pattern):
            if path.is_file():
                self.look(place, path.read_bytes())


def _forms(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield secret.encode().hex().encode()


def _decoded(data: bytes) -> Iterator[bytes]:
    """What stands there in base64: bodies of messages, Basic authentication."""
    for match in _BASE64.finditer(data):
        piece = match[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):  # where it begins is not always where the letters do
            part = piece[start:]
            yield base64.b64decode(part[: len(part) // 4 * 4])


def rows(database_url: str) -> dict[str, list[Any]]:
    """Every row of every table."""
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        found = {
            table: [tuple(row) for row in connection.execute(text(f'SELECT * FROM "{table}"'))]
            for table in inspect(engine).get_table_names()
        }
    engine.dispose()
    return found


def database_files(database_url: str) -> Iterator[Path]:
    """The files that hold the database, with what has been written ahead, as they are at the moment."""
    engine = create_engine(parse_url(database_url))
    if engine.dialect.name == "sqlite":
        yield from Path(str(engine.url.database)).parent.glob(Path(str(engine.url.database)).name + "*")
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CHECKPOINT"))
            directory = Path(connection.execute(text("SHOW data_directory")).scalar_one())
            number = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar()
        yield from (directory / "base" / str(number)).iterdir()
        yield from (path for path in (directory / "pg_wal").iterdir() if path.is_file())
    engine.dispose()


def broker_memory(client: "redis.Redis") -> Iterator[bytes]:
    """Every key with its value, as it is told and as it would be saved."""
    readers: dict[Any, Callable[[Any], Any]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    for key in client.scan_iter():
        yield key + b" " + repr(readers[client.type(key)](key)).encode()
        yield client.dump(key) or b""


def saved(client: "redis.Redis") -> bytes:
    """The file that the broker saves its memory in."""
    client.config_set("rdbcompression", "no")
    client.save()
    found = client.config_get("dir", "dbfilename")
    return Path(str(found["dir"]), str(found["dbfilename"])).read_bytes()


class Monitor:
    """Everything that the broker is told while this is open."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self._url = url
        self._thread = threading.Thread(target=self._listen)
        self._listening = threading.Event()

    def __enter__(self) -> "Monitor":
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.set("the-end", "of the monitor")
        self._thread.join()

    def _listen(self) -> None:
        with redis.Redis.from_url(self._url) as client, client.monitor() as monitor:
            self._listening.set()
            for command in monitor.listen():
                self.heard.append(command["command"])
                if "the-end" in command["command"]:
                    return


def command_lines(*pids: int) -> Iterator[str]:
    """The command lines of the processes and of all that they have started."""
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            yield " ".join(process.cmdline())


class _Refusing(BaseHTTPRequestHandler):
    """S3 that refuses everybody, and tells what it was shown, as S3 does."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = (
            "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we "
            "calculated does not match the signature you provided.</Message>"
            f"<AWSAccessKeyId>{self.headers.get('Authorization')}</AWSAccessKeyId>"
            f"<StringToSign>{self.headers.get('X-Amz-Security-Token')}</StringToSign></Error>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def refusing_s3() -> Iterator[str]:
    """The endpoint of a store that takes nobody's credentials, and says which it got."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    with served(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"
