"""The table of boto's errors is complete, and every kind of failure comes out as the right error of ours."""

import pickle
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import botocore.session
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import ProtocolError

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
from worker.stores.s3.s3_errors import S3_ERRORS, S3_EXCEPTIONS, s3_errors

OPERATIONS = """
    AbortMultipartUpload CompleteMultipartUpload CopyObject CreateMultipartUpload DeleteObject DeleteObjects
    GetBucketLifecycleConfiguration GetObject GetObjectTagging HeadObject ListMultipartUploads ListObjectsV2 ListParts
    PutObject UploadPart UploadPartCopy
""".split()  # noqa: SIM905  a word list reads better than a page of quotes

# Source: Amazon S3 API Reference, "Error responses", "List of error codes" and "List of Tagging-related error codes",
# docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. Left out: codes of operations that are never called here
# (buckets, policies, logging, POST forms, SOAP, SELECT, replication, Object Lambda, Outposts, tables).
DOCUMENTED = """
    AccessDenied AccountProblem AllAccessDisabled AuthorizationHeaderMalformed BadDigest ConditionalRequestConflict
    EntityTooLarge EntityTooSmall ExpiredToken IllegalLocationConstraintException IncompleteBody InternalError
    InvalidAccessKeyId InvalidArgument InvalidBucketName InvalidBucketState InvalidDigest
    InvalidEncryptionAlgorithmError InvalidLocationConstraint InvalidObjectState InvalidPart InvalidPartOrder
    InvalidPayer InvalidRange InvalidRequest InvalidSecurity InvalidStorageClass InvalidTag InvalidToken InvalidURI
    KeyTooLongError KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException
    KMS.NotFoundException MalformedXML MaxMessageLengthExceeded MetadataTooLarge MethodNotAllowed MissingContentLength
    MissingRequestBodyError MissingSecurityHeader NoSuchBucket NoSuchKey NoSuchUpload NoSuchVersion NotImplemented
    NotSignedUp OperationAborted PermanentRedirect PreconditionFailed Redirect RequestTimeout RequestTimeTooSkewed
    ServiceUnavailable SignatureDoesNotMatch SlowDown TemporaryRedirect TokenRefreshRequired UnauthorizedAccess
    UnexpectedContent XAmzContentSHA256Mismatch
""".split()  # noqa: SIM905  a word list reads better than a page of quotes


def refusal(
    code: str, status: int = 400, *, message: str = "said the store", retries: int = 0, operation: str = "PutObject"
) -> boto.ClientError:
    metadata = {"HTTPStatusCode": status, "RetryAttempts": retries, "RequestId": "R123"}
    return boto.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, operation)


def translated(error: Exception, **context: Any) -> StoreError:
    with pytest.raises(StoreError) as caught, s3_errors("put", bucket="videos", key="7.mp4", **context):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_error_shape_of_the_operations_called_is_in_the_table(operation: str) -> None:
    model = botocore.session.get_session().get_service_model("s3").operation_model(operation)
    assert {shape.name for shape in model.error_shapes} <= S3_ERRORS.keys()


@pytest.mark.parametrize("code", DOCUMENTED)
def test_every_documented_code_is_in_the_table(code: str) -> None:
    assert code in S3_ERRORS


def test_every_exception_of_botocore_has_a_class_of_ours() -> None:
    known = tuple(theirs for theirs, _ in S3_EXCEPTIONS)
    found = [
        value for value in vars(boto).values()
        if isinstance(value, type) and issubclass(value, boto.BotoCoreError)
    ]  # fmt: skip
    assert len(found) > 80
    assert all(issubclass(value, known) for value in found)


CODES: dict[type[StoreError], str] = {
    KeyNotFoundError: "NoSuchKey",
    UploadNotFoundError: "NoSuchUpload",
    BucketNotFoundError: "NoSuchBucket",
    PermissionDeniedError: "AccessDenied SignatureDoesNotMatch InvalidAccessKeyId",
    CredentialsError: "RequestTimeTooSkewed ExpiredToken",
    SlowDownError: "SlowDown ThrottlingException RequestLimitExceeded",
    ChecksumMismatchError: "BadDigest InvalidDigest XAmzContentSHA256Mismatch",
    InvalidPartError: "InvalidPart InvalidPartOrder EntityTooSmall",
    PreconditionFailedError: "PreconditionFailed",
    WriteConflictError: "ConditionalRequestConflict",
    StoreUnavailableError: "OperationAborted InternalError",
    NotSupportedError: "NotImplemented",
    RangeNotSatisfiableError: "InvalidRange",
    InvalidStoreRequestError: "MetadataTooLarge",
}
STATUSES: dict[type[StoreError], str] = {
    InvalidStoreRequestError: "400 411 418",
    PermissionDeniedError: "401 403",
    KeyNotFoundError: "404",
    StoreUnavailableError: "408 409 500 503 599",
    PreconditionFailedError: "412",
    RangeNotSatisfiableError: "416",
    SlowDownError: "429",
    NotSupportedError: "501",
}


def each(table: dict[type[StoreError], str]) -> list[tuple[str, type[StoreError]]]:
    return [(word, expected) for expected, words in table.items() for word in words.split()]


@pytest.mark.parametrize(("code", "expected"), each(CODES))
def test_a_code_decides_whatever_the_status(code: str, expected: type[StoreError]) -> None:
    assert type(translated(refusal(code, 418))) is expected


@pytest.mark.parametrize(("status", "expected"), each(STATUSES))
@pytest.mark.parametrize("code", ["the status", "", "SomethingNew"])
def test_a_status_decides_where_the_code_is_unknown(code: str, status: str, expected: type[StoreError]) -> None:
    assert type(translated(refusal(status if code == "the status" else code, int(status)))) is expected


UPLOAD, COPIED_PART = {"upload_id": "u1"}, {"upload_id": "u1", "source_key": "s"}
CREATE, REPLACE = {"condition": Condition(if_none_match=True)}, {"condition": Condition(if_match='"1"')}
SENT_TWICE = refusal("PreconditionFailed", 412, retries=1)
#: Code, status, what the call was about, and what "not found" or "failed" then means.
IN_CONTEXT: dict[str, tuple[boto.ClientError, dict[str, Any], type[StoreError]]] = {
    "404 of an upload": (refusal("404", 404), UPLOAD, UploadNotFoundError),
    "no such key of an upload": (refusal("NoSuchKey", 404), UPLOAD, UploadNotFoundError),
    "no such key of a copied part": (refusal("NoSuchKey", 404), COPIED_PART, KeyNotFoundError),
    "404 of a copied part": (refusal("404", 404), COPIED_PART, UploadNotFoundError),
    "no such bucket": (refusal("NoSuchBucket", 404), COPIED_PART, BucketNotFoundError),
    "no such key of a put with If-Match": (refusal("NoSuchKey", 404), REPLACE, PreconditionFailedError),
    "412": (refusal("PreconditionFailed", 412), CREATE, PreconditionFailedError),
    "412 of a request sent twice": (SENT_TWICE, CREATE, StoreUnavailableError),
    "412 without a condition": (SENT_TWICE, {}, PreconditionFailedError),
}


@pytest.mark.parametrize(("error", "call", "expected"), IN_CONTEXT.values(), ids=IN_CONTEXT)
def test_what_a_refusal_means_depends_on_the_call(
    error: boto.ClientError, call: dict[str, Any], expected: type[StoreError]
) -> None:
    assert type(translated(error, **call)) is expected


UNREACHABLE = (
    boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ReadTimeoutError, boto.ConnectionClosedError,
    boto.SSLError,
)  # fmt: skip
EXCEPTIONS: dict[type[StoreError], list[Exception]] = {
    CredentialsError: [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="x"),
        boto.CredentialRetrievalError(provider="process", error_msg="x"),
    ],
    StoreUnavailableError: [
        *(kind(endpoint_url="http://s3", error="x") for kind in UNREACHABLE),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        boto.ResponseStreamingError(error="x"),
        ResponseParserError("x"),
        ProtocolError("x"),
    ],
    InvalidStoreRequestError: [boto.ParamValidationError(report="x"), boto.NoRegionError()],
}


@pytest.mark.parametrize(
    ("error", "expected"), [(error, expected) for expected, errors in EXCEPTIONS.items() for error in errors]
)
def test_an_exception_of_botocore_or_urllib3_is_told_as_ours(error: Exception, expected: type[StoreError]) -> None:
    assert type(translated(error)) is expected


def test_an_error_of_nobody_we_know_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), s3_errors("put", bucket="videos", key="7.mp4"):
        raise ZeroDivisionError


def test_a_message_says_what_was_attempted_on_which_key_of_which_bucket_and_survives_pickle() -> None:
    error = translated(refusal("SlowDown", 503))
    message = "s3: cannot put '7.mp4' in bucket 'videos': SlowDown: said the store (HTTP 503, request R123)"
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == message


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (refusal("NoSuchKey", 404), {"source_key": "6.mp4"}, "'7.mp4' in bucket 'videos' from '6.mp4'"),
        (refusal("RequestTimeTooSkewed", 403), {}, "set this machine's clock"),
        (refusal("ExpiredToken"), {}, "restart the worker"),
        (SENT_TWICE, {}, "sent 2 times"),
    ],
)
def test_a_message_says_where_it_went_wrong_and_what_to_do(
    error: boto.ClientError, call: dict[str, Any], message: str
) -> None:
    assert message in str(translated(error, **call))


@pytest.mark.parametrize(("minutes", "says"), [(30, "ahead"), (-30, "behind")])
def test_a_skewed_clock_is_told_with_how_far_it_is_off(minutes: int, says: str) -> None:
    error = refusal("RequestTimeTooSkewed", 403)
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": date}

    found = re.search(rf"set this machine's clock \(the store's is (\d+) s {says}\)$", str(translated(error)))
    assert found
    assert abs(int(found[1]) - 1800) < 60


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 23 Nov 2026 00:00:00 -0000"])
def test_a_date_that_says_nothing_hides_nothing(date: str) -> None:
    error = refusal("RequestTimeTooSkewed", 403)
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": date}
    assert "set this machine's clock" in str(translated(error))


def test_a_message_about_credentials_does_not_quote_what_a_credential_process_printed() -> None:
    error = translated(boto.CredentialRetrievalError(provider="process", error_msg="my secret is hunter2"))
    assert "hunter2" not in str(error)


def test_a_store_that_asks_to_wait_is_understood() -> None:
    error = refusal("SlowDown", 503)
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "120"}
    found = translated(error)
    assert found.retry_after == 120
    assert str(found).endswith("; it asks to wait 120 s (Retry-After)")
    denied = refusal("AccessDenied", 403)
    denied.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "120"}
    assert translated(denied).retry_after is None


def test_an_essay_of_a_store_is_cut() -> None:
    assert len(str(translated(refusal("InvalidRequest", message="x" * 10_000)))) < 500
