"""Checks of single request values. Each returns the value in its JSON form, or raises an error that names it."""

import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from blobferry.errors import InvalidOffsetError, InvalidPathError, InvalidRequestError, UnsupportedMethodError
from blobferry.redaction import short_repr

MAX_JOB_ID: Final = 155  #: characters; what Celery's own result tables allow a task id
MAX_KEY_BYTES: Final = 1024  #: Source: S3 user guide, "Creating object key names"
#: The name of the metadata entry by which a job knows its own blob; its value has 32 characters.
MARK_NAME: Final = "blobferry-job"
#: S3 allows 2,048, the mark included. Source: S3 user guide, "User-defined object metadata"
MAX_METADATA_BYTES: Final = 2048 - len(MARK_NAME) - 32
MAX_PRIORITY: Final = 9
MAX_CONTENT: Final = 1024 * 1024  #: bytes that a message or a result carries
#: Bytes; ten thousand parts of 5 GiB. Source: S3 user guide, "Amazon S3 multipart upload limits"
MAX_OFFSET: Final = 10_000 * 5 * 1024**3

Check = Callable[[str, Any], Any]
"""``check(name, value)`` returns the value in its JSON form or raises InvalidRequestError naming it."""

_DAY = timedelta(days=1)
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_STORAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_path(path: Any) -> str:
    """Return the path if it names a blob: absolute, plain components, none of them ``.`` or ``..``."""
    if not isinstance(path, str) or not _PATH.fullmatch(path) or len(path) > MAX_KEY_BYTES:
        raise InvalidPathError(_named(path))
    if any(component in (".", "..") for component in path.split("/")):
        raise InvalidPathError(path)
    return path


def check_job_id(job_id: Any) -> str:
    """Return the id if it can be a job's: 1 to 155 characters."""
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_JOB_ID or not _is_storable(job_id):
        raise InvalidRequestError(f"job id: needs 1 to {MAX_JOB_ID} characters, got {short_repr(job_id)}")
    return job_id


def check_path_value(name: str, value: Any) -> str:
    """The path of a blob."""
    return check_path(value)


def check_path_or_root(name: str, value: Any) -> str:
    """The path of a blob or a directory; ``/`` is the whole storage."""
    return value if isinstance(value, str) and value == "/" else check_path(value)


def check_storage(name: str, value: Any) -> str:
    """The name of a storage."""
    if not isinstance(value, str) or not _STORAGE.fullmatch(value):
        raise InvalidRequestError(
            f"{name}: the name of a configured storage (lower-case letters, digits, '_'), got {short_repr(value)}"
        )
    return value


def check_offset(name: str, value: Any) -> int:
    """A byte offset. Its range is checked beside the path, which the error names."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequestError(f"{name}: needs a whole number of bytes, got {short_repr(value)}")
    return value


def check_offset_range(path: str, offset: int) -> None:
    """Raise InvalidOffsetError unless a blob can have a byte at the offset."""
    if not 0 <= offset <= MAX_OFFSET:
        if abs(offset) >= 10**100:  # the error could not be printed
            raise InvalidRequestError(f"offset: has too many digits; at most {MAX_OFFSET} works")
        raise InvalidOffsetError(path, offset)


def check_contents(name: str, value: Any) -> dict[str, str]:
    """The bytes of a whole blob: bytes-like, or ``{"base64": "…"}``, which is their JSON form."""
    if isinstance(value, str):
        raise InvalidRequestError(f"{name}: needs bytes and got a string; encode it, as in contents.encode()")
    if isinstance(value, Mapping):
        contents = _decoded(name, value)
    else:
        try:
            with memoryview(value) as view:
                _check_size(name, view.nbytes)
                contents = view.tobytes()
        except (TypeError, ValueError, BufferError):
            kind = type(value).__name__
            raise InvalidRequestError(f'{name}: needs bytes or {{"base64": "…"}}, got a {kind}') from None
    return {"base64": b64encode(contents).decode()}


def _decoded(name: str, value: Mapping[str, Any]) -> bytes:
    text = value.get("base64")
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidRequestError(f'{name}: needs bytes or {{"base64": "…"}}, got another mapping')
    _check_size(name, len(text) // 4 * 3 - text[-2:].count("="))
    try:
        contents = a2b_base64(text.encode(), strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: is no base64: {error}") from None
    return contents


def _check_size(name: str, size: int) -> None:
    if size > MAX_CONTENT:
        raise InvalidRequestError(
            f"{name}: {size} bytes are more than the {MAX_CONTENT} that a message carries; use write_stream"
        )


def check_url_options(name: str, value: Any) -> dict[str, str]:
    """What a URL is to allow: ``method`` and ``expiry``."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{name}: needs a mapping with 'method' and 'expiry', got {short_repr(value)}")
    for option in value:
        if option not in ("method", "expiry"):
            raise InvalidRequestError(f"{name}: unknown option {short_repr(option)}; there are 'method' and 'expiry'")
    options = {}
    if (method := value.get("method")) is not None:
        if method not in ("GET", "HEAD"):
            raise UnsupportedMethodError(_named(method))
        options["method"] = method
    if (expiry := value.get("expiry")) is not None:
        options["expiry"] = check_time(f"{name}: expiry", expiry)
    return options


def check_boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name}: needs true or false, got {short_repr(value)}")
    return value


def check_priority(name: str, value: Any) -> int:
    """0 to 9."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise InvalidRequestError(f"{name}: needs a whole number from 0 to {MAX_PRIORITY}, got {short_repr(value)}")
    return value


def check_time(name: str, value: Any) -> str:
    """A time with a zone, in ISO 8601."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        is_good = isinstance(moment, datetime) and moment.utcoffset() is not None
        # The first and the last day of all times do not exist in some zones: a database that shows its times in one of
        # them would have a row that nobody can read.
        if is_good:
            moment.astimezone(UTC) - _DAY, moment.astimezone(UTC) + _DAY
    except Exception:  # a zone may be anybody's own class
        is_good = False
    if not is_good:
        raise InvalidRequestError(
            f"{name}: needs a time with a zone (ISO 8601 or an aware datetime), got {short_repr(value)}"
        )
    return str(moment.isoformat())


def check_text(limit: int) -> Check:
    """Printable text of 1 to ``limit`` characters."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
            raise InvalidRequestError(f"{name}: needs 1 to {limit} printable characters, got {short_repr(value)}")
        return value

    return check


def check_content_type(name: str, value: Any) -> str:
    """A media type."""
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not (value.isascii() and value.isprintable()):
        raise InvalidRequestError(f"{name}: needs a media type such as 'video/mp4', got {short_repr(value)}")
    return value


def check_strings(name: str, value: Any) -> dict[str, str]:
    """Strings by name."""
    if not isinstance(value, Mapping) or not all(_is_storable(text) for pair in value.items() for text in pair):
        raise InvalidRequestError(
            f"{name}: needs a mapping of strings to strings (no zero bytes, valid Unicode), got {short_repr(value)}"
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
                f"{name}: {short_repr(key)} cannot be sent: names are lower-case letters, digits, '.', '_', '-', "
                "values printable ASCII"
            )
    if sum(len(key) + len(text) for key, text in metadata.items()) > MAX_METADATA_BYTES:
        raise InvalidRequestError(f"{name}: holds more than the {MAX_METADATA_BYTES} bytes that S3 leaves to it")
    return metadata


def check_optional(check: Check) -> Check:
    """None, or what ``check`` allows."""
    return lambda name, value: None if value is None else check(name, value)


def _named(value: Any) -> str:
    """The text itself, for an error that carries it; what is no text, or longer than any good one, is cut short."""
    return value if isinstance(value, str) and len(value) <= 2 * MAX_KEY_BYTES else short_repr(value)


def _is_storable(value: Any) -> bool:
    """Whether every database can keep the text: PostgreSQL refuses zero bytes and lone surrogates."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
