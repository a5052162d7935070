"""Requests that are refused, with the error that everybody gives: contract, Client, command and bare task."""

import re
import shlex
from typing import Any, Final, NamedTuple

import pytest

from blobferry.checks.arguments import MAX_CONTENT, MAX_OFFSET
from blobferry.contract import check_request
from blobferry.errors import (
    ArgumentTypeError,
    InvalidOffsetError,
    InvalidPathError,
    InvalidRequestError,
    UnsupportedMethodError,
)

FILE: Final = "file:///srv/a"
CONTENTS: Final = {"base64": "AA=="}
SECRET: Final = "http://user:s3cret@h/a?sig=s3cret#s3cret"
NO_STORAGE: Final = "storage: needs the name of a configured storage"


class Refused(NamedTuple):
    operation: str
    arguments: dict[str, Any]
    says: str  #: a part of the message
    error: type[InvalidRequestError] = InvalidRequestError
    typed: str = ""  #: the same in a shell, where it can be typed

    def by_contract(self) -> InvalidRequestError:
        """The error that the contract raises."""
        with pytest.raises(self.error, match=re.escape(self.says)) as caught:
            check_request(self.operation, self.arguments)
        return caught.value

    def __str__(self) -> str:
        return f"{self.operation} {self.says}"[:50]

    @property
    def command(self) -> list[str]:
        return shlex.split(self.typed)


def writing(path: str, offset: int, says: str, error: type[InvalidRequestError]) -> Refused:
    arguments = {"path": path, "source": FILE, "offset": offset}
    return Refused("write_stream", arguments, says, error, f"write {FILE} {path} --offset {offset}")


REFUSED: Final = (
    Refused("put_content", {"path": "/a/", "contents": CONTENTS}, "'/a/'", InvalidPathError),
    Refused("put_content", {"path": "/a", "contents": "text"}, "encode it"),
    Refused("put_content", {"path": "/a", "contents": {"base64": "?"}}, "contents: is not valid base64"),
    Refused("put_content", {"path": "/a", "contents": [1]}, "contents: needs bytes"),
    Refused("put_content", {"path": "/a", "contents": bytes(MAX_CONTENT + 1)}, "use write_stream"),
    Refused("put_content", {"path": "/a"}, "put_content: argument 'contents' is missing"),
    writing("a", -1, "invalid path 'a'", InvalidPathError),
    writing("/a", -1, "invalid offset -1 for '/a'", InvalidOffsetError),
    writing("/a", MAX_OFFSET + 1, f"invalid offset {MAX_OFFSET + 1} for '/a'", InvalidOffsetError),
    Refused("write_stream", {"path": "/a", "source": FILE, "offset": "1"}, "offset: needs a whole", ArgumentTypeError),
    Refused("write_stream", {"path": "/a", "source": SECRET}, "source: an http: URL", typed=f"write '{SECRET}' /a"),
    Refused("read_stream", {"path": "/", "dest": FILE}, "'/'", InvalidPathError, f"read / {FILE}"),
    Refused(
        "read_stream",
        {"path": "/a", "dest": "https://h/a"},
        "dest: needs a URL such as 'file:",
        typed="read /a https://h/a",
    ),
    Refused(
        "read_stream",
        {"path": "/a", "dest": FILE, "metadata": {}},
        "read_stream: unknown argument 'metadata'; it takes path, dest, offset, overwrite, storage",
    ),
    Refused("move", {"source_path": "a", "dest_path": "/b"}, "'a'", InvalidPathError, "move a /b"),
    Refused("move", {"source_path": "/a", "dest_path": "/b/"}, "'/b/'", InvalidPathError, "move /a /b/"),
    Refused(
        "move",
        {"source_path": "/a", "dest_path": "/b", "dest_storage": "A B"},
        f"dest_{NO_STORAGE}",
        typed="move /a /b --dest-storage 'A B'",
    ),
    Refused("delete", {"path": "/"}, "'/'", InvalidPathError, "delete /"),
    Refused("delete", {"path": "/a", "priority": "high"}, "priority: needs a whole"),
    Refused("delete", {"path": "/a", "offset": 0}, "delete: unknown argument 'offset'"),
    Refused("get_content", {"path": "/"}, "'/'", InvalidPathError, "read / -"),
    Refused("get_content", {"path": "/a", "priority": 1}, "unknown argument 'priority'"),
    Refused("stat", {"path": "//"}, "'//'", InvalidPathError, "stat //"),
    Refused("list", {"path": "/a", "storage": "A B"}, NO_STORAGE, typed="list /a --storage 'A B'"),
    Refused("list", {}, "list: argument 'path' is missing"),
    Refused("url_for", {"path": "a"}, "'a'", InvalidPathError, "url a"),
    Refused(
        "url_for", {"path": "/a", "options": {"method": "POST"}}, "unsupported method 'POST'", UnsupportedMethodError
    ),
    Refused("url_for", {"path": "/a", "options": {"expires": 1}}, "unknown option 'expires'"),
    Refused("url_for", {"path": "/a", "options": {"expiry": "soon"}}, "options: expiry: needs a time"),
    Refused("url_for", {"path": "/a", "options": {"content-type": "text/plain"}}, "only a PUT can have it"),
    Refused(
        "url_for", {"path": "/a", "options": {"download-as": ""}}, "options: download-as: needs the name of a file"
    ),
    Refused("url_for", {"path": "/a", "options": {"download-as": "a", "method": "PUT"}}, "only the answer to a GET"),
    Refused("urls_for", {"paths": ["/a", "b"]}, "'b'", InvalidPathError),
)
