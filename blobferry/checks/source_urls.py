"""Checks of the URLs of sources, destinations and webhooks. No error shows a secret that a URL holds."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from blobferry.checks.arguments import Check, check_storage
from blobferry.checks.paths import (
    check_any_path_or_root,
    check_any_path_value,
    check_any_path_values,
    check_path,
    check_path_or_root,
    check_path_value,
    check_path_values,
)
from blobferry.errors import InvalidRequestError
from blobferry.redaction import is_sealed, redacted, short_repr

MAX_URL: Final = 8192  #: characters; presigned ones have up to 4,000
MAX_WEBHOOK: Final = 2048  #: characters of the URL of a webhook; the row of each delivery has it
MAX_SEALED: Final = 2 * MAX_URL  #: characters; sealing makes a URL a third longer

_SEALED = re.compile(r"sealed:[A-Za-z0-9_-]+={0,2}")  # source: the Fernet specification


def check_source(name: str, value: Any) -> str:
    """The URL of a source, as the worker sees it. The inside of a sealed one is checked when it is opened."""
    return _check_source(name, value, _SOURCES)


def check_any_source(name: str, value: Any) -> str:
    """The same where a ``blob:`` URL may name a storage with ``keys = "any"``."""
    return _check_source(name, value, {**_SOURCES, "blob": _check_any_blob})


def blob_path(url: SplitResult) -> str:
    """The path in a ``blob:`` URL. Raises InvalidRequestError if its percent-encoded bytes are not UTF-8."""
    try:
        return unquote(url.path, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequestError(f"the path in {url.geturl()!r:.200} is not percent-encoded UTF-8") from None


_Checks = Mapping[str, Callable[[str, str, SplitResult], None]]


def _check_source(name: str, value: Any, kinds: _Checks) -> str:
    if isinstance(value, str) and is_sealed(value):
        if len(value) > MAX_SEALED or not _SEALED.fullmatch(value):
            raise InvalidRequestError(f"{name}: starts with 'sealed:' but is not what blobferry.seal() returns")
        return value
    value = _of_path(value)
    url = _check(name, value, kinds, "'file:///srv/incoming/7.mp4', 'https://host/path' or 'blob://storage/path'")
    parts = urlsplit(url)
    return blob_url(parts.netloc, blob_path(parts)) if parts.scheme == "blob" else url


def blob_url(storage: str, path: str) -> str:
    """The one spelling of a blob's URL in rows: jobs that need its path search for it."""
    return f"blob://{storage}{quote(path)}"


def check_dest(name: str, value: Any) -> str:
    """The ``file:`` URL, as the worker sees it, of the file that a blob is read into."""
    url = _check(name, _of_path(value), {"file": _check_file}, "'file:///srv/outgoing/7.mp4'")
    if url.endswith("/"):
        raise InvalidRequestError(f"{name}: names a directory; add the name of the file, got {_got(url)}")
    return url


def check_webhook(name: str, value: Any) -> str:
    """The URL that a webhook is posted to. The worker checks whether it may be: http needs its consent."""
    url = _check(name, value, {"http": _check_http, "https": _check_http}, "'https://shop.example/hooks/blobferry'")
    if len(url) > MAX_WEBHOOK:
        raise InvalidRequestError(f"{name}: has {len(url)} characters; a URL may have {MAX_WEBHOOK}")
    return url


def _of_path(value: Any) -> Any:
    """The URL of a file that is given by its absolute path; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    try:
        return f"file://{quote(os.fsencode(value))}"
    except UnicodeEncodeError:  # the name of no file
        return value


def _check(name: str, value: Any, kinds: _Checks, such_as: str) -> str:
    if hasattr(value, "read") or isinstance(value, bytes | bytearray | memoryview):
        kind = "a file object" if hasattr(value, "read") else "bytes"
        raise InvalidRequestError(
            f"{name}: needs a URL or a path that the worker can open, got {kind}, which cannot travel to it: "
            "spool an upload (Client.spool), use put_content for up to 1 MiB, or name a file where the worker sees it"
        )
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        # urlsplit drops line ends and outer blanks silently: another file would be read.
        raise InvalidRequestError(
            f"{name}: needs a URL (percent-encode blanks and control characters), got {_got(value)}"
        )
    if len(value) > MAX_URL:
        raise InvalidRequestError(f"{name}: has {len(value)} characters; a URL may have {MAX_URL}")
    try:
        url = urlsplit(value)
    except ValueError:  # its text may show the password
        raise InvalidRequestError(f"{name}: needs a URL, got a malformed one: {_got(value)}") from None
    check = kinds.get(url.scheme)
    if url.scheme == "s3":
        raise InvalidRequestError(
            f"{name}: write 'blob://STORAGE{redacted(url.path)}', with the name of the worker's storage that has this "
            f"bucket, got {_got(value)}"
        )
    if check is None and not url.scheme and "file" in kinds:
        such_as += f", or an absolute path (pathlib.Path({_got(value)}) makes one)"
    if check is None:
        raise InvalidRequestError(f"{name}: needs a URL such as {such_as}, got {_got(value)}")
    check(name, value, url)
    return url.scheme + value[len(url.scheme) :]  # in small letters, as all look for it who only see the row


def _check_file(name: str, value: str, url: SplitResult) -> None:
    if url.netloc not in ("", "localhost") or not url.path.startswith("/") or url.query or url.fragment:
        raise InvalidRequestError(
            f"{name}: a file: URL needs an absolute path and nothing else (write '#' as %23, '?' as %3F), "
            f"got {_got(value)}"
        )
    if "\0" in unquote(url.path):
        raise InvalidRequestError(f"{name}: a file name cannot hold a zero byte")


def _check_blob(name: str, value: str, url: SplitResult) -> None:
    _check_storage_of(name, value, url)
    check_path(url.path)


def _check_any_blob(name: str, value: str, url: SplitResult) -> None:
    _check_storage_of(name, value, url)
    check_any_path_value(name, blob_path(url))


def _check_storage_of(name: str, value: str, url: SplitResult) -> None:
    if "@" in url.netloc:
        raise InvalidRequestError(f"{name}: a blob: URL cannot name a user, got {_got(value)}")
    check_storage(f"{name}: the storage in blob://storage/path", url.netloc)
    if url.query or url.fragment:
        raise InvalidRequestError(
            f"{name}: a blob: URL needs a storage and a path and nothing else (write '#' as %23, '?' as %3F)"
        )


def _check_http(name: str, value: str, url: SplitResult) -> None:
    try:
        is_good = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # the port is not a number
        is_good = False
    # Parsers disagree on blanks and backslashes, and so on the host that is asked.
    if not is_good or " " in value or "\\" in value or "#" in value:
        raise InvalidRequestError(
            f"{name}: an http: URL needs a host and has no blank, backslash or fragment (percent-encode them), "
            f"got {_got(value)}"
        )


_SOURCES: Final = {"file": _check_file, "http": _check_http, "https": _check_http, "blob": _check_blob}


def _got(value: Any) -> str:
    return short_repr(redacted(value) if isinstance(value, str) else value)


#: What stands in for the checks of paths where a storage may have ``keys = "any"``: its own driver has the last word.
CHECKS_OF_ANY_KEYS: Final[Mapping[Check, Check]] = {
    check_path_value: check_any_path_value,
    check_path_values: check_any_path_values,
    check_path_or_root: check_any_path_or_root,
    check_source: check_any_source,
}
