"""What can be asked, and how: operations, task names, queues, states and the check of every request value.

Client, CLI and worker all check a request here, so a bare ``send_task`` hears the very same error as a Client.
Nothing here needs the store, the source or the configuration: what only the worker can see, it checks itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from blobferry import checks
from blobferry.checks import Check
from blobferry.errors import InvalidRequestError

JOBS_QUEUE: Final = "blobferry"
READS_QUEUE: Final = "blobferry.reads"
TASK_PREFIX: Final = "blobferry."
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


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a task: its arguments, each with its check."""

    name: str
    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  #: stored too, so that equal requests are equal

    @property
    def task_name(self) -> str:
        """The Celery task that runs it."""
        return TASK_PREFIX + self.name


# --- operations ----------------------------------------------------------------------------------------------------

#: Arguments that every job takes; they are columns of its row.
JOB_OPTIONS: Final[Mapping[str, Check]] = {
    "storage": checks.check_storage,
    "idempotency_key": checks.check_optional(checks.check_text(255)),
    "priority": checks.check_priority,
    "not_before": checks.check_optional(checks.check_time),
    "deadline": checks.check_optional(checks.check_time),
    "labels": checks.check_optional(checks.check_strings),
}

OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (
        Operation(
            "write_stream",
            required={"path": checks.check_path_value, "source": checks.check_source},
            optional={
                "offset": checks.check_offset,
                "overwrite": checks.check_boolean,
                "metadata": checks.check_optional(checks.check_metadata),
                "content_type": checks.check_optional(checks.check_content_type),
            },
            defaults={"offset": 0, "overwrite": True},
        ),
    )
}


def check_request(operation: str, arguments: Mapping[str, Any]) -> Request:
    """Check the arguments of an operation and return them as a Request.

    Raises InvalidRequestError naming the first argument that is unknown, missing, of the wrong type or too large.
    """
    spec = OPERATIONS[operation]
    known = {**spec.required, **spec.optional, **JOB_OPTIONS}
    for name in arguments:
        if name not in known:
            raise InvalidRequestError(f"{operation}: unknown argument {name!r:.200}; it takes {', '.join(known)}")
    for name in spec.required:
        if name not in arguments:
            raise InvalidRequestError(f"{operation}: argument {name!r} is missing")
    values: dict[str, Any] = {}
    for name, check in known.items():  # in this order: the path is checked before the offset
        if name in arguments:
            values[name] = check(name, arguments[name])
    given = {name: value for name, value in values.items() if name not in JOB_OPTIONS and value is not None}
    return Request(
        operation=operation,
        storage=values.get("storage", "default"),
        path=values["path"],
        arguments={**spec.defaults, **given},
        labels=values.get("labels"),
        idempotency_key=values.get("idempotency_key"),
        priority=values.get("priority", 0),
        not_before=_moment(values.get("not_before")),
        deadline=_moment(values.get("deadline")),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
