"""Requests that are refused, with the error that everybody gives: contract, Client, command and bare task."""

from typing import Any, Final, NamedTuple

from blobferry.checks.arguments import MAX_CONTENT, MAX_OFFSET
from blobferry.errors import (
    ArgumentTypeError,
    InvalidOffsetError,
    InvalidPathError,
    InvalidRequestError,
    UnsupportedMethodError,
)

FILE: Final = "file:///srv/a"
CONTENTS: Final = {"base64": "AA=="}


class Refused(NamedTuple):
    operation: str
    arguments: dict[str, Any]
    error: type[InvalidRequestError]
    says: str  #: a part of the message
    command: list[str] | None = None  #: the same from a shell, where it can be typed

    def __str__(self) -> str:
        return f"{self.operation} {self.says}"[:50]


REFUSED: Final = (
    Refused("put_content", {"path": "/a/", "contents": CONTENTS}, InvalidPathError, "'/a/'"),
    Refused("put_content", {"path": "/a", "contents": "text"}, InvalidRequestError, "encode it"),
    Refused(
        "put_content", {"path": "/a", "contents": {"base64": "?"}}, InvalidRequestError, "contents: is not valid base64"
    ),
    Refused("put_content", {"path": "/a", "contents": [1]}, InvalidRequestError, "contents: needs bytes"),
    Refused("put_content", {"path": "/a", "contents": bytes(MAX_CONTENT + 1)}, InvalidRequestError, "use write_stream"),
    Refused("put_content", {"path": "/a"}, InvalidRequestError, "put_content: argument 'contents' is missing"),
    Refused(
        "write_stream",
        {"path": "a", "source": FILE, "offset": -1},
        InvalidPathError,
        "invalid path 'a'",
        ["write", FILE, "a", "--offset", "-1"],
    ),
    Refused(
        "write_stream",
        {"path": "/a", "source": FILE, "offset": -1},
        InvalidOffsetError,
        "invalid offset -1 for '/a'",
        ["write", FILE, "/a", "--offset", "-1"],
    ),
    Refused(
        "write_stream",
        {"path": "/a", "source": FILE, "offset": MAX_OFFSET + 1},
        InvalidOffsetError,
        f"invalid offset {MAX_OFFSET + 1} for '/a'",
        ["write", FILE, "/a", "--offset", str(MAX_OFFSET + 1)],
    ),
    Refused("write_stream", {"path": "/a", "source": FILE, "offset": "1"}, ArgumentTypeError, "offset: needs a whole"),
    Refused(
        "write_stream",
        {"path": "/a", "source": "http://user:s3cret@h/a?sig=s3cret#s3cret"},
        InvalidRequestError,
        "source: an http: URL",
        ["write", "http://user:s3cret@h/a?sig=s3cret#s3cret", "/a"],
    ),
    Refused("read_stream", {"path": "/", "dest": FILE}, InvalidPathError, "'/'", ["read", "/", FILE]),
    Refused(
        "read_stream",
        {"path": "/a", "dest": "https://h/a"},
        InvalidRequestError,
        "dest: needs a URL such as 'file:",
        ["read", "/a", "https://h/a"],
    ),
    Refused(
        "read_stream",
        {"path": "/a", "dest": FILE, "metadata": {}},
        InvalidRequestError,
        "read_stream: unknown argument 'metadata'; it takes path, dest, offset, overwrite, storage",
    ),
    Refused("move", {"source_path": "a", "dest_path": "/b"}, InvalidPathError, "'a'", ["move", "a", "/b"]),
    Refused("move", {"source_path": "/a", "dest_path": "/b/"}, InvalidPathError, "'/b/'", ["move", "/a", "/b/"]),
    Refused(
        "move",
        {"source_path": "/a", "dest_path": "/b", "dest_storage": "A B"},
        InvalidRequestError,
        "dest_storage: needs the name of a configured storage",
        ["move", "/a", "/b", "--dest-storage", "A B"],
    ),
    Refused("delete", {"path": "/"}, InvalidPathError, "'/'", ["delete", "/"]),
    Refused("delete", {"path": "/a", "offset": 0}, InvalidRequestError, "delete: unknown argument 'offset'"),
    Refused("get_content", {"path": "/"}, InvalidPathError, "'/'", ["read", "/", "-"]),
    Refused("get_content", {"path": "/a", "priority": 1}, InvalidRequestError, "unknown argument 'priority'"),
    Refused("stat", {"path": "//"}, InvalidPathError, "'//'", ["stat", "//"]),
    Refused(
        "list",
        {"path": "/a", "storage": "A B"},
        InvalidRequestError,
        "storage: needs the name of a configured storage",
        ["list", "/a", "--storage", "A B"],
    ),
    Refused("list", {}, InvalidRequestError, "list: argument 'path' is missing"),
    Refused("url_for", {"path": "a"}, InvalidPathError, "'a'", ["url", "a"]),
    Refused(
        "url_for",
        {"path": "/a", "options": {"method": "PUT"}},
        UnsupportedMethodError,
        "unsupported method 'PUT'",
    ),
    Refused("url_for", {"path": "/a", "options": {"expires": 1}}, InvalidRequestError, "unknown option 'expires'"),
    Refused(
        "url_for", {"path": "/a", "options": {"expiry": "soon"}}, InvalidRequestError, "options: expiry: needs a time"
    ),
)
