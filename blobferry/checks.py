"""Checks of single request values. Each returns the value in its JSON form, or raises an error that names it."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from blobferry.errors import InvalidPathError, InvalidRequestError

MAX_JOB_ID: Final = 155  #: characters; what Celery's own result tables allow a task id
MAX_KEY_BYTES: Final = 1024  #: Source: S3 user guide, "Creating object key names"
#: The name of the metadata entry by which a job knows its own blob; its value has 32 characters.
MARK_NAME: Final = "blobferry-job"
#: S3 allows 2,048, the mark included. Source: S3 user guide, "User-defined object metadata"
MAX_METADATA_BYTES: Final = 2048 - len(MARK_NAME) - 32
MAX_PRIORITY: Final = 9

Check = Callable[[str, Any], Any]
"""``check(name, value)`` returns the value in its JSON form or raises InvalidRequestError naming it."""

_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_STORAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_path(path: Any) -> str:
    """Return the path if it names a blob: absolute, plain components, none of them ``.`` or ``..``."""
    if not isinstance(path, str) or not _PATH.fullmatch(path) or len(path) > MAX_KEY_BYTES:
        raise InvalidPathError(path if isinstance(path, str) else repr(path))
    if any(component in (".", "..") for component in path.split("/")):
        raise InvalidPathError(path)
    return path


def check_job_id(job_id: Any) -> str:
    """Return the id if it can be a job's: 1 to 155 characters."""
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_JOB_ID or not _is_storable(job_id):
        raise InvalidRequestError(f"job id: needs 1 to {MAX_JOB_ID} characters, got {job_id!r:.200}")
    return job_id


def check_path_value(name: str, value: Any) -> str:
    """The path of a blob."""
    return check_path(value)


def check_storage(name: str, value: Any) -> str:
    """The name of a storage."""
    if not isinstance(value, str) or not _STORAGE.fullmatch(value):
        raise InvalidRequestError(
            f"{name}: the name of a configured storage (lower-case letters, digits, '_'), got {value!r:.200}"
        )
    return value


def check_offset(name: str, value: Any) -> int:
    """A byte offset."""
    if not isinstance(value, int) or isinstance(value, bool) or value != 0:
        raise InvalidRequestError(f"{name}: this version writes whole blobs, so only 0 works, got {value!r:.200}")
    return value


def check_source(name: str, value: Any) -> str:
    """The URL of a source."""
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        # urlsplit would drop line ends and outer blanks without a word, and another file would be read.
        raise InvalidRequestError(f"{name}: needs a URL (write odd characters as %XX), got {value!r:.200}")
    try:
        url = urlsplit(value)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: needs a URL, got {value!r:.200}: {error}") from error
    check = _SOURCES.get(url.scheme)
    if check is None:
        raise InvalidRequestError(
            f"{name}: needs a URL such as 'file:///srv/incoming/7.mp4' or 'blob://storage/path', got {value!r:.200}"
        )
    check(name, url)
    return value


def _check_file(name: str, url: SplitResult) -> None:
    if url.netloc not in ("", "localhost") or not url.path.startswith("/") or url.query or url.fragment:
        raise InvalidRequestError(
            f"{name}: a file: URL holds an absolute path and nothing else (write '#' as %23, '?' as %3F), "
            f"got {url.geturl()!r:.200}"
        )
    if "\0" in unquote(url.path):
        raise InvalidRequestError(f"{name}: a file name cannot hold a zero byte")


def _check_blob(name: str, url: SplitResult) -> None:
    check_storage(f"{name}: the storage in blob://storage/path", url.netloc)
    check_path(url.path)
    if url.query or url.fragment:
        raise InvalidRequestError(f"{name}: a blob: URL holds a storage and a path and nothing else")


_SOURCES: Final[Mapping[str, Callable[[str, SplitResult], None]]] = {"file": _check_file, "blob": _check_blob}


def check_boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name}: needs true or false, got {value!r:.200}")
    return value


def check_priority(name: str, value: Any) -> int:
    """0 to 9."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise InvalidRequestError(f"{name}: needs a whole number from 0 to {MAX_PRIORITY}, got {value!r:.200}")
    return value


def check_time(name: str, value: Any) -> str:
    """A time with a zone, in ISO 8601."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime):
            moment.astimezone(UTC)  # the first and the last day of all times have none in some zones
    except (ValueError, OverflowError):
        moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidRequestError(
            f"{name}: needs a time with a zone (ISO 8601 or an aware datetime), got {value!r:.200}"
        )
    return moment.isoformat()


def check_text(limit: int) -> Check:
    """Printable text of 1 to ``limit`` characters."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
            raise InvalidRequestError(f"{name}: needs 1 to {limit} printable characters, got {value!r:.200}")
        return value

    return check


def check_content_type(name: str, value: Any) -> str:
    """A media type."""
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not (value.isascii() and value.isprintable()):
        raise InvalidRequestError(f"{name}: needs a media type such as 'video/mp4', got {value!r:.200}")
    return value


def check_strings(name: str, value: Any) -> dict[str, str]:
    """Strings by name."""
    if not isinstance(value, Mapping) or not all(_is_storable(text) for pair in value.items() for text in pair):
        raise InvalidRequestError(
            f"{name}: needs a mapping of strings to strings (no zero bytes, valid Unicode), got {value!r:.200}"
        )
    return dict(value)


def check_metadata(name: str, value: Any) -> dict[str, str]:
    """The user metadata of a blob, as S3 takes it."""
    metadata = check_strings(name, value)
    if MARK_NAME in metadata:
        raise InvalidRequestError(f"{name}: {MARK_NAME!r} is Blobferry's own")
    for key, text in metadata.items():
        if not _HEADER_NAME.fullmatch(key) or not (text.isascii() and text.isprintable()):
            raise InvalidRequestError(
                f"{name}: {key!r:.200} cannot be sent: names are lower-case letters, digits, '.', '_', '-', "
                "values printable ASCII"
            )
    if sum(len(key) + len(text) for key, text in metadata.items()) > MAX_METADATA_BYTES:
        raise InvalidRequestError(f"{name}: holds more than the {MAX_METADATA_BYTES} bytes that S3 leaves to it")
    return metadata


def check_optional(check: Check) -> Check:
    """None, or what ``check`` allows."""
    return lambda name, value: None if value is None else check(name, value)


def _is_storable(value: Any) -> bool:
    """Whether every database can keep the text: PostgreSQL refuses zero bytes and lone surrogates."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
