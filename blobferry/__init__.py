"""Blobferry: background transfer of blobs. Web apps install and import this package.

``import blobferry`` loads neither SQLAlchemy nor Celery: the first use of :class:`Client` loads the one, the first
Client with a broker the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from blobferry.checks.safe_paths import safe_path
from blobferry.contract import JobState
from blobferry.errors import (
    ArgumentTypeError,
    BlobExistsError,
    BlobferryError,
    BucketNotFoundError,
    ChecksumMismatchError,
    ConfigurationError,
    ConflictError,
    CredentialsError,
    DeadlineExceededError,
    DeleteIncompleteError,
    DestinationError,
    DestinationFullError,
    DestinationNotAllowedError,
    DestinationUnavailableError,
    InvalidOffsetError,
    InvalidPartError,
    InvalidPathError,
    InvalidRequestError,
    InvalidStoreRequestError,
    JobError,
    JobNotFoundError,
    KeyNotFoundError,
    LeaseLostError,
    NotSupportedError,
    OutcomeUnknownError,
    PathNotFoundError,
    PermissionDeniedError,
    PlanError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SlowDownError,
    SourceChangedError,
    SourceError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    TooLateError,
    TooManyRestartsError,
    TransferError,
    UnexpectedError,
    UnreachableError,
    UnsupportedMethodError,
    UploadNotFoundError,
    VerificationError,
    WorkerDiedError,
    WriteConflictError,
)
from blobferry.sealing import seal
from blobferry.signing.signed_url import SignedUrl
from blobferry.values import Attempt, Delivery, FileInfo, Job, Situation, Upload

if TYPE_CHECKING:
    from blobferry.async_client import AsyncClient
    from blobferry.client import Client
    from blobferry.jobs.new_job import NewJob
    from blobferry.views.job_view import JobView

__all__ = [
    "ArgumentTypeError",
    "AsyncClient",
    "Attempt",
    "BlobExistsError",
    "BlobferryError",
    "BucketNotFoundError",
    "ChecksumMismatchError",
    "Client",
    "ConfigurationError",
    "ConflictError",
    "CredentialsError",
    "DeadlineExceededError",
    "DeleteIncompleteError",
    "Delivery",
    "DestinationError",
    "DestinationFullError",
    "DestinationNotAllowedError",
    "DestinationUnavailableError",
    "FileInfo",
    "InvalidOffsetError",
    "InvalidPartError",
    "InvalidPathError",
    "InvalidRequestError",
    "InvalidStoreRequestError",
    "Job",
    "JobError",
    "JobNotFoundError",
    "JobState",
    "JobView",
    "KeyNotFoundError",
    "LeaseLostError",
    "NewJob",
    "NotSupportedError",
    "OutcomeUnknownError",
    "PathNotFoundError",
    "PermissionDeniedError",
    "PlanError",
    "PreconditionFailedError",
    "RangeNotSatisfiableError",
    "SignedUrl",
    "Situation",
    "SlowDownError",
    "SourceChangedError",
    "SourceError",
    "SourceNotAllowedError",
    "SourceNotFoundError",
    "SourceUnavailableError",
    "StoreError",
    "StoreUnavailableError",
    "SupersededError",
    "TooLateError",
    "TooManyRestartsError",
    "TransferError",
    "UnexpectedError",
    "UnreachableError",
    "UnsupportedMethodError",
    "Upload",
    "UploadNotFoundError",
    "VerificationError",
    "WorkerDiedError",
    "WriteConflictError",
    "__version__",
    "safe_path",
    "seal",
]

__version__ = "0.1.0"
#: What is loaded on first use, and from where.
_LOADED_LATER: Final = {
    "AsyncClient": "blobferry.async_client",
    "Client": "blobferry.client",
    "JobView": "blobferry.views.job_view",
    "NewJob": "blobferry.jobs.new_job",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_LATER:
        raise AttributeError(f"module 'blobferry' has no attribute {name!r}")
    return getattr(import_module(_LOADED_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_LATER})
