"""Checks of URLs: where a job reads from, and the file that it writes to. An error shows none of their secrets."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from blobferry.checks.arguments import check_path, check_storage
from blobferry.errors import InvalidRequestError
from blobferry.redaction import is_sealed, redacted, short_repr

MAX_URL: Final = 8192  #: characters; presigned ones have up to 4,000
MAX_SEALED: Final = 2 * MAX_URL  #: characters; a third more than the URL, and its frame

_SEALED = re.compile(r"sealed:[A-Za-z0-9_-]+={0,2}")  # source: the Fernet specification


def check_source(name: str, value: Any) -> str:
    """The URL of a source, as the worker sees it; or sealed: what is inside is checked by whoever opens it."""
    if isinstance(value, str) and is_sealed(value):
        if len(value) > MAX_SEALED or not _SEALED.fullmatch(value):
            raise InvalidRequestError(f"{name}: 'sealed:' and what blobferry.seal() returned, got something else")
        return value
    return _check(name, value, _SOURCES, "'file:///srv/incoming/7.mp4', 'https://host/path' or 'blob://storage/path'")


def check_dest(name: str, value: Any) -> str:
    """The ``file:`` URL of a file that a blob is to be written to, as the worker sees it."""
    url = _check(name, value, {"file": _check_file}, "'file:///srv/outgoing/7.mp4'")
    if url.endswith("/"):
        raise InvalidRequestError(f"{name}: names a directory; the name of the file is missing, got {_got(url)}")
    return url


def _check(name: str, value: Any, kinds: Mapping[str, Callable[[str, str, SplitResult], None]], such_as: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        # urlsplit would drop line ends and outer blanks without a word, and another file would be read.
        raise InvalidRequestError(f"{name}: needs a URL (write odd characters as %XX), got {_got(value)}")
    if len(value) > MAX_URL:
        raise InvalidRequestError(f"{name}: a URL has at most {MAX_URL} characters, this one {len(value)}")
    try:
        url = urlsplit(value)
    except ValueError:  # which may show the password
        raise InvalidRequestError(f"{name}: needs a URL, got a malformed one: {_got(value)}") from None
    check = kinds.get(url.scheme)
    if check is None:
        raise InvalidRequestError(f"{name}: needs a URL such as {such_as}, got {_got(value)}")
    check(name, value, url)
    return value


def _check_file(name: str, value: str, url: SplitResult) -> None:
    if url.netloc not in ("", "localhost") or not url.path.startswith("/") or url.query or url.fragment:
        raise InvalidRequestError(
            f"{name}: a file: URL holds an absolute path and nothing else (write '#' as %23, '?' as %3F), "
            f"got {_got(value)}"
        )
    if "\0" in unquote(url.path):
        raise InvalidRequestError(f"{name}: a file name cannot hold a zero byte")


def _check_blob(name: str, value: str, url: SplitResult) -> None:
    if "@" in url.netloc:
        raise InvalidRequestError(f"{name}: a blob: URL holds no user, got {_got(value)}")
    check_storage(f"{name}: the storage in blob://storage/path", url.netloc)
    check_path(url.path)
    if url.query or url.fragment:
        raise InvalidRequestError(f"{name}: a blob: URL holds a storage and a path and nothing else")


def _check_http(name: str, value: str, url: SplitResult) -> None:
    try:
        is_good = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # the port
        is_good = False
    # Programs differ in what they make of a blank or a backslash, and so in which host they ask.
    if not is_good or " " in value or "\\" in value or "#" in value:
        raise InvalidRequestError(
            f"{name}: an http: URL holds a host, perhaps a port, a path and a query, no blank and no fragment (write "
            f"odd characters as %XX), got {_got(value)}"
        )


_SOURCES: Final = {"file": _check_file, "http": _check_http, "https": _check_http, "blob": _check_blob}


def _got(value: Any) -> str:
    return short_repr(redacted(value) if isinstance(value, str) else value)
