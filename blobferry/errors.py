"""Every error that Blobferry raises on purpose.

    BlobferryError
    ├── ConfigurationError              a setting or a driver parameter is wrong; names it
    ├── InvalidRequestError             an argument is unknown, has the wrong type or is too large
    │   ├── InvalidPathError
    │   ├── InvalidOffsetError
    │   └── UnsupportedMethodError
    ├── PathNotFoundError
    ├── JobError
    │   ├── JobNotFoundError
    │   ├── ConflictError               one idempotency key, two different requests
    │   ├── TooLateError                the job is too far, or over, for what was asked of it
    │   ├── LeaseLostError              another run owns the job now
    │   ├── WorkerDiedError             the job killed its worker too often
    │   ├── DeadlineExceededError
    │   ├── UnexpectedError *           a bug, or a library's surprise
    │   └── UnreachableError *          database, broker or worker
    ├── SourceError
    │   ├── SourceNotFoundError
    │   ├── SourceNotAllowedError
    │   ├── SourceChangedError
    │   └── SourceUnavailableError *
    ├── DestinationError                a file that a blob is to be written to
    │   ├── DestinationNotAllowedError
    │   ├── DestinationUnavailableError *
    │   └── DestinationFullError *      the disk is full
    ├── TransferError
    │   ├── PlanError                   no part plan can hold this many bytes
    │   ├── BlobExistsError             and overwriting was not allowed
    │   ├── SupersededError             somebody else's blob is at the path now
    │   ├── OutcomeUnknownError         nobody can tell any more what the store did
    │   ├── TooManyRestartsError
    │   └── VerificationError           Stat never showed what was sent
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
        ├── DeleteIncompleteError       some keys of many were not deleted; transient if trying again may help
        ├── CredentialsError *          expired or missing
        └── StoreUnavailableError *     network, timeout, 5xx
            ├── SlowDownError *
            └── WriteConflictError *    two writers of one key at once; this one had no effect

``*`` is transient: trying again later may help. Only the worker's retry decision reads that.

A class declares its code and whether it is transient in its first line, its fields as annotations in the order of its
arguments, and its message as a template of them. One without fields takes the message itself. ``args`` holds the
arguments, so that an error comes back whole from pickle and from Celery's JSON results: both call ``cls(*args)``.
"""

import inspect
from typing import Any, ClassVar, Final

#: Codes by which a store says that deleting the key may work the next time.
PASSING_CODES: Final = frozenset(
    {"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"}
)
REQUIRED: Final = inspect.Parameter.empty


def _field(name: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


class BlobferryError(Exception):
    """Base of every error here. ``code`` is stable: a job's row carries it as ``error_code``."""

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False
    template: ClassVar[str] = "{message}"  #: of the fields; the driver's name is put before it
    #: Bytes that ``write_stream`` had read from its reader. Where to go on is what ``stat`` says, never this.
    total_read = 0
    _signature: ClassVar = inspect.Signature([_field("message", "")])

    def __init_subclass__(cls, *, code: str, transient: bool | None = None) -> None:
        cls.code = code
        cls.transient = cls.transient if transient is None else transient
        if fields := inspect.get_annotations(cls):
            cls._signature = inspect.Signature([_field(name, getattr(cls, name, REQUIRED)) for name in fields])

    def __init__(self, *values: Any, **named: Any) -> None:
        given = self._signature.bind(*values, **named)
        given.apply_defaults()
        vars(self).update(given.arguments)
        super().__init__(*given.args)

    def __str__(self) -> str:
        driver = getattr(self, "driver", "")
        return (f"{driver}: " if driver else "") + self.template.format_map(vars(self))


class ConfigurationError(BlobferryError, code="configuration"):
    """A setting or driver parameter ``name`` is missing or wrong."""

    template = "{name}: {problem}"
    name: str
    problem: str


class InvalidRequestError(BlobferryError, code="invalid_request"):
    """An argument of an operation cannot be used; nothing was done."""


class InvalidPathError(InvalidRequestError, code="invalid_path"):
    """The path breaks the path rules."""

    template = (
        "invalid path {path!r}: a path is absolute, its components hold ASCII letters, digits, '.', '_' and '-', "
        "none is empty, '.' or '..', and its key has at most 1,024 bytes"
    )
    path: str
    driver: str = ""


class InvalidOffsetError(InvalidRequestError, code="invalid_offset"):
    """The offset is negative or beyond what a store can hold."""

    template = "invalid offset {offset} for {path!r}: it must be 0 to 48.8 TiB"
    path: str
    offset: int
    driver: str = ""


class UnsupportedMethodError(InvalidRequestError, code="unsupported_method"):
    """``url_for`` signs GET and HEAD only, and nothing where blobs have no URLs."""

    template = "unsupported method {method!r}: {reason}"
    method: str
    driver: str = ""
    reason: str = "use 'GET' or 'HEAD'"


class PathNotFoundError(BlobferryError, code="path_not_found"):
    """Nothing is stored at the path."""

    template = "path not found: {path}"
    path: str
    driver: str = ""


class JobError(BlobferryError, code="job"):
    """Something about a job rather than about its bytes."""


class JobNotFoundError(JobError, code="job_not_found"):
    """No job has this id."""

    template = "no job {job_id!r}"
    job_id: str


class ConflictError(JobError, code="conflict"):
    """The idempotency key already belongs to a job with another request."""

    template = "idempotency key {idempotency_key!r} was used by job {job_id!r} for another request"
    idempotency_key: str
    job_id: str


class TooLateError(JobError, code="too_late"):
    """The job is too far, or over, for what was asked of it; nothing was changed.

    ``asked`` is ``cancel``, ``pause``, ``resume`` or ``retry``; ``where`` is the job's state and phase, in words.
    """

    template = "too late to {asked} job {job_id!r}: {where}"
    job_id: str
    asked: str
    where: str
    advice: str = ""

    def __str__(self) -> str:
        return super().__str__() + (f"; {self.advice}" if self.advice else "")


class LeaseLostError(JobError, code="lease_lost"):
    """This run no longer owns its job: it must write nothing more."""


class WorkerDiedError(JobError, code="worker_died"):
    """The job's worker died too often for it to be tried again."""


class DeadlineExceededError(JobError, code="deadline"):
    """The job was not finished by its deadline."""


class UnexpectedError(JobError, code="unexpected", transient=True):
    """Something that Blobferry has no name for went wrong while a job ran."""


class UnreachableError(JobError, code="unreachable", transient=True):
    """The database, the broker or every worker is out of reach."""


class SourceError(BlobferryError, code="source"):
    """The source of a transfer cannot be read."""


class SourceNotFoundError(SourceError, code="source_not_found"):
    """There is no such source, seen from the worker."""


class SourceNotAllowedError(SourceError, code="source_not_allowed"):
    """The source lies outside of what the worker may read."""


class SourceChangedError(SourceError, code="source_changed"):
    """The source is no longer what it was when the transfer began."""


class SourceUnavailableError(SourceError, code="source_unavailable", transient=True):
    """The source cannot be read at the moment."""


class DestinationError(BlobferryError, code="destination"):
    """The file that a blob is to be written to cannot be written."""


class DestinationNotAllowedError(DestinationError, code="destination_not_allowed"):
    """The file lies outside of what the worker may write, or is no regular file."""


class DestinationUnavailableError(DestinationError, code="destination_unavailable", transient=True):
    """The file cannot be written at the moment."""


class DestinationFullError(DestinationError, code="destination_full", transient=True):
    """The disk is full; what was written of the blob is kept, to go on with."""


class TransferError(BlobferryError, code="transfer"):
    """The transfer itself cannot go on."""


class PlanError(TransferError, code="plan"):
    """No part plan within the store's limits can hold the blob."""


class BlobExistsError(TransferError, code="blob_exists"):
    """A blob is at the path already, and overwriting it was not allowed."""


class SupersededError(TransferError, code="superseded"):
    """Another blob has appeared at the path; it was left alone."""


class OutcomeUnknownError(TransferError, code="outcome_unknown"):
    """The upload is gone and so is its blob: it may have been completed and deleted, or never completed."""


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
    """The store received other bytes than those that the checksum was made of."""


class InvalidPartError(
    StoreError, code="invalid_part", transient=True
):  # an old owner's part may have replaced ours: the next run reconciles
    """A part named at completion is not what the store holds, or is too small."""


class InvalidStoreRequestError(StoreError, code="invalid_store_request"):
    """The store calls the request malformed; sending it again cannot help."""


class RangeNotSatisfiableError(StoreError, code="range_not_satisfiable"):
    """The range lies at or past the end of the blob."""


class NotSupportedError(StoreError, code="not_supported"):
    """The store does not implement what was asked."""


class DeleteIncompleteError(StoreError, code="delete_incomplete"):
    """Some of many keys were not deleted; all others were.

    ``failures`` holds ``[path, code]`` of the first ones, with the codes of the store.
    """

    template = "not all of {path} was deleted: {named}"
    path: str
    failures: list[list[str]]
    driver: str = ""
    count: int | None = None

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self.count = len(self.failures) if self.count is None else self.count
        shown = ", ".join(f"{path} ({code})" for path, code in self.failures[:10])
        self.named = shown + (f" and {self.count - 10} more" if self.count > 10 else "")
        # The retry decision asks the instance: one key that may yet go is worth another try.
        self.transient = any(code in PASSING_CODES for _, code in self.failures)  # type: ignore[misc]


class CredentialsError(StoreError, code="credentials", transient=True):
    """Credentials are missing or have expired; they may be refreshed."""


class StoreUnavailableError(StoreError, code="store_unavailable", transient=True):
    """The store cannot be reached or answers with a server error."""


class SlowDownError(StoreUnavailableError, code="slow_down"):
    """The store asks for fewer requests."""


class WriteConflictError(StoreUnavailableError, code="write_conflict"):
    """Somebody else wrote the key at the same moment; this call had no effect."""
