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

Every class takes its attributes as positional arguments and builds its message from them, so that an error comes
back whole from pickle and from Celery's JSON result backend, both of which call ``cls(*args)``.
"""

from typing import ClassVar, Final

#: What a store says of a key that it did not delete this time.
PASSING_CODES: Final = frozenset(
    {"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"}
)


class BlobferryError(Exception):
    """Base of every error here. ``code`` is stable and is what a job row carries as ``error_code``."""

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False
    #: Bytes that ``write_stream`` had read from its reader. Where to go on is what ``stat`` says, never this.
    total_read: int = 0

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class ConfigurationError(BlobferryError):
    """A setting or driver parameter ``name`` is missing or wrong."""

    code = "configuration"

    def __init__(self, name: str, problem: str) -> None:
        Exception.__init__(self, name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


# --- what the caller asked for -------------------------------------------------------------------------------------


class InvalidRequestError(BlobferryError):
    """An argument of an operation cannot be used; nothing was done."""

    code = "invalid_request"


class InvalidPathError(InvalidRequestError):
    """The path breaks the path rules."""

    code = "invalid_path"

    def __init__(self, path: str, driver: str = "") -> None:
        Exception.__init__(self, path, driver)
        self.path = path
        self.driver = driver

    def __str__(self) -> str:
        return (
            f"{_named(self.driver)}invalid path {self.path!r}: a path is absolute, its components hold ASCII letters, "
            "digits, '.', '_' and '-', none is empty, '.' or '..', and its key has at most 1,024 bytes"
        )


class InvalidOffsetError(InvalidRequestError):
    """The offset is negative or beyond what a store can hold."""

    code = "invalid_offset"

    def __init__(self, path: str, offset: int, driver: str = "") -> None:
        Exception.__init__(self, path, offset, driver)
        self.path = path
        self.offset = offset
        self.driver = driver

    def __str__(self) -> str:
        return f"{_named(self.driver)}invalid offset {self.offset} for {self.path!r}: it must be 0 to 48.8 TiB"


class UnsupportedMethodError(InvalidRequestError):
    """``url_for`` signs GET and HEAD only, and nothing where blobs have no URLs."""

    code = "unsupported_method"

    def __init__(self, method: str, driver: str = "", reason: str = "use 'GET' or 'HEAD'") -> None:
        Exception.__init__(self, method, driver, reason)
        self.method = method
        self.driver = driver
        self.reason = reason

    def __str__(self) -> str:
        return f"{_named(self.driver)}unsupported method {self.method!r}: {self.reason}"


class PathNotFoundError(BlobferryError):
    """Nothing is stored at the path."""

    code = "path_not_found"

    def __init__(self, path: str, driver: str = "") -> None:
        Exception.__init__(self, path, driver)
        self.path = path
        self.driver = driver

    def __str__(self) -> str:
        return f"{_named(self.driver)}path not found: {self.path}"


# --- jobs ----------------------------------------------------------------------------------------------------------


class JobError(BlobferryError):
    """Something about a job rather than about its bytes."""

    code = "job"


class JobNotFoundError(JobError):
    """No job has this id."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        Exception.__init__(self, job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job {self.job_id!r}"


class ConflictError(JobError):
    """The idempotency key already belongs to a job with another request."""

    code = "conflict"

    def __init__(self, idempotency_key: str, job_id: str) -> None:
        Exception.__init__(self, idempotency_key, job_id)
        self.idempotency_key = idempotency_key
        self.job_id = job_id

    def __str__(self) -> str:
        return f"idempotency key {self.idempotency_key!r} was used by job {self.job_id!r} for another request"


class TooLateError(JobError):
    """The job is too far, or over, for what was asked of it; nothing was changed.

    ``asked`` is ``cancel``, ``pause``, ``resume`` or ``retry``; ``where`` is the job's state and phase, in words.
    """

    code = "too_late"

    def __init__(self, job_id: str, asked: str, where: str, advice: str = "") -> None:
        Exception.__init__(self, job_id, asked, where, advice)
        self.job_id = job_id
        self.asked = asked
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        return f"too late to {self.asked} job {self.job_id!r}: {self.where}" + (
            f"; {self.advice}" if self.advice else ""
        )


class LeaseLostError(JobError):
    """This run no longer owns its job: it must write nothing more."""

    code = "lease_lost"


class WorkerDiedError(JobError):
    """The job's worker died too often for it to be tried again."""

    code = "worker_died"


class DeadlineExceededError(JobError):
    """The job was not finished by its deadline."""

    code = "deadline"


class UnexpectedError(JobError):
    """Something that Blobferry has no name for went wrong while a job ran."""

    code = "unexpected"
    transient = True


class UnreachableError(JobError):
    """The database, the broker or every worker is out of reach."""

    code = "unreachable"
    transient = True


# --- sources -------------------------------------------------------------------------------------------------------


class SourceError(BlobferryError):
    """The source of a transfer cannot be read."""

    code = "source"


class SourceNotFoundError(SourceError):
    """There is no such source, seen from the worker."""

    code = "source_not_found"


class SourceNotAllowedError(SourceError):
    """The source lies outside of what the worker may read."""

    code = "source_not_allowed"


class SourceChangedError(SourceError):
    """The source is no longer what it was when the transfer began."""

    code = "source_changed"


class SourceUnavailableError(SourceError):
    """The source cannot be read at the moment."""

    code = "source_unavailable"
    transient = True


# --- destinations --------------------------------------------------------------------------------------------------


class DestinationError(BlobferryError):
    """The file that a blob is to be written to cannot be written."""

    code = "destination"


class DestinationNotAllowedError(DestinationError):
    """The file lies outside of what the worker may write, or is no regular file."""

    code = "destination_not_allowed"


class DestinationUnavailableError(DestinationError):
    """The file cannot be written at the moment."""

    code = "destination_unavailable"
    transient = True


class DestinationFullError(DestinationError):
    """The disk is full; what was written of the blob is kept, to go on with."""

    code = "destination_full"
    transient = True


# --- transfers -----------------------------------------------------------------------------------------------------


class TransferError(BlobferryError):
    """The transfer itself cannot go on."""

    code = "transfer"


class PlanError(TransferError):
    """No part plan within the store's limits can hold the blob."""

    code = "plan"


class BlobExistsError(TransferError):
    """A blob is at the path already, and overwriting it was not allowed."""

    code = "blob_exists"


class SupersededError(TransferError):
    """Another blob has appeared at the path; it was left alone."""

    code = "superseded"


class OutcomeUnknownError(TransferError):
    """The upload is gone and so is its blob: it may have been completed and deleted, or never completed."""

    code = "outcome_unknown"


class TooManyRestartsError(TransferError):
    """The upload had to start again from byte 0 too often."""

    code = "too_many_restarts"


class VerificationError(TransferError):
    """The store never showed the blob that was sent."""

    code = "verification_failed"


# --- stores --------------------------------------------------------------------------------------------------------


class StoreError(BlobferryError):
    """An object store refused or failed. The vendor's own error is the ``__cause__``."""

    code = "store"


class KeyNotFoundError(StoreError):
    """The store has nothing under the key."""

    code = "key_not_found"


class UploadNotFoundError(StoreError):
    """The upload id is unknown: completed, aborted, or expired by a lifecycle rule."""

    code = "upload_not_found"


class BucketNotFoundError(StoreError):
    """The bucket does not exist."""

    code = "bucket_not_found"


class PermissionDeniedError(StoreError):
    """The credentials do not allow the request."""

    code = "permission_denied"


class PreconditionFailedError(StoreError):
    """If-Match or If-None-Match did not hold."""

    code = "precondition_failed"


class ChecksumMismatchError(StoreError):
    """The store received other bytes than those that the checksum was made of."""

    code = "checksum_mismatch"
    transient = True


class InvalidPartError(StoreError):
    """A part named at completion is not what the store holds, or is too small."""

    code = "invalid_part"
    transient = True  # an old owner's part may have replaced ours: the next run reconciles


class InvalidStoreRequestError(StoreError):
    """The store calls the request malformed; sending it again cannot help."""

    code = "invalid_store_request"


class RangeNotSatisfiableError(StoreError):
    """The range lies at or past the end of the blob."""

    code = "range_not_satisfiable"


class NotSupportedError(StoreError):
    """The store does not implement what was asked."""

    code = "not_supported"


class DeleteIncompleteError(StoreError):
    """Some of many keys were not deleted; all others were.

    ``failures`` holds ``[path, code]`` of the first ones, with the codes of the store.
    """

    code = "delete_incomplete"

    def __init__(self, path: str, failures: list[list[str]], driver: str = "", count: int | None = None) -> None:
        Exception.__init__(self, path, failures, driver, count)
        self.path = path
        self.failures = failures
        self.driver = driver
        self.count = len(failures) if count is None else count
        # The retry decision asks the instance: one key that may yet go is worth another try.
        self.transient = any(code in PASSING_CODES for _, code in failures)  # type: ignore[misc]

    def __str__(self) -> str:
        named = ", ".join(f"{path} ({code})" for path, code in self.failures[:10])
        more = f" and {self.count - 10} more" if self.count > 10 else ""
        return f"{_named(self.driver)}not all of {self.path} was deleted: {named}{more}"


class CredentialsError(StoreError):
    """Credentials are missing or have expired; they may be refreshed."""

    code = "credentials"
    transient = True


class StoreUnavailableError(StoreError):
    """The store cannot be reached or answers with a server error."""

    code = "store_unavailable"
    transient = True


class SlowDownError(StoreUnavailableError):
    """The store asks for fewer requests."""

    code = "slow_down"


class WriteConflictError(StoreUnavailableError):
    """Somebody else wrote the key at the same moment; this call had no effect."""

    code = "write_conflict"


def _named(driver: str) -> str:
    return f"{driver}: " if driver else ""
