"""What can be asked, and how: operations, task names, queues, states and the check of every request value.

Client, CLI and worker all check a request here, so a bare ``send_task`` hears the very same error as a Client.
Nothing here needs the store, the source or the configuration: what only the worker can see, it checks itself.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from blobferry.errors import InvalidPathError, InvalidRequestError

JOBS_QUEUE: Final = "blobferry"
READS_QUEUE: Final = "blobferry.reads"
TASK_PREFIX: Final = "blobferry."
#: Headers of a message that has a row: with them a missing row or an old number is dropped, never created.
ROW_HEADER: Final = "blobferry_row"
SEQ_HEADER: Final = "publish_seq"

MAX_JOB_ID: Final = 155  #: characters; what Celery's own result tables allow a task id
MAX_KEY_BYTES: Final = 1024  #: Source: S3 user guide, "Creating object key names"
MAX_METADATA_BYTES: Final = 2048  #: Source: S3 user guide, "User-defined object metadata"
MAX_PRIORITY: Final = 9


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"  #: waits for a slot: new, or between two slices
    RUNNING = "running"  #: a worker holds its lease
    VERIFYING = "verifying"  #: sent; Stat does not show it yet
    RETRYING = "retrying"  #: an attempt ended in a transient error or a dead worker; waits for run_at
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
CLAIMABLE_STATES: Final = frozenset({JobState.QUEUED, JobState.RETRYING, JobState.VERIFYING})


class Phase(StrEnum):
    """How far a job is: finer than its state, and kept when a run ends."""

    UPLOADING = "uploading"
    COMPLETING = "completing"  #: the point of no return: readers may see the blob any moment
    VERIFYING = "verifying"  #: published; Stat has yet to confirm it


class UploadState(StrEnum):
    """Where a multipart upload is in its life."""

    OPENING = "opening"  #: the row comes first; the store may or may not have heard
    OPEN = "open"
    COMPLETING = "completing"  #: readers may see it any moment
    COMPLETED = "completed"
    ABORTING = "aborting"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. ``arguments`` are the operation's own; the rest belongs to the job."""

    operation: str
    storage: str
    path: str
    arguments: Mapping[str, Any]
    labels: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None

    @property
    def source(self) -> str | None:
        """The URL or path that the bytes come from."""
        return self.arguments.get("source")


Check = Callable[[str, Any], Any]
"""``check(name, value)`` returns the value in its JSON form or raises InvalidRequestError naming it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a task: its arguments, each with its check."""

    name: str
    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)

    @property
    def task_name(self) -> str:
        """The Celery task that runs it."""
        return TASK_PREFIX + self.name


# --- checks of single values ---------------------------------------------------------------------------------------

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
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_JOB_ID:
        raise InvalidRequestError(f"job id: needs 1 to {MAX_JOB_ID} characters, got {job_id!r:.200}")
    return job_id


def _path(name: str, value: Any) -> str:
    return check_path(value)


def _storage(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _STORAGE.fullmatch(value):
        raise InvalidRequestError(
            f"{name}: the name of a configured storage (lower-case letters, digits, '_'), got {value!r:.200}"
        )
    return value


def _offset(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value != 0:
        raise InvalidRequestError(f"{name}: this version writes whole blobs, so only 0 works, got {value!r:.200}")
    return value


def _source(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}: needs a URL, got {value!r:.200}")
    url = urlsplit(value)
    if url.scheme != "file":
        raise InvalidRequestError(f"{name}: needs a file: URL such as 'file:///srv/incoming/7.mp4', got {value!r:.200}")
    if url.netloc not in ("", "localhost") or not url.path.startswith("/") or url.query or url.fragment:
        raise InvalidRequestError(
            f"{name}: a file: URL holds an absolute path and nothing else (write '#' as %23, '?' as %3F), "
            f"got {value!r:.200}"
        )
    if "\0" in unquote(url.path):
        raise InvalidRequestError(f"{name}: a file name cannot hold a zero byte")
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name}: needs true or false, got {value!r:.200}")
    return value


def _priority(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise InvalidRequestError(f"{name}: needs a whole number from 0 to {MAX_PRIORITY}, got {value!r:.200}")
    return value


def _time(name: str, value: Any) -> str:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidRequestError(
            f"{name}: needs a time with a zone (ISO 8601 or an aware datetime), got {value!r:.200}"
        )
    return moment.isoformat()


def _text(limit: int) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
            raise InvalidRequestError(f"{name}: needs 1 to {limit} printable characters, got {value!r:.200}")
        return value

    return check


def _content_type(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not (value.isascii() and value.isprintable()):
        raise InvalidRequestError(f"{name}: needs a media type such as 'video/mp4', got {value!r:.200}")
    return value


def _strings(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise InvalidRequestError(f"{name}: needs a mapping of strings to strings, got {value!r:.200}")
    return dict(value)


def _metadata(name: str, value: Any) -> dict[str, str]:
    metadata = _strings(name, value)
    for key, text in metadata.items():
        if not _HEADER_NAME.fullmatch(key) or not (text.isascii() and text.isprintable()):
            raise InvalidRequestError(
                f"{name}: {key!r:.200} cannot be sent: names are lower-case letters, digits, '.', '_', '-', "
                "values printable ASCII"
            )
    if sum(len(key) + len(text) for key, text in metadata.items()) > MAX_METADATA_BYTES:
        raise InvalidRequestError(f"{name}: holds more than the {MAX_METADATA_BYTES} bytes that S3 allows")
    return metadata


def _optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


# --- operations ----------------------------------------------------------------------------------------------------

#: Arguments that every job takes; they are columns of its row.
JOB_OPTIONS: Final[Mapping[str, Check]] = {
    "storage": _storage,
    "idempotency_key": _optional(_text(255)),
    "priority": _priority,
    "not_before": _optional(_time),
    "deadline": _optional(_time),
    "labels": _optional(_strings),
}

OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (
        Operation(
            "write_stream",
            required={"path": _path, "source": _source},
            optional={
                "offset": _offset,
                "overwrite": _boolean,
                "metadata": _optional(_metadata),
                "content_type": _optional(_content_type),
            },
        ),
    )
}


def check_request(operation: str, arguments: Mapping[str, Any]) -> Request:
    """Check the arguments of an operation and return them as a Request.

    Raises InvalidRequestError naming the first argument that is unknown, missing, of the wrong type or too large.
    """
    spec = OPERATIONS[operation]
    checks = {**spec.required, **spec.optional, **JOB_OPTIONS}
    for name in arguments:
        if name not in checks:
            raise InvalidRequestError(f"{operation}: unknown argument {name!r:.200}; it takes {', '.join(checks)}")
    for name in spec.required:
        if name not in arguments:
            raise InvalidRequestError(f"{operation}: argument {name!r} is missing")
    values: dict[str, Any] = {}
    for name, check in checks.items():  # in this order: the path is checked before the offset
        if name in arguments:
            values[name] = check(name, arguments[name])
    own = {name: value for name, value in values.items() if name not in JOB_OPTIONS and value is not None}
    return Request(
        operation=operation,
        storage=values.get("storage", "default"),
        path=values["path"],
        arguments=own,
        labels=values.get("labels"),
        idempotency_key=values.get("idempotency_key"),
        priority=values.get("priority", 0),
        not_before=_moment(values.get("not_before")),
        deadline=_moment(values.get("deadline")),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
