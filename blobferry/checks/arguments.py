"""Checks of single request values. Each returns the value in its JSON form, or raises an error that names it.

The limits of S3 that several packages need stand here, once.
"""

import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from blobferry.checks.paths import MAX_KEY_BYTES
from blobferry.errors import (
    ArgumentTypeError,
    InvalidOffsetError,
    InvalidRequestError,
)
from blobferry.redaction import short_repr

MAX_JOB_ID: Final = 155  #: characters; what Celery's own result tables allow a task id
MAX_BLOB_METADATA: Final = 2048  #: bytes, names and values. Source: S3 user guide, "User-defined object metadata"
#: Name of the metadata entry by which a job recognises its own blob; the value has 32 characters.
MARK_NAME: Final = "blobferry-job"
MAX_METADATA_BYTES: Final = MAX_BLOB_METADATA - len(MARK_NAME) - 32  #: what the mark leaves to the caller
MAX_LABELS: Final = 16 * 1024  #: bytes of a job's labels, names and values
MAX_CHILDREN: Final = 10_000  #: of a directory, in one answer
MAX_PRIORITY: Final = 9
RESERVED_KEYS: Final = "blobferry:"  #: how idempotency keys begin that are notes of our own
REPLACED_BY: Final = f"{RESERVED_KEYS}replaced-by:"  #: such a note; the id of the job that has the key now follows
MAX_CONTENT: Final = 1024 * 1024  #: bytes that a message or a result carries
#: Bytes; ten thousand parts of 5 GiB. Source: S3 user guide, "Amazon S3 multipart upload limits"
MAX_OFFSET: Final = 10_000 * 5 * 1024**3

Check = Callable[[str, Any], Any]
"""``check(name, value)`` returns the value in its JSON form or raises InvalidRequestError naming it."""

_DAY = timedelta(days=1)
_STORAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def _check(needs: str, is_good: Callable[[Any], bool]) -> Check:
    """A check that returns good values unchanged; an error says what the argument ``needs``."""

    def check(name: str, value: Any) -> Any:
        if not is_good(value):
            raise refused(name, needs, value)
        return value

    return check


def refused(name: str, needs: str, value: Any) -> InvalidRequestError:
    """The error for a value that an argument cannot have."""
    return InvalidRequestError(f"{name}: needs {needs}, got {short_repr(value)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_storable(value: Any) -> bool:
    """True for text that every database can hold: PostgreSQL refuses zero bytes and lone surrogates."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_media_type(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isascii() and value.isprintable()


def check_whole_number(least: int, most: int) -> Check:
    """A whole number from ``least`` to ``most``."""
    return _check(f"a whole number from {least} to {most}", lambda value: _is_whole(value) and least <= value <= most)


def check_text(limit: int) -> Check:
    """Printable text of 1 to ``limit`` characters."""
    return _check(
        f"1 to {limit} printable characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= limit and value.isprintable(),
    )


def check_secret_name(name: str, value: Any) -> str:
    """The name of a secret that the worker has. An error shows no value, which may be the secret itself."""
    if isinstance(value, str) and _STORAGE.fullmatch(value) and not value.startswith("whsec"):
        return value
    raise InvalidRequestError(f"{name}: needs the name of a secret of the worker (lower-case letters, digits, '_')")


def check_optional(check: Check) -> Check:
    """A check that allows None as well."""
    return lambda name, value: None if value is None else check(name, value)


check_boolean: Final = _check("true or false", lambda value: isinstance(value, bool))
check_reuse: Final = _check("'failed'", lambda value: value == "failed")
check_priority: Final = check_whole_number(0, MAX_PRIORITY)
check_content_type: Final = _check("a media type such as 'video/mp4'", _is_media_type)
check_storage: Final = _check(
    "the name of a configured storage (lower-case letters, digits, '_')",
    lambda value: isinstance(value, str) and _STORAGE.fullmatch(value) is not None,
)
#: The path of a child, which others may have written under any key.
check_child: Final = _check(
    f"the path of a child, at most {2 * MAX_KEY_BYTES} characters",
    lambda value: _is_storable(value) and value.startswith("/") and len(value) <= 2 * MAX_KEY_BYTES,
)


def check_key(name: str, value: Any) -> Any:
    """An idempotency key: 1 to 255 characters."""
    if isinstance(value, str) and value.startswith(RESERVED_KEYS):
        raise InvalidRequestError(f"{name}: cannot begin with {RESERVED_KEYS!r}, got {short_repr(value)}")
    return check_text(255)(name, value)


def check_offset(name: str, value: Any) -> Any:
    """A whole number of bytes; ``check_offset_range`` checks the range, because its error names the path."""
    if not _is_whole(value):
        raise ArgumentTypeError(f"{name}: needs a whole number of bytes, got {short_repr(value)}")
    return value


def check_job_id(job_id: Any) -> str:
    """Return the id if a job can have it: a string of 1 to 155 characters, or a UUID, which becomes one."""
    if isinstance(job_id, UUID):
        return str(job_id)
    if not isinstance(job_id, str):
        raise refused("job id", "a string or a UUID, such as job.id", job_id)
    if not _is_storable(job_id) or not 0 < len(job_id) <= MAX_JOB_ID:
        raise refused("job id", f"1 to {MAX_JOB_ID} characters", job_id)
    return str(job_id)


def check_offset_range(path: str, offset: int) -> None:
    """Raise InvalidOffsetError unless a blob can have a byte at the offset."""
    if abs(offset) >= 10**100:  # Python refuses to print a number of thousands of digits
        raise InvalidRequestError(f"offset: needs a number from 0 to {MAX_OFFSET}, got one of too many digits")
    if not 0 <= offset <= MAX_OFFSET:
        raise InvalidOffsetError(path, offset)


def check_contents(name: str, value: Any) -> dict[str, str]:
    """The bytes of a whole blob: bytes-like, or ``{"base64": "…"}``, which is their JSON form."""
    if isinstance(value, str):
        raise InvalidRequestError(f"{name}: needs bytes, got a string; encode it, for example with contents.encode()")
    if isinstance(value, Mapping):
        contents = _decoded(name, value)
    else:
        try:
            with memoryview(value) as view:
                _check_size(name, view.nbytes)
                contents = view.tobytes()
        except InvalidRequestError:
            raise
        except (TypeError, ValueError, BufferError):
            kind = type(value).__name__
            raise InvalidRequestError(f'{name}: needs bytes or {{"base64": "…"}}, got a {kind}') from None
    return {"base64": b64encode(contents).decode()}


def _decoded(name: str, value: Mapping[str, Any]) -> bytes:
    text = value.get("base64")
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidRequestError(f'{name}: needs bytes or {{"base64": "…"}}, got a mapping of another shape')
    _check_size(name, len(text) // 4 * 3 - text[-2:].count("="))
    try:
        return a2b_base64(text.encode(), strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: is not valid base64: {error}") from None


def _check_size(name: str, size: int) -> None:
    if size > MAX_CONTENT:
        raise InvalidRequestError(
            f"{name}: has {size} bytes, and a message carries at most {MAX_CONTENT}; use write_stream"
        )


def check_time(name: str, value: Any) -> str:
    """A time with a zone, in ISO 8601."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.utcoffset() is not None:
            # Raises within a day of the first and last datetime: some zone, perhaps the database's, has none there.
            moment.astimezone(UTC) - _DAY, moment.astimezone(UTC) + _DAY
            return str(moment.isoformat())
    except Exception:  # the zone may be the caller's own class, and raise anything
        pass
    raise refused(name, "a time with a zone (ISO 8601 or an aware datetime)", value)


def check_due(name: str, value: Any) -> str:
    """A time with a zone, or a timedelta from now by this host's clock."""
    if isinstance(value, timedelta):
        with suppress(OverflowError):  # then it is refused as what it is
            value = datetime.now(UTC) + value
    return check_time(name, value)


def parse_time(text: str | None) -> datetime | None:
    """The moment that ``check_time`` returned as text."""
    return None if text is None else datetime.fromisoformat(text)


def check_strings(name: str, value: Any) -> dict[str, str]:
    """A mapping of strings to strings that every database can keep."""
    if not isinstance(value, Mapping) or not all(_is_storable(text) for pair in value.items() for text in pair):
        raise refused(name, "a mapping of strings to strings (no zero bytes, valid Unicode)", value)
    return dict(value)


def check_labels(name: str, value: Any) -> dict[str, str]:
    """The labels of a job: strings, whole numbers or UUIDs, which become strings; together at most 16 KiB."""
    if isinstance(value, Mapping):  # a row's key is the most usual label
        value = {key: str(text) if _is_whole(text) or isinstance(text, UUID) else text for key, text in value.items()}
    labels = check_strings(name, value)
    size = sum(len(text.encode()) for pair in labels.items() for text in pair)
    if size > MAX_LABELS:
        raise InvalidRequestError(f"{name}: have {size} bytes, names and values together; at most {MAX_LABELS} may be")
    return labels


def check_metadata(name: str, value: Any) -> dict[str, str]:
    """The user metadata of a blob, within the limits of S3."""
    metadata = check_strings(name, value)
    if MARK_NAME in metadata:
        raise InvalidRequestError(f"{name}: the name {MARK_NAME!r} is reserved for Blobferry")
    for key, text in metadata.items():
        if not _HEADER_NAME.fullmatch(key) or not (text.isascii() and text.isprintable()):
            raise InvalidRequestError(
                f"{name}: {short_repr(key)} cannot be sent; names take lower-case letters, digits, '.', '_' and '-', "
                "values take printable ASCII"
            )
    if sum(len(key) + len(text) for key, text in metadata.items()) > MAX_METADATA_BYTES:
        raise InvalidRequestError(f"{name}: names and values together exceed {MAX_METADATA_BYTES} bytes")
    return metadata
