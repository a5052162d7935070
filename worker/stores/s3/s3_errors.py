"""Translates boto's errors into ours; no other module does.

Three tables, in this order: the store's error code, the HTTP status, the class of botocore's own exception. Messages
name the action, the key and the bucket, and never hold credentials.
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
from worker.stores.retry_after import request_to_wait, retry_after

_BY_CLASS: Final[dict[type[StoreError], str]] = {
    KeyNotFoundError: "NoSuchKey NoSuchVersion",
    UploadNotFoundError: "NoSuchUpload",
    BucketNotFoundError: "NoSuchBucket",
    PermissionDeniedError: (
        "AccessDenied AccountProblem AllAccessDisabled AuthorizationHeaderMalformed InvalidAccessKeyId "
        "InvalidObjectState InvalidPayer InvalidSecurity NotSignedUp ObjectNotInActiveTierError "
        "SignatureDoesNotMatch UnauthorizedAccess"
    ),
    # A skewed clock invalidates good credentials until it is set; another worker's clock may be right.
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
        # A race between two writers: the answer alone does not tell which of them won.
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

#: For codes missing above, and for answers to HEAD, which have no body and hence no code.
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

#: First match wins. Any other exception is a bug and is not translated.
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
    (boto.BotoCoreError, InvalidStoreRequestError),  # ParamValidationError and other errors before sending
)

_HINTS: Final[dict[str, str]] = {
    "RequestTimeTooSkewed": "the clocks of this machine and of the store are too far apart: set this machine's clock",
    "ExpiredToken": (
        "boto3 renews credentials that it finds by itself, but not a sessiontoken from the settings: "
        "renew that and restart the worker"
    ),
    "PermanentRedirect": "the bucket is in another region or at another endpoint: check region and regionendpoint",
    "AuthorizationHeaderMalformed": "the request was signed for another region: check region",
}
_MAX_REASON: Final = 300  # characters of the store's own message


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
    """Raise boto's errors inside the context as a StoreError, with boto's as the cause.

    Args:
        action: verb phrase for the message, such as ``"upload part 3 of"``.
        bucket: name of the bucket, for the message.
        key: key or prefix, for the message; "" for calls on the bucket.
        upload_id: set for calls on an upload, where "not found" means the upload.
        source_key: set for copies, where "no such key" means the source.
        condition: the condition of a commit call. A 412 to a retried request may be caused by its own first sending,
            whose answer was lost, and is then raised as StoreUnavailableError.
    """
    try:
        yield
    except boto.ClientError as error:
        answer = _Answer(error)
        error_class = answer.error_class(upload_id=upload_id, source_key=source_key, condition=condition)
        where = _where(bucket, key) + (f" from {source_key!r}" if source_key else "")
        found = error_class(f"s3: cannot {action} {where}: {answer.reason}")
        found.retry_after = answer.retry_after if found.transient else None
        raise found from error
    except (boto.BotoCoreError, ResponseParserError, Urllib3Error) as error:
        error_class = next(ours for theirs, ours in S3_EXCEPTIONS if isinstance(error, theirs))
        # The text may quote the output of a credential process: name only the class.
        reason = type(error).__name__
        if error_class is not CredentialsError:
            reason = f"{reason}: {error}"[:_MAX_REASON]
        raise error_class(f"s3: cannot {action} {_where(bucket, key)}: {reason}") from error


def code_of(error: StoreError) -> str:
    """S3's own code of an error; the HTTP status where the answer has none, "" where there is no answer."""
    cause = error.__cause__
    return _Answer(cause).code if isinstance(cause, boto.ClientError) else ""


def _where(bucket: str, key: str) -> str:
    return f"{key!r} in bucket {bucket!r}" if key else f"bucket {bucket!r}"


class _Answer:
    """The fields of a store's error answer."""

    def __init__(self, error: boto.ClientError) -> None:
        details = error.response.get("Error", {})
        metadata = error.response.get("ResponseMetadata", {})
        self.code = str(details.get("Code", ""))
        self.status = int(metadata.get("HTTPStatusCode", 0))
        self.retries = int(metadata.get("RetryAttempts", 0))
        self.request_id = str(metadata.get("RequestId", ""))
        self.text = str(details.get("Message", ""))
        self.date = str(metadata.get("HTTPHeaders", {}).get("date", ""))
        self.retry_after: float | None = retry_after(metadata.get("HTTPHeaders", {}))

    def error_class(self, *, upload_id: str, source_key: str, condition: Condition | None) -> type[StoreError]:
        found = S3_ERRORS.get(self.code) or S3_STATUSES.get(self.status)
        if found is None:
            return StoreUnavailableError if self.status >= 500 else InvalidStoreRequestError
        if found is PreconditionFailedError and condition and self.retries:
            return StoreUnavailableError  # the first sending may have taken effect, and only its answer was lost
        if found is KeyNotFoundError:
            return self._not_found_class(upload_id, source_key, condition)
        return found

    def _not_found_class(self, upload_id: str, source_key: str, condition: Condition | None) -> type[StoreError]:
        has_known_code = self.code in S3_ERRORS  # not only the status 404
        if source_key and (has_known_code or not upload_id):
            return KeyNotFoundError
        if has_known_code and condition and condition.if_match:
            return PreconditionFailedError  # S3's answer to If-Match where no blob is
        # Some stores keep an upload as a key and answer NoSuchKey when it is gone.
        return UploadNotFoundError if upload_id else KeyNotFoundError

    @property
    def reason(self) -> str:
        message = f"{self.code}: {self.text}"[:_MAX_REASON]
        request = f", request {self.request_id}" if self.request_id else ""
        repeated = f", sent {self.retries + 1} times" if self.retries else ""
        hint = _HINTS.get(self.code)
        skew = (
            f" (the store's is {_clock_difference(self.date)})"
            if self.code == "RequestTimeTooSkewed" and self.date
            else ""
        )
        wait = request_to_wait(self.retry_after)
        return f"{message} (HTTP {self.status}{repeated}{request})" + (f"; {hint}{skew}" if hint else "") + wait


def _clock_difference(date: str) -> str:
    """How far the store's clock, as in the Date of its answer, is from this machine's."""
    try:
        ahead = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):  # no date, or one without a zone
        return repr(date)
    return f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
