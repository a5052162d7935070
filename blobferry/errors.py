"""Every error that Blobferry raises on purpose.

    BlobferryError
    ├── ConfigurationError              a setting or a driver parameter is wrong; names it
    ├── InvalidRequestError             an argument is unknown, of the wrong type or too large
    │   ├── ArgumentTypeError           a TypeError as well, as the others are ValueErrors
    │   ├── InvalidPathError
    │   ├── InvalidOffsetError
    │   └── UnsupportedMethodError
    ├── PathNotFoundError
    ├── JobError
    │   ├── JobNotFoundError
    │   ├── ConflictError               one idempotency key, two different requests
    │   ├── TooLateError                the job has ended, or is past the point where the request could apply
    │   ├── LeaseLostError              another run owns the job now
    │   ├── WorkerDiedError             its worker died too many times
    │   ├── DeadlineExceededError
    │   ├── UnexpectedError *           a bug, here or in a library
    │   └── UnreachableError *          database, broker or worker
    ├── SourceError
    │   ├── SourceNotFoundError
    │   ├── SourceNotAllowedError
    │   ├── SourceChangedError
    │   └── SourceUnavailableError *
    ├── DestinationError                the file that a blob is written to
    │   ├── DestinationNotAllowedError
    │   ├── DestinationUnavailableError *
    │   └── DestinationFullError *      the disk is full
    ├── TransferError
    │   ├── PlanError                   no part plan holds this many bytes
    │   ├── BlobExistsError             and the job must not overwrite it
    │   ├── SupersededError             another blob is at the path now
    │   ├── OutcomeUnknownError         it can no longer be known what the store did
    │   ├── TooManyRestartsError
    │   └── VerificationError           HEAD never showed the blob that was sent
    └── StoreError
        ├── KeyNotFoundError
        ├── UploadNotFoundError
        ├── BucketNotFoundError
        ├── PermissionDeniedError
        ├── PreconditionFailedError
        ├── ChecksumMismatchError *
        ├── InvalidPartError *
        ├── InvalidStoreRequestError
        ├── RangeNotSatisfiableError
        ├── NotSupportedError           the store lacks a feature
        ├── DeleteIncompleteError       some keys were not deleted; transient if one of them may go later
        ├── CredentialsError *          expired or missing
        └── StoreUnavailableError *     network, timeout, 5xx
            ├── SlowDownError *
            └── WriteConflictError *    two writers of one key at once; this write had no effect

``*`` marks transient errors: trying again later may help. Only the worker's retry decision reads that.
A class declares its ``code``, ``transient`` (inherited if not given), and what its constructor takes: one message, or
the annotated fields of a dataclass, from which ``template`` builds the message. ``args`` holds all of it, so that
``cls(*args)``, as pickle, copy and Celery's JSON result backend call it, returns an equal error.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from blobferry.checks.broken_rules import broken_rule
from blobferry.redaction import short_repr

#: Codes of a store for a key that it failed to delete, if another try may delete it.
PASSING_CODES: Final = {"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"}

_LONGEST_PATH: Final = 2_048  #: characters of an invalid path that its message shows


class BlobferryError(Exception):
    """Base of every error here. ``code`` never changes; a job row carries it as ``error_code``."""

    code: ClassVar[str] = "error"
    transient: bool = False
    lacks: str = ""  #: what only this worker may lack: a name of ``blobferry.jobs.needs``; "": nothing
    certainly_lacks: bool = False  #: whether it is certainly this worker that lacks it, not the job that is wrong
    resumable: bool = False  #: whether a job that this error fails keeps its upload: another source may continue it
    retry_after: float | None = None  #: seconds to wait before another try, at least; None: none are asked for
    template: ClassVar[str] = ""  #: of the message, over the attributes; "" where the message is the only argument
    total_read: int = 0  #: bytes that ``write_stream`` had read from its reader; to continue, ask ``stat``

    def __init_subclass__(cls, code: str = "", transient: bool | None = None) -> None:
        super().__init_subclass__()
        if code:
            cls.code = code
        if transient is not None:
            cls.transient = transient

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __post_init__(self) -> None:
        self.args = tuple(vars(self).values())

    def __str__(self) -> str:
        if not self.template:
            return super().__str__()
        driver = getattr(self, "driver", "")
        return (f"{driver}: " if driver else "") + self.template.format_map(vars(self))


@dataclass(eq=False, repr=False)
class ConfigurationError(BlobferryError, code="configuration"):
    """The setting or driver parameter ``name`` is missing or wrong; on another worker it may be right."""

    name: str
    problem: str
    template = "{name}: {problem}"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lacks = self.name


class InvalidRequestError(BlobferryError, ValueError, code="invalid_request"):
    """An argument of an operation cannot be used; nothing was done."""


class ArgumentTypeError(InvalidRequestError, TypeError, code="argument_type"):
    """An argument of an operation has another type than it needs; nothing was done."""


@dataclass(eq=False, repr=False)
class InvalidPathError(InvalidRequestError, code="invalid_path"):
    """The path, which is the caller's own, breaks the rules that ``keys`` of the storage sets."""

    path: Any
    driver: str = ""
    keys: str = "registry"
    template = "invalid path {}: {}"

    def __str__(self) -> str:
        is_short = isinstance(self.path, str) and len(self.path) <= _LONGEST_PATH
        shown = repr(self.path) if is_short else short_repr(self.path)
        return (f"{self.driver}: " if self.driver else "") + self.template.format(
            shown, broken_rule(self.path, self.keys)
        )


@dataclass(eq=False, repr=False)
class InvalidOffsetError(InvalidRequestError, code="invalid_offset"):
    """The offset is negative, or beyond the largest blob that a store can hold."""

    path: str
    offset: int
    driver: str = ""
    template = "invalid offset {offset} for {path!r}: it must be 0 to 48.8 TiB"


@dataclass(eq=False, repr=False)
class UnsupportedMethodError(InvalidRequestError, code="unsupported_method"):
    """``url_for`` signs only GET, HEAD and PUT, and cannot sign where blobs have no URLs."""

    method: str
    driver: str = ""
    reason: str = "use 'GET', 'HEAD' or 'PUT'"
    template = "unsupported method {method!r}: {reason}"


@dataclass(eq=False, repr=False)
class PathNotFoundError(BlobferryError, code="path_not_found"):
    """Nothing is stored at the path, or not what was asked for: ``why`` says that it is a directory, or a blob."""

    path: str
    driver: str = ""
    why: str = ""
    template = "path not found: {path}{why}"

    def __post_init__(self) -> None:
        self.args = (self.path, self.driver, self.why) if self.why else (self.path, self.driver)  # as older clients do


class JobError(BlobferryError, code="job"):
    """A problem of a job rather than of its bytes."""


@dataclass(eq=False, repr=False)
class JobNotFoundError(JobError, code="job_not_found"):
    """No job has this id."""

    job_id: str
    template = "no job {job_id!r}"


@dataclass(eq=False, repr=False)
class ConflictError(JobError, code="conflict"):
    """The idempotency key already belongs to a job with another request."""

    idempotency_key: str
    job_id: str
    position: int | None = None  #: of the request among those submitted at once, from 0
    template = "idempotency key {idempotency_key!r} was used by job {job_id!r} for another request"

    def __str__(self) -> str:
        return super().__str__() if self.position is None else f"requests[{self.position}]: {super().__str__()}"


@dataclass(eq=False, repr=False)
class TooLateError(JobError, code="too_late"):
    """The job has ended, or is past the point where the request could apply; nothing was changed.

    ``asked`` is ``cancel``, ``pause``, ``resume`` or ``retry``; ``where`` is the job's state and phase, in words.
    """

    job_id: str
    asked: str
    where: str
    advice: str = ""
    template = "too late to {asked} job {job_id!r}: {where}"

    def __str__(self) -> str:
        return super().__str__() + (f"; {self.advice}" if self.advice else "")


class LeaseLostError(JobError, code="lease_lost"):
    """This run no longer owns its job and must not write anything more."""


class WorkerDiedError(JobError, code="worker_died"):
    """The job's worker died too many times for another try."""


class DeadlineExceededError(JobError, code="deadline"):
    """The job had not finished by its deadline."""


class UnexpectedError(JobError, code="unexpected", transient=True):
    """An error without a class of its own here ended the run of a job."""


class UnreachableError(JobError, code="unreachable", transient=True):
    """The database, the broker or every worker is out of reach."""


class SourceError(BlobferryError, code="source"):
    """The source of a transfer cannot be read."""


class SourceNotFoundError(SourceError, code="source_not_found"):
    """The worker finds no such source."""


class SourceNotAllowedError(SourceError, code="source_not_allowed"):
    """The source lies outside of what the worker may read."""


class SourceChangedError(SourceError, code="source_changed"):
    """The source has changed since the transfer began."""


class SourceUnavailableError(SourceError, code="source_unavailable", transient=True):
    """The source cannot be read at the moment."""


class DestinationError(BlobferryError, code="destination"):
    """The file that a blob is written to cannot be written."""


class DestinationNotAllowedError(DestinationError, code="destination_not_allowed"):
    """The file lies outside of what the worker may write, or is not a regular file."""


class DestinationUnavailableError(DestinationError, code="destination_unavailable", transient=True):
    """The file cannot be written at the moment."""


class DestinationFullError(DestinationError, code="destination_full", transient=True):
    """The disk is full; the bytes already written are kept, and the next run continues after them."""


class TransferError(BlobferryError, code="transfer"):
    """The transfer itself cannot go on."""


class PlanError(TransferError, code="plan"):
    """No part plan within the store's limits can hold the blob."""


class BlobExistsError(TransferError, code="blob_exists"):
    """A blob is at the path already, and the job must not overwrite it."""


class SupersededError(TransferError, code="superseded"):
    """Another blob has appeared at the path; it was left alone."""


class OutcomeUnknownError(TransferError, code="outcome_unknown"):
    """The upload and its blob are both gone: it was completed and then deleted, or never completed."""


class TooManyRestartsError(TransferError, code="too_many_restarts"):
    """The upload had to start again from byte 0 too often."""


class VerificationError(TransferError, code="verification_failed"):
    """The store never showed the blob that was sent."""


class StoreError(BlobferryError, code="store"):
    """An object store refused or failed. The vendor's own error is the ``__cause__``."""


class KeyNotFoundError(StoreError, code="key_not_found"):
    """The store has nothing under the key."""


class UploadNotFoundError(StoreError, code="upload_not_found"):
    """The upload id is unknown: completed, aborted, or expired by a lifecycle rule."""


class BucketNotFoundError(StoreError, code="bucket_not_found"):
    """The bucket does not exist."""


class PermissionDeniedError(StoreError, code="permission_denied"):
    """The credentials do not allow the request."""


class PreconditionFailedError(StoreError, code="precondition_failed"):
    """If-Match or If-None-Match did not hold."""


class ChecksumMismatchError(StoreError, code="checksum_mismatch", transient=True):
    """The bytes that the store received do not match their checksum."""


class InvalidPartError(StoreError, code="invalid_part", transient=True):
    """A part named at completion is not what the store holds, or is too small.

    Transient: a previous owner of the job may have replaced our part, and the next run sends it again.
    """


class InvalidStoreRequestError(StoreError, code="invalid_store_request"):
    """The store calls the request malformed; sending it again cannot help."""


class RangeNotSatisfiableError(StoreError, code="range_not_satisfiable"):
    """The range lies at or past the end of the blob."""


class NotSupportedError(StoreError, code="not_supported"):
    """The store does not implement the request."""


@dataclass(eq=False, repr=False)
class DeleteIncompleteError(StoreError, code="delete_incomplete"):
    """Some keys were not deleted; all others were. Transient if another try may delete at least one of them.

    ``failures`` holds ``[path, code]`` of the first ones, with the codes of the store; ``count`` is how many there are.
    """

    path: str
    failures: list[list[str]]
    driver: str = ""
    count: int | None = None
    template = "not all of {path} was deleted: "

    def __post_init__(self) -> None:
        super().__post_init__()
        self.count = len(self.failures) if self.count is None else self.count
        self.transient = any(code in PASSING_CODES for _, code in self.failures)

    def __str__(self) -> str:
        named = ", ".join(f"{path} ({code})" for path, code in self.failures[:10])
        more = (self.count or 0) - 10
        return super().__str__() + named + (f" and {more} more" if more > 0 else "")


class CredentialsError(StoreError, code="credentials", transient=True):
    """Credentials are missing or have expired; they may be refreshed."""


class StoreUnavailableError(StoreError, code="store_unavailable", transient=True):
    """The store cannot be reached or answers with a server error."""


class SlowDownError(StoreUnavailableError, code="slow_down"):
    """The store asks for fewer requests."""


class WriteConflictError(StoreUnavailableError, code="write_conflict"):
    """Another client wrote the key at the same moment; this call had no effect."""
