"""boto's errors become ours here, and nowhere else.

Three tables, asked in this order: the store's error code, the HTTP status, the class of botocore's own exception.
Messages say what was attempted on which key of which bucket, and never hold credentials.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

from worker.errors import (
    BucketNotFoundError,
    ChecksumMismatchError,
    CredentialsError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
    UploadNotFoundError,
    WriteConflictError,
)
from worker.stores.blob_values import Condition

_BY_CLASS: Final[dict[type[StoreError], str]] = {
    KeyNotFoundError: "NoSuchKey NoSuchVersion",
    UploadNotFoundError: "NoSuchUpload",
    BucketNotFoundError: "NoSuchBucket",
    PermissionDeniedError: (
        "AccessDenied AccountProblem AllAccessDisabled AuthorizationHeaderMalformed InvalidAccessKeyId "
        "InvalidObjectState InvalidPayer InvalidSecurity NotSignedUp ObjectNotInActiveTierError "
        "SignatureDoesNotMatch UnauthorizedAccess"
    ),
    # A clock that is off spoils good credentials until it is set; another worker's may be right.
    CredentialsError: "ExpiredToken InvalidToken TokenRefreshRequired RequestExpired RequestTimeTooSkewed",
    PreconditionFailedError: "PreconditionFailed",
    ChecksumMismatchError: "BadDigest InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch",
    InvalidPartError: "InvalidPart InvalidPartOrder EntityTooSmall",
    RangeNotSatisfiableError: "InvalidRange",
    NotSupportedError: "NotImplemented MethodNotAllowed UnsupportedArgument UnsupportedSignature",
    SlowDownError: (
        "SlowDown Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
        "RequestLimitExceeded TooManyRequests TooManyRequestsException BandwidthLimitExceeded"
    ),
    WriteConflictError: "ConditionalRequestConflict",
    StoreUnavailableError: (
        # A race between two writers: nobody can say from the answer alone which of them won.
        "OperationAborted "
        "InternalError InternalFailure ServiceUnavailable ServiceFailure Busy RequestTimeout RequestTimeoutException "
        "IncompleteBody"
    ),
    InvalidStoreRequestError: (
        "BadRequest EncryptionTypeMismatch EntityTooLarge IllegalLocationConstraintException "
        "IncorrectEndpoint InvalidArgument InvalidBucketName InvalidBucketState InvalidEncryptionAlgorithmError "
        "InvalidHTTPHeader InvalidLocationConstraint InvalidRequest InvalidStorageClass InvalidTag InvalidURI "
        "InvalidWriteOffset KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException "
        "KMS.NotFoundException KeyTooLongError MalformedXML MaxMessageLengthExceeded MetadataTooLarge "
        "MissingContentLength MissingRequestBodyError MissingSecurityHeader PermanentRedirect Redirect "
        "TemporaryRedirect TooManyParts UnexpectedContent"
    ),
}
S3_ERRORS: Final[dict[str, type[StoreError]]] = {
    code: error for error, codes in _BY_CLASS.items() for code in codes.split()
}

#: For codes that the table lacks, and for answers to HEAD, which have no body and hence no code.
S3_STATUSES: Final[dict[int, type[StoreError]]] = {
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: KeyNotFoundError,
    405: NotSupportedError,
    408: StoreUnavailableError,
    409: StoreUnavailableError,
    412: PreconditionFailedError,
    416: RangeNotSatisfiableError,
    429: SlowDownError,
    501: NotSupportedError,
}

#: First match wins. What is in none of them is an OSError of the network's or a bug, and is left alone.
S3_EXCEPTIONS: Final[tuple[tuple[type[Exception], type[StoreError]], ...]] = (
    (boto.NoCredentialsError, CredentialsError),
    (boto.PartialCredentialsError, CredentialsError),
    (boto.CredentialRetrievalError, CredentialsError),
    (boto.TokenRetrievalError, CredentialsError),
    (boto.NoAuthTokenError, CredentialsError),
    (boto.MetadataRetrievalError, CredentialsError),
    (boto.SSOError, CredentialsError),
    (boto.LoginError, CredentialsError),
    (boto.ConnectionError, StoreUnavailableError),
    (boto.HTTPClientError, StoreUnavailableError),
    (boto.IncompleteReadError, StoreUnavailableError),
    (ResponseParserError, StoreUnavailableError),
    (Urllib3Error, StoreUnavailableError),
    (boto.BotoCoreError, InvalidStoreRequestError),  # ParamValidationError and all that is wrong before sending
)

_HINTS: Final[dict[str, str]] = {
    "RequestTimeTooSkewed": "the clocks of this machine and of the store are too far apart: set this machine's clock",
    "ExpiredToken": (
        "credentials that boto3 finds by itself are renewed; a sessiontoken of the settings is not: "
        "renew it and restart the worker"
    ),
    "PermanentRedirect": "the bucket is in another region or at another endpoint: check region and regionendpoint",
    "AuthorizationHeaderMalformed": "the request was signed for another region: check region",
}
_MAX_REASON: Final = 300  # characters of the store's own words


@contextmanager
def s3_errors(
    action: str,
    *,
    bucket: str,
    key: str = "",
    upload_id: str = "",
    source_key: str = "",
    condition: Condition | None = None,
) -> Iterator[None]:
    """Raise what goes wrong inside as a StoreError, the vendor's error as its cause.

    Args:
        action: the verb phrase for the message, such as ``"upload part 3 of"``.
        upload_id: given for calls on an upload, where "not found" means the upload.
        source_key: given for copies, where "no such key" means the source.
        condition: what a commit call demanded: a 412 to a repeated request may then be our own first one's doing.
    """
    try:
        yield
    except boto.ClientError as error:
        answer = _Answer(error)
        error_class = answer.error_class(upload_id=upload_id, source_key=source_key, condition=condition)
        where = _where(bucket, key) + (f" from {source_key!r}" if source_key else "")
        raise error_class(f"s3: cannot {action} {where}: {answer.reason}") from error
    except (boto.BotoCoreError, ResponseParserError, Urllib3Error) as error:
        error_class = next(ours for theirs, ours in S3_EXCEPTIONS if isinstance(error, theirs))
        # Text about credentials may quote the output of a credential process: only its class is told.
        reason = type(error).__name__
        if error_class is not CredentialsError:
            reason = f"{reason}: {error}"[:_MAX_REASON]
        raise error_class(f"s3: cannot {action} {_where(bucket, key)}: {reason}") from error


def _where(bucket: str, key: str) -> str:
    return f"{key!r} in bucket {bucket!r}" if key else f"bucket {bucket!r}"


class _Answer:
    """A store's error answer, read once."""

    def __init__(self, error: boto.ClientError) -> None:
        details = error.response.get("Error", {})
        metadata = error.response.get("ResponseMetadata", {})
        self.code = str(details.get("Code", ""))
        self.status = int(metadata.get("HTTPStatusCode", 0))
        self.retries = int(metadata.get("RetryAttempts", 0))
        self.request_id = str(metadata.get("RequestId", ""))
        self.text = str(details.get("Message", ""))
        self.date = str(metadata.get("HTTPHeaders", {}).get("date", ""))

    def error_class(self, *, upload_id: str, source_key: str, condition: Condition | None) -> type[StoreError]:
        found = S3_ERRORS.get(self.code) or S3_STATUSES.get(self.status)
        if found is None:
            return StoreUnavailableError if self.status >= 500 else InvalidStoreRequestError
        if found is PreconditionFailedError and condition and self.retries:
            return StoreUnavailableError  # an earlier sending, whose answer was lost, may have taken effect
        if found is KeyNotFoundError:
            return self._what_was_not_found(upload_id, source_key, condition)
        return found

    def _what_was_not_found(self, upload_id: str, source_key: str, condition: Condition | None) -> type[StoreError]:
        says_key = self.code in S3_ERRORS  # and not merely 404
        if source_key and (says_key or not upload_id):
            return KeyNotFoundError
        if says_key and condition and condition.if_match:
            return PreconditionFailedError  # S3 answers so when the blob to be replaced is not there
        # Some stores keep an upload as a key, and say NoSuchKey of it.
        return UploadNotFoundError if upload_id else KeyNotFoundError

    @property
    def reason(self) -> str:
        said = f"{self.code}: {self.text}"[:_MAX_REASON]
        request = f", request {self.request_id}" if self.request_id else ""
        repeated = f", sent {self.retries + 1} times" if self.retries else ""
        hint = _HINTS.get(self.code)
        skew = f" (the store's is {_skew(self.date)})" if self.code == "RequestTimeTooSkewed" and self.date else ""
        return f"{said} (HTTP {self.status}{repeated}{request})" + (f"; {hint}{skew}" if hint else "")


def _skew(date: str) -> str:
    """How far the store's clock is from this machine's, by the date of its answer."""
    try:
        ahead = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):  # no date, or one without a zone
        return repr(date)
    return f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
