"""The contract between web apps and workers: operations, task names, queues, states, and the check of a request.

Client, command and worker check requests here, so a bare ``send_task`` ends in Client's error.
Nothing here needs the store, the source or the configuration; the worker checks those.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from blobferry.checks import arguments, callbacks, paths, source_urls, url_options
from blobferry.checks.arguments import Check
from blobferry.errors import InvalidRequestError
from blobferry.redaction import redacted, short_repr

JOBS_QUEUE: Final = "blobferry"
READS_QUEUE: Final = "blobferry.reads"
TASK_PREFIX: Final = "blobferry."
REQUEST_VERSION: Final = 5  #: increased when older workers would misread a request: they leave it alone
PLAIN_REQUEST: Final = 1  #: version of a request without a sealed URL
SEALED_REQUEST: Final = 2  #: version of a request that may have one
APART_REQUEST: Final = 3  #: version of a put_content whose bytes are in the column ``contents``, not in the request
#: Headers of a message for a job that has a row. A worker drops the message if the row is missing or newer.
ROW_HEADER: Final = "blobferry_row"
SEQ_HEADER: Final = "publish_seq"


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"  #: waits for a free slot: new, or between two slices
    RUNNING = "running"  #: a worker holds its lease
    VERIFYING = "verifying"  #: sent; Stat has yet to show it
    RETRYING = "retrying"  #: an attempt ended in a transient error or a dead worker; waits for run_at
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
#: The option that names the task that is told of a job's end in this state.
RECEIVERS: Final = {JobState.SUCCEEDED: "on_done", JobState.FAILED: "on_failed", JobState.CANCELLED: "on_failed"}
CLAIMABLE_STATES: Final = frozenset({JobState.QUEUED, JobState.RETRYING, JobState.VERIFYING})


class Phase(StrEnum):
    """How far a job has got; finer than its state, and kept between runs."""

    UPLOADING = "uploading"
    COMPLETING = "completing"  #: past the point of no return: readers may see the blob at any moment
    VERIFYING = "verifying"  #: committed; Stat has yet to confirm it
    DELETING_SOURCE = "deleting_source"  #: of a move: Stat showed the copy; a missing source is now success
    DELETING = "deleting"  #: of a delete: the cutoff is committed; newer keys stay


#: Phases in which readers may see the outcome, so that a cancel is too late.
PAST_POINT_OF_NO_RETURN: Final = frozenset({Phase.COMPLETING, Phase.VERIFYING, Phase.DELETING_SOURCE})


class UploadState(StrEnum):
    """Where a multipart upload is in its life."""

    OPENING = "opening"  #: the row is committed; the store may or may not have created the upload
    OPEN = "open"
    COMPLETING = "completing"  #: readers may see the blob at any moment
    COMPLETED = "completed"
    ABORTING = "aborting"
    GONE = "gone"


#: Entry of a source's fingerprint: true once a retry has named another source, until that was found to agree.
REPLACED_SOURCE: Final = "replaced"

UNFINISHED_UPLOADS: Final = (UploadState.OPENING, UploadState.OPEN, UploadState.COMPLETING)  #: not given up or done


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. ``arguments`` are those of the operation; the other fields are options of the job."""

    operation: str
    storage: str
    path: str  #: of the blob that is written, read or deleted; the destination of a move; of several, the first one
    arguments: Mapping[str, Any]
    labels: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    reuse: str | None = None  #: "failed": the key of a failed or cancelled job may be used again
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None
    delete_source: bool | None = None  #: of a write_stream; None: if the source is a spooled upload
    relative: frozenset[str] = frozenset()  #: those times that were given as a duration, which a repeat has anew
    on_end: Mapping[str, Any] | None = None  #: who is told of its end

    @property
    def source_url(self) -> str | None:
        """The URL of the source, with its secrets or sealed."""
        return self.arguments.get("source")

    @property
    def source(self) -> str | None:
        """The source as it may be shown: its URL without secrets, or the path that is moved."""
        url = self.source_url
        return redacted(url) if url is not None else self.arguments.get("source_path")

    @property
    def dest(self) -> str | None:
        """The ``file:`` URL of the file that the blob is read into."""
        return self.arguments.get("dest")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a task: its arguments, each with its check."""

    name: str
    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    #: Stored in the row, so that a request with a default equals one without it.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    path: str = "path"  #: the argument that names the blob, or the destination of a move
    queue: str = JOBS_QUEUE

    @property
    def task_name(self) -> str:
        """The name of its Celery task."""
        return TASK_PREFIX + self.name

    @property
    def options(self) -> Mapping[str, Check]:
        """The arguments that all jobs, or all reads, take."""
        return JOB_OPTIONS if self.queue == JOBS_QUEUE else READ_OPTIONS


READ_OPTIONS: Final[Mapping[str, Check]] = {"storage": arguments.check_storage}
#: Arguments that every job takes.
JOB_OPTIONS: Final[Mapping[str, Check]] = {
    **READ_OPTIONS,
    "idempotency_key": arguments.check_optional(arguments.check_key),
    "reuse": arguments.check_optional(arguments.check_reuse),
    "priority": arguments.check_priority,
    "not_before": arguments.check_optional(arguments.check_due),
    "deadline": arguments.check_optional(arguments.check_due),
    "labels": arguments.check_optional(arguments.check_labels),
    **callbacks.END_OPTIONS,
}
#: No part of the stored request but a column: workers of an earlier version leave the file to a sweep.
_REMOVAL: Final[Mapping[str, Check]] = {"delete_source": arguments.check_optional(arguments.check_boolean)}
_OVERWRITE: Final[Mapping[str, Check]] = {"overwrite": arguments.check_boolean}
_URL: Final[Mapping[str, Check]] = {"options": arguments.check_optional(url_options.check_url_options)}
_BLOB: Final[Mapping[str, Check]] = {
    "metadata": arguments.check_optional(arguments.check_metadata),
    "content_type": arguments.check_optional(arguments.check_content_type),
}


def _by_name(*operations: Operation) -> Mapping[str, Operation]:
    return {operation.name: operation for operation in operations}


#: The operations that run as jobs: each has a row and survives its worker.
OPERATIONS: Final = _by_name(
    Operation(
        "put_content",
        required={"path": paths.check_path_value, "contents": arguments.check_contents},
        optional={**_OVERWRITE, **_BLOB},
        defaults={"overwrite": True},
    ),
    Operation(
        "write_stream",
        required={"path": paths.check_path_value, "source": source_urls.check_source},
        optional={"offset": arguments.check_offset, **_REMOVAL, **_OVERWRITE, **_BLOB},
        defaults={"offset": 0, "overwrite": True},
    ),
    Operation(
        "read_stream",
        required={"path": paths.check_path_value, "dest": source_urls.check_dest},
        optional={"offset": arguments.check_offset, **_OVERWRITE},
        defaults={"offset": 0, "overwrite": True},
    ),
    Operation(
        "move",
        required={"source_path": paths.check_path_value, "dest_path": paths.check_path_value},
        optional={"dest_storage": arguments.check_optional(arguments.check_storage), **_OVERWRITE},
        defaults={"overwrite": True},
        path="dest_path",
    ),
    Operation("delete", required={"path": paths.check_path_value}),
)

#: The operations that return their answer as the task's result. They have no row.
READS: Final = _by_name(
    Operation("get_content", required={"path": paths.check_path_value}, queue=READS_QUEUE),
    Operation("stat", required={"path": paths.check_path_or_root}, queue=READS_QUEUE),
    Operation(
        "list",
        required={"path": paths.check_path_or_root},
        optional={
            "after": arguments.check_optional(arguments.check_child),
            "recursive": arguments.check_optional(arguments.check_boolean),
            "limit": arguments.check_optional(arguments.check_whole_number(1, arguments.MAX_CHILDREN)),
        },
        queue=READS_QUEUE,
    ),
    Operation("url_for", required={"path": paths.check_path_value}, optional=_URL, queue=READS_QUEUE),
    Operation("urls_for", required={"paths": paths.check_path_values}, optional=_URL, path="paths", queue=READS_QUEUE),
)


def check_request(operation: str, given: Mapping[str, Any], *, keys: str = "registry") -> Request:
    """Check the arguments given to an operation and return them as a Request.

    ``keys``: as in the configuration of storages. Raises InvalidRequestError naming the first argument that is unknown,
    missing, of the wrong type or too large.
    """
    spec = OPERATIONS.get(operation) or READS[operation]
    checks = {**spec.required, **spec.optional, **spec.options}
    if keys == "any":
        checks = {name: source_urls.CHECKS_OF_ANY_KEYS.get(check, check) for name, check in checks.items()}
    for name in given:
        if name not in checks:
            raise InvalidRequestError(f"{operation}: unknown argument {short_repr(name)}; it takes {', '.join(checks)}")
    for name in spec.required:
        if name not in given:
            raise InvalidRequestError(f"{operation}: argument {name!r} is missing")
    # In the order of the checks: the path's error comes before the offset's.
    values = {name: check(name, given[name]) for name, check in checks.items() if name in given}
    if "offset" in values:
        arguments.check_offset_range(values["path"], values["offset"])
    columns = {**spec.options, **_REMOVAL}
    own = {name: value for name, value in values.items() if name not in columns and value is not None}
    return Request(
        operation=operation,
        storage=values.get("storage", "default"),
        path=values[spec.path] if isinstance(values[spec.path], str) else values[spec.path][0],
        arguments={**spec.defaults, **own},
        **{name: values.get(name) for name in ("labels", "idempotency_key", "reuse")},
        priority=values.get("priority", 0),
        not_before=arguments.parse_time(values.get("not_before")),
        deadline=arguments.parse_time(values.get("deadline")),
        delete_source=values.get("delete_source"),
        relative=frozenset(name for name in ("not_before", "deadline") if isinstance(given.get(name), timedelta)),
        on_end=callbacks.end_receivers(values),
    )
