"""What can be asked, and how: operations, task names, queues, states and the check of every request value.

Client, CLI and worker all check a request here, so a bare ``send_task`` hears the very same error as a Client.
Nothing here needs the store, the source or the configuration: what only the worker can see, it checks itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from blobferry.checks import arguments as checks
from blobferry.checks import source_urls as url_checks
from blobferry.checks.arguments import Check
from blobferry.errors import InvalidRequestError
from blobferry.redaction import redacted, short_repr

JOBS_QUEUE: Final = "blobferry"
READS_QUEUE: Final = "blobferry.reads"
TASK_PREFIX: Final = "blobferry."
#: Raised when a request comes to mean what older workers would get wrong: they leave newer ones alone.
REQUEST_VERSION: Final = 2
PLAIN_REQUEST: Final = 1  #: the version of a request without sealed URLs; 2 may have some
#: Headers of a message that has a row: with them a missing row or an old number is dropped, never created.
ROW_HEADER: Final = "blobferry_row"
SEQ_HEADER: Final = "publish_seq"


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
    DELETING_SOURCE = "deleting_source"  #: of a move: Stat showed the copy; a source that is gone is no error any more
    DELETING = "deleting"  #: of a delete: it knows what may go


#: Phases in which readers may see the outcome: a cancel is too late.
PAST_POINT_OF_NO_RETURN: Final = frozenset({Phase.COMPLETING, Phase.VERIFYING, Phase.DELETING_SOURCE})


class UploadState(StrEnum):
    """Where a multipart upload is in its life."""

    OPENING = "opening"  #: the row comes first; the store may or may not have heard
    OPEN = "open"
    COMPLETING = "completing"  #: readers may see it any moment
    COMPLETED = "completed"
    ABORTING = "aborting"
    GONE = "gone"


#: Uploads that may still be gone on with, or be seen by readers any moment.
UNFINISHED_UPLOADS: Final = (UploadState.OPENING, UploadState.OPEN, UploadState.COMPLETING)


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. ``arguments`` are the operation's own; the rest belongs to the job."""

    operation: str
    storage: str
    path: str  #: of what is written, read or deleted; of a move, the destination
    arguments: Mapping[str, Any]
    labels: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None

    @property
    def source_url(self) -> str | None:
        """The URL that the bytes come from, secrets and all, or sealed."""
        return self.arguments.get("source")

    @property
    def source(self) -> str | None:
        """Where the bytes come from: a URL, to be shown and thus without its secrets, or the path that is moved."""
        url = self.source_url
        return redacted(url) if url is not None else self.arguments.get("source_path")

    @property
    def dest(self) -> str | None:
        """The ``file:`` URL that a blob is read into."""
        return self.arguments.get("dest")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a task: its arguments, each with its check."""

    name: str
    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  #: stored too, so that equal requests are equal
    path: str = "path"  #: the argument that names the blob, or what becomes of it
    queue: str = JOBS_QUEUE

    @property
    def task_name(self) -> str:
        """The Celery task that runs it."""
        return TASK_PREFIX + self.name

    @property
    def options(self) -> Mapping[str, Check]:
        """The arguments that it has in common with others of its kind."""
        return JOB_OPTIONS if self.queue == JOBS_QUEUE else READ_OPTIONS


# --- operations ----------------------------------------------------------------------------------------------------

READ_OPTIONS: Final[Mapping[str, Check]] = {"storage": checks.check_storage}
#: Arguments that every job takes; they are columns of its row.
JOB_OPTIONS: Final[Mapping[str, Check]] = {
    **READ_OPTIONS,
    "idempotency_key": checks.check_optional(checks.check_text(255)),
    "priority": checks.check_priority,
    "not_before": checks.check_optional(checks.check_time),
    "deadline": checks.check_optional(checks.check_time),
    "labels": checks.check_optional(checks.check_strings),
}
_OVERWRITE: Final[Mapping[str, Check]] = {"overwrite": checks.check_boolean}
_BLOB: Final[Mapping[str, Check]] = {
    "metadata": checks.check_optional(checks.check_metadata),
    "content_type": checks.check_optional(checks.check_content_type),
}


def _by_name(*operations: Operation) -> Mapping[str, Operation]:
    return {operation.name: operation for operation in operations}


#: The operations that are jobs: each has a row, and survives its worker.
OPERATIONS: Final = _by_name(
    Operation(
        "put_content",
        required={"path": checks.check_path_value, "contents": checks.check_contents},
        optional={**_OVERWRITE, **_BLOB},
        defaults={"overwrite": True},
    ),
    Operation(
        "write_stream",
        required={"path": checks.check_path_value, "source": url_checks.check_source},
        optional={"offset": checks.check_offset, **_OVERWRITE, **_BLOB},
        defaults={"offset": 0, "overwrite": True},
    ),
    Operation(
        "read_stream",
        required={"path": checks.check_path_value, "dest": url_checks.check_dest},
        optional={"offset": checks.check_offset, **_OVERWRITE},
        defaults={"offset": 0, "overwrite": True},
    ),
    Operation(
        "move",
        required={"source_path": checks.check_path_value, "dest_path": checks.check_path_value},
        optional={"dest_storage": checks.check_optional(checks.check_storage), **_OVERWRITE},
        defaults={"overwrite": True},
        path="dest_path",
    ),
    Operation("delete", required={"path": checks.check_path_value}),
)

#: The operations whose answer is the result of their task. They have no row.
READS: Final = _by_name(
    Operation("get_content", required={"path": checks.check_path_value}, queue=READS_QUEUE),
    Operation("stat", required={"path": checks.check_path_or_root}, queue=READS_QUEUE),
    Operation("list", required={"path": checks.check_path_or_root}, queue=READS_QUEUE),
    Operation(
        "url_for",
        required={"path": checks.check_path_value},
        optional={"options": checks.check_optional(checks.check_url_options)},
        queue=READS_QUEUE,
    ),
)


def check_request(operation: str, arguments: Mapping[str, Any]) -> Request:
    """Check the arguments of an operation and return them as a Request.

    Raises InvalidRequestError naming the first argument that is unknown, missing, of the wrong type or too large.
    """
    spec = OPERATIONS.get(operation) or READS[operation]
    known = {**spec.required, **spec.optional, **spec.options}
    for name in arguments:
        if name not in known:
            raise InvalidRequestError(f"{operation}: unknown argument {short_repr(name)}; it takes {', '.join(known)}")
    for name in spec.required:
        if name not in arguments:
            raise InvalidRequestError(f"{operation}: argument {name!r} is missing")
    values: dict[str, Any] = {}
    for name, check in known.items():  # in this order: the path is checked before the offset
        if name in arguments:
            values[name] = check(name, arguments[name])
    if "offset" in values:
        checks.check_offset_range(values["path"], values["offset"])
    given = {name: value for name, value in values.items() if name not in spec.options and value is not None}
    return Request(
        operation=operation,
        storage=values.get("storage", "default"),
        path=values[spec.path],
        arguments={**spec.defaults, **given},
        labels=values.get("labels"),
        idempotency_key=values.get("idempotency_key"),
        priority=values.get("priority", 0),
        not_before=_moment(values.get("not_before")),
        deadline=_moment(values.get("deadline")),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
