"""What the S3 store really sends, and what it makes of answers that no well-behaved server gives."""

import base64
import hashlib
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from email.header import decode_header
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from blobferry.signing.s3_signer import description_loader
from dev.services import S3Service, free_port
from tests.doubles import blob
from tests.s3_stores import s3_store
from tests.stores.contract import error_of
from tests.stores.open_upload import OpenUpload
from tests.stores.reused_buffer import ReusedBuffer
from tests.stores.scripted_server import ERROR, Answer, ScriptedServer, SeenRequest, refusal
from tests.zoo_stores import bare_store
from worker.errors import (
    BucketNotFoundError,
    ConfigurationError,
    CredentialsError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt
from worker.stores.s3 import s3_client
from worker.stores.s3.s3_store import S3Access, S3Store

BUCKET = "contract-suite"
CRC64_VALUE = "AAAAAAAAAAA="
CRC64 = f"CRC64NVME:{CRC64_VALUE}"
PARTS = [PartReceipt(1, 5, '"e1"', CRC64), PartReceipt(2, 3, '"e2"')]
CREATED = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = "<CompleteMultipartUploadResult><Key>k</Key>{}</CompleteMultipartUploadResult>"
COPIED = b"<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>"
OK = Answer(headers={"ETag": '"e"'})
HEAD = {"ETag": '"e"', "Last-Modified": "Mon, 23 Nov 2026 00:00:00 GMT", "Content-Length": "5"}

KEPT_BY_COPIES = {"x-amz-storage-class": "GLACIER_IR", "x-amz-server-side-encryption": "AES256"}

Call = Callable[[S3Store], object]


# --- construction, reachability, credentials ---------------------------------------------------------------------


def test_constructing_a_store_and_signing_a_url_send_no_request(server: ScriptedServer) -> None:
    url = server.store().presign("GET", "a b", 60)
    assert url.startswith(f"{server.endpoint}/bucket/a%20b?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=60" in url
    assert server.requests == []


def test_an_unreachable_endpoint_is_store_unavailable_at_the_first_verb_and_not_before() -> None:
    store = s3_store(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailableError, match="'k' in bucket 'bucket'"):
        store.head("k")


def test_a_wrong_secret_is_permission_denied(swift_service: S3Service) -> None:
    store = s3_store(swift_service, BUCKET, secret_key="not-the-secret")
    with pytest.raises(PermissionDeniedError, match="SignatureDoesNotMatch") as caught:
        store.put("k", b"hello")
    assert "not-the-secret" not in str(caught.value)
    assert error_of(store.head, "k") is PermissionDeniedError


@pytest.mark.parametrize("service", ["moto_service", "swift_service"])
def test_a_missing_bucket_is_bucket_not_found(request: pytest.FixtureRequest, service: str) -> None:
    store = bare_store(request.getfixturevalue(service), "no-such-bucket")
    with pytest.raises(BucketNotFoundError, match="no-such-bucket"):
        store.put("k", b"hello")
    assert error_of(store.list_page, "") is BucketNotFoundError


def test_missing_credentials_are_a_credentials_error(tmp_path: Path) -> None:
    # In a process of its own: boto3 reads the environment, and this one's belongs to all tests.
    program = (
        "from worker.errors import CredentialsError\n"
        "from worker.stores.s3.s3_store import S3Access, S3Store\n"
        "try:\n    S3Store(S3Access(region='us-east-1', endpoint='http://127.0.0.1:9'), 'bucket').head('k')\n"
        "except CredentialsError as error:\n    print(error)\n"
    )
    environment = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "s3: cannot look at 'k' in bucket 'bucket': NoCredentialsError" in done.stdout


WRONG_SETTINGS: dict[str, tuple[Callable[[], object], str]] = {  # and which setting the error names
    "no secret": (lambda: S3Access(access_key="a"), "secretkey"),
    "a secret alone": (lambda: S3Access(secret_key="a"), "accesskey"),
    "an endpoint without a host": (lambda: S3Access(endpoint="http://"), "regionendpoint"),
    "an endpoint with a space": (lambda: S3Access(endpoint="http://a b"), "regionendpoint"),
    "a password in the endpoint": (lambda: S3Access(endpoint="https://user:hunter2@s3.example.org"), "regionendpoint"),
    "a user in the endpoint": (lambda: S3Access(endpoint="http://_@"), "regionendpoint"),
    "an unknown checksum": (lambda: S3Store(S3Access(), "bucket", checksum="sha1"), "checksum"),
}


@pytest.mark.parametrize(("make", "named"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_a_wrong_setting_is_named_and_a_secret_in_it_not_repeated(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        make()
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_show_in_a_repr() -> None:
    assert not re.search("s3cr3t|t0k3n", repr(S3Access(access_key="AKID", secret_key="s3cr3t", session_token="t0k3n")))


@pytest.mark.parametrize(
    ("endpoint", "secure", "url", "identity"),
    [
        ("", True, None, "aws/bucket"),
        ("s3.example.org", True, "https://s3.example.org", "s3.example.org/bucket"),
        ("s3.example.org:9000", False, "http://s3.example.org:9000", "s3.example.org:9000/bucket"),
        ("https://s3.example.org", False, "https://s3.example.org", "s3.example.org/bucket"),
    ],
)
def test_an_endpoint_without_a_scheme_is_given_one(endpoint: str, secure: bool, url: str | None, identity: str) -> None:
    access = S3Access(endpoint=endpoint, secure=secure)
    store = S3Store(access, "bucket")
    assert access.url == url
    assert (store.endpoint, store.identity) == (url or "", identity)  # as path locks have it


# --- what is sent ------------------------------------------------------------------------------------------------


def names(request: SeenRequest, *prefixes: str) -> list[str]:
    """Its headers that begin so."""
    return [name for name in request.headers if name.startswith(prefixes)]


def test_a_part_goes_out_unsigned_unframed_and_without_asking_first(server: ScriptedServer) -> None:
    server.script(OK)
    data = os.urandom(300_001)
    server.store().upload_part("k", "u1", 1, ReusedBuffer(data), checksum=CRC64)
    server.store().put("k", data)
    request, put = server.requests
    sent = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-checksum-crc64nvme": CRC64_VALUE}
    assert (sent | {"content-length": "300001"}).items() <= request.headers.items()
    assert {"expect", "transfer-encoding", "content-encoding", "x-amz-trailer"}.isdisjoint(request.headers)
    assert names(request, "x-amz-checksum-crc32", "x-amz-sdk-checksum") == names(put, "expect") == []
    assert request.body == data


def test_a_payload_is_signed_where_the_store_demands_it(server: ScriptedServer) -> None:
    server.script(OK)
    data = os.urandom(300_001)
    server.store(sign_payload=True).put("k", ReusedBuffer(data))
    (request,) = server.requests
    assert (request.headers["x-amz-content-sha256"], request.body) == (hashlib.sha256(data).hexdigest(), data)


on_each_service = pytest.mark.parametrize(
    "service", ["moto_service", pytest.param("swift_service", marks=pytest.mark.long)]
)


@on_each_service
@pytest.mark.parametrize("sign_payload", [False, True])
def test_signed_and_unsigned_payloads_both_arrive_over_http(
    request: pytest.FixtureRequest, service: str, sign_payload: bool, prefix: str
) -> None:
    store = bare_store(request.getfixturevalue(service), BUCKET, sign_payload=sign_payload)
    data = os.urandom(300_001)
    store.put(prefix + "put", ReusedBuffer(data))
    upload = OpenUpload(store, prefix + "upload")
    upload.complete(upload.send(1, ReusedBuffer(data)))
    assert blob(store, prefix + "put") == blob(store, prefix + "upload") == data


@on_each_service
@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c", "md5", "none"])
def test_an_upload_works_with_every_checksum_setting(
    request: pytest.FixtureRequest, service: str, checksum: str, key: str
) -> None:
    store = bare_store(request.getfixturevalue(service), BUCKET, checksum=checksum)
    OpenUpload(store, key, b"hello").complete(size=5)
    assert store.head(key).size == 5
    assert store.delete_batch([key]) == []


def puts(**keywords: Any) -> Call:
    return methodcaller("put", "k", b"hello", **keywords)


#: The answers to a call, the call, and what the headers of its last request say.
SENT: dict[str, tuple[list[Answer], Call, dict[str, str]]] = {
    "CRC64NVME": ([OK], puts(checksum=CRC64), {"x-amz-checksum-crc64nvme": CRC64_VALUE}),
    "CRC32C": ([OK], puts(checksum="CRC32C:AAAAAA=="), {"x-amz-checksum-crc32c": "AAAAAA=="}),
    "MD5": ([OK], puts(checksum="MD5:AAAAAAAAAAAAAAAAAAAAAA=="), {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    "a copy, the storage class and encryption of its source": (
        [Answer(headers=HEAD | KEPT_BY_COPIES), Answer(body=COPIED)],
        methodcaller("copy", "s", "k"),
        KEPT_BY_COPIES,
    ),
    "the source of a copy, percent-encoded": (
        [Answer(headers=HEAD), Answer(body=COPIED)],
        lambda store: store.copy("a b+c%20ü/d?e", "k", source_if_match='"e"'),
        {"x-amz-copy-source": "bucket/a%20b%2Bc%2520%C3%BC/d%3Fe", "x-amz-copy-source-if-match": '"e"'},
    ),
    "a copy that does not know the tags has the store carry them": (
        [Answer(headers=HEAD | {"x-amz-meta-owner": "me"}), Answer(body=COPIED)],
        lambda store: store.copy("a", "b", options=store.options_of("a", with_tags=False)),
        {"x-amz-metadata-directive": "REPLACE", "x-amz-tagging-directive": "COPY", "x-amz-meta-owner": "me"},
    ),
}


@pytest.mark.parametrize(("answers", "call", "headers"), SENT.values(), ids=SENT)
def test_what_a_call_asks_for_stands_in_the_headers(
    server: ScriptedServer, answers: list[Answer], call: Call, headers: dict[str, str]
) -> None:
    server.script(*answers)
    call(server.store())
    assert headers.items() <= server.requests[-1].headers.items()


def test_an_upload_declares_its_algorithm_of_the_full_object(server: ScriptedServer) -> None:
    server.script(Answer(body=CREATED))
    assert server.store(checksum="crc32c").create_upload("k") == "u1"
    sent = {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"}
    assert sent.items() <= server.requests[0].headers.items()


@pytest.mark.parametrize("checksum", ["md5", "none"])
def test_a_store_without_the_newer_checksums_is_told_nothing_of_them(server: ScriptedServer, checksum: str) -> None:
    store = server.store(checksum=checksum)
    server.script(Answer(body=CREATED), Answer(body=COMPLETED.format("").encode()), Answer(headers=HEAD))
    store.create_upload("k")
    store.complete_upload("k", "u1", PARTS, checksum=CRC64, size=8)
    store.head("k")
    for request in server.requests:
        assert names(request, "x-amz-checksum", "x-amz-mp", "x-amz-sdk") == []
        assert b"Checksum" not in request.body


def test_completion_sends_parts_checksums_size_and_condition(server: ScriptedServer) -> None:
    server.script(Answer(body=COMPLETED.format('<ETag>"e-2"</ETag>').encode(), headers={"x-amz-version-id": "v1"}))
    condition = Condition(if_none_match=True)
    receipt = server.store().complete_upload("k", "u1", PARTS, checksum=CRC64, size=8, condition=condition)
    (request,) = server.requests
    assert (receipt.etag, receipt.version_id) == ('"e-2"', "v1")
    checksums = {"x-amz-checksum-crc64nvme": CRC64_VALUE, "x-amz-checksum-type": "FULL_OBJECT"}
    assert (checksums | {"x-amz-mp-object-size": "8", "if-none-match": "*"}).items() <= request.headers.items()
    assert request.body.count(b"<Part>") == 2
    assert request.body.count(b"<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>") == 1
    assert re.search(rb"<ETag>(\"|&quot;)e1(\"|&quot;)</ETag>", request.body)


def test_a_size_that_the_parts_do_not_add_up_to_is_refused_before_anything_is_sent(server: ScriptedServer) -> None:
    with pytest.raises(InvalidStoreRequestError, match="8 bytes, expected 9"):
        server.store().complete_upload("k", "u1", PARTS, size=9)
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {}),
        ({"encrypt": True}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encrypt": True, "keyid": "key-1", "storageclass": "STANDARD_IA"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
                "x-amz-storage-class": "STANDARD_IA",
            },
        ),
    ],
)
def test_encryption_and_storage_class_go_with_put_create_and_copy(
    server: ScriptedServer, settings: dict[str, Any], headers: dict[str, str]
) -> None:
    store = server.store(**settings)
    server.script(OK, Answer(body=CREATED), Answer(body=COPIED))
    store.put("k", b"hello")
    store.create_upload("k")
    store.copy("s", "k", options=BlobOptions())
    assert len(server.requests) == 3
    for request in server.requests:
        sent = {n: v for n, v in request.headers.items() if n.startswith(("x-amz-server-side", "x-amz-storage"))}
        assert sent == headers


def test_a_copied_part_names_its_range_by_its_last_byte(server: ScriptedServer) -> None:
    server.script(Answer(body=b"<CopyPartResult><ETag>&quot;e&quot;</ETag></CopyPartResult>"))
    part = server.store().copy_part("k", "u1", 3, "s", 10, 5)
    assert part == PartReceipt(3, 5, '"e"')
    assert server.requests[0].headers["x-amz-copy-source-range"] == "bytes=10-14"


def test_a_batch_of_deletes_carries_content_md5_as_every_store_knows_it(server: ScriptedServer) -> None:
    server.script(Answer(body=b"<DeleteResult/>"))
    server.store().delete_batch(["a&b", "c"])
    (request,) = server.requests
    assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(request.body).digest()).decode()
    assert names(request, "x-amz-checksum", "x-amz-sdk-checksum") == []


def test_every_request_names_its_client_and_the_app_that_the_environment_names(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "thumbnails")
    server.script(Answer(headers={"ETag": '"e"'}))
    store = server.store()
    store.put("k", b"x")
    store.put("k", b"x")
    first, second = (request.headers["user-agent"] for request in server.requests)
    assert first == second
    assert re.fullmatch(r"Boto3/\S+ Python/\S+ Linux/\S+ .*app/thumbnails Botocore/\S+", first), first
    assert len(set(first.split())) == len(first.split())


def test_a_session_token_is_sent(server: ScriptedServer) -> None:
    server.script(Answer(headers=HEAD))
    server.store(session_token="t0k3n").head("k")
    assert server.requests[0].headers["x-amz-security-token"] == "t0k3n"


def test_a_body_is_sent_from_its_start_again_after_a_server_error(server: ScriptedServer) -> None:
    data = os.urandom(200_000)
    server.script(refusal(503, "SlowDown"), OK)
    server.store(max_attempts=2).upload_part("k", "u1", 1, ReusedBuffer(data))
    assert [request.body for request in server.requests] == [data, data]


# --- what is made of odd answers ---------------------------------------------------------------------------------


HEADS = methodcaller("head", "k")
LISTS = methodcaller("list_page", "k", token="t")
LIFETIME = methodcaller("upload_lifetime", "k")
CREATES = puts(condition=Condition(if_none_match=True))


def lists_parts(store: S3Store) -> None:
    list(store.list_parts("k", "u1"))


def lists_uploads(store: S3Store) -> None:
    list(store.list_uploads("k"))


def listing(kind: str, content: str, is_truncated: bool = True) -> Answer:
    """One page, by default of more."""
    page = f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>{content}"
    return Answer(body=f"<{kind}>{page}</{kind}>".encode())


def part_page(number: int, is_truncated: bool = True) -> Answer:
    part = f"<Part><PartNumber>{number}</PartNumber><ETag>e{number}</ETag><Size>{number}</Size></Part>"
    return listing("ListPartsResult", part, is_truncated)


def upload_page(name: str, is_truncated: bool = True) -> Answer:
    upload = f"<Key>{name}</Key><UploadId>u{name}</UploadId><Initiated>2026-11-23T00:00:00Z</Initiated>"
    return listing("ListMultipartUploadsResult", f"<Upload>{upload}</Upload>", is_truncated)


NOT_FOUND, FORBIDDEN, FAILED = Answer(404), Answer(403), refusal(412, "PreconditionFailed")
TRUNCATED = "truncated a listing"
NO_STEP = "<NextContinuationToken>t</NextContinuationToken>"

#: The answers to a call, the call, the error that they mean, and a part of its message.
ODD: dict[str, tuple[list[Answer], Call, type[StoreError], str]] = {
    "it hangs up": ([Answer(hang_up=True)], HEADS, StoreUnavailableError, "'k' in bucket 'bucket'"),
    "it ignores a range": (
        [Answer(body=b"01")],
        methodcaller("get", "k", 1),
        NotSupportedError,
        "ignored the range",
    ),
    "a bare 404": ([NOT_FOUND], HEADS, KeyNotFoundError, "404"),
    "a bare 404 of an upload": ([NOT_FOUND], methodcaller("abort_upload", "k", "u1"), UploadNotFoundError, "404"),
    "NoSuchKey of an upload": ([refusal(404, "NoSuchKey")], lists_parts, UploadNotFoundError, "NoSuchKey"),
    "a bare 403, and to the listing as well": ([FORBIDDEN], HEADS, PermissionDeniedError, "look at"),
    "tags that may not be read": (
        [Answer(headers=HEAD), refusal(403, "AccessDenied")],
        lambda store: store.options_of("a"),
        PermissionDeniedError,
        "s3:GetObjectTagging",
    ),
    "expired credentials that only a listing can tell": (
        [Answer(400), refusal(400, "ExpiredToken")],
        HEADS,
        CredentialsError,
        "ExpiredToken",
    ),
    "501 to a condition": ([Answer(501)], puts(condition=Condition(if_match='"e"')), NotSupportedError, "501"),
    "412 at once": ([FAILED], CREATES, PreconditionFailedError, "412"),
    "a listing without a next page": ([listing("ListBucketResult", "")], LISTS, NotSupportedError, TRUNCATED),
    "a listing that does not advance": ([listing("ListBucketResult", NO_STEP)], LISTS, NotSupportedError, TRUNCATED),
    "parts that are listed again and again": ([part_page(1)], lists_parts, NotSupportedError, TRUNCATED),
    "uploads that are listed again and again": ([upload_page("a")], lists_uploads, NotSupportedError, TRUNCATED),
    "no lifecycle rules": ([refusal(501, "NotImplemented")], LIFETIME, NotSupportedError, "501"),
    "rules of no bucket": ([refusal(404, "NoSuchBucket")], LIFETIME, BucketNotFoundError, "404"),
}


@pytest.mark.parametrize(("answers", "call", "error", "message"), ODD.values(), ids=ODD)
def test_an_odd_answer_is_the_error_that_it_means(
    server: ScriptedServer, answers: list[Answer], call: Call, error: type[StoreError], message: str
) -> None:
    server.script(*answers)
    with pytest.raises(error, match=message) as caught:
        call(server.store(max_attempts=1 if len(answers) == 1 else 2))
    assert type(caught.value) is error


@pytest.mark.parametrize(("code", "expected"), [("InternalError", StoreUnavailableError), ("SlowDown", SlowDownError)])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.complete_upload("k", "u1", PARTS),
        lambda store: store.copy("s", "k", options=BlobOptions()),
        lambda store: store.copy_part("k", "u1", 1, "s", 0, 5),
    ],
    ids=["completion", "copy", "copied part"],
)
def test_a_200_with_an_error_in_its_body_is_an_error(
    server: ScriptedServer, call: Call, code: str, expected: type[StoreError]
) -> None:
    error = ERROR.format(code).encode().removeprefix(b'<?xml version="1.0" encoding="UTF-8"?>')
    server.script(Answer(200, b"\n   \n" + error))
    with pytest.raises(expected, match=code):
        call(server.store())


@pytest.mark.parametrize(
    ("element", "etag"),
    [
        ("<ETag>&quot;e-2&quot;</ETag>", '"e-2"'),
        ("<ETag>e-2</ETag>", "e-2"),
        ("<ETag></ETag>", None),
        ("", None),
        (None, None),
    ],
)
def test_an_etag_is_kept_as_sent_and_may_be_missing(
    server: ScriptedServer, element: str | None, etag: str | None
) -> None:
    server.script(Answer(body=b"" if element is None else COMPLETED.format(element).encode()))
    assert server.store().complete_upload("k", "u1", PARTS).etag == etag


@pytest.mark.parametrize(
    ("headers", "receipt"),
    [
        ({}, PartReceipt(1, 5, "")),
        ({"ETag": '"e"', "x-amz-checksum-crc64nvme": CRC64_VALUE}, PartReceipt(1, 5, '"e"', CRC64)),
    ],
    ids=["nothing", "ETag and checksum"],
)
def test_the_receipt_of_a_part_holds_what_the_store_echoes(
    server: ScriptedServer, headers: dict[str, str], receipt: PartReceipt
) -> None:
    server.script(Answer(headers=headers))
    assert server.store().upload_part("k", "u1", 1, b"hello") == receipt


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT"}, "CRC32C:AAAAAA=="),
        ({"x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-crc32c": "AAAAAA==-2"}, None),
    ],
    ids=["of the blob", "by its type", "by its looks"],
)
def test_a_checksum_made_of_checksums_is_not_taken_for_one_of_the_blob(
    server: ScriptedServer, headers: dict[str, str], kept: str | None
) -> None:
    server.script(Answer(headers=HEAD | headers))
    assert server.store(checksum="crc32c").head("k").checksum == kept


def test_a_stream_that_breaks_off_is_store_unavailable_and_never_short(server: ScriptedServer) -> None:
    server.script(Answer(body=b"0123456789", cut=4))
    with server.store().get("k") as reader:
        assert reader.read(5) == b"01234"
        with pytest.raises(StoreUnavailableError, match="'k' in bucket 'bucket'"):
            reader.read(5)


@pytest.mark.parametrize("verb", ["head", "get"])
@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        ("", KeyNotFoundError),
        ("<Contents><Key>a/b</Key><Size>1</Size></Contents>", KeyNotFoundError),
        ("<Contents><Key>a</Key><Size>1</Size></Contents>", PermissionDeniedError),
    ],
    ids=["nothing", "another key", "the key"],
)
def test_credentials_that_may_list_a_prefix_only_are_told_what_is_missing(
    verb: str, listing: str, kind: type[StoreError], server: ScriptedServer
) -> None:
    """S3 says 403 of a missing key to whoever may not list the whole bucket."""
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{listing}</ListBucketResult>".encode()
    server.script(Answer(403, b"" if verb == "head" else ERROR.format("AccessDenied").encode()), Answer(body=body))
    with pytest.raises(kind):
        getattr(server.store(), verb)("a")
    assert "prefix=a" in server.requests[1].path


def test_no_tags_answered_by_404_are_no_tags(server: ScriptedServer) -> None:
    server.script(Answer(headers=HEAD), refusal(404, "NoSuchTagSet"))
    assert server.store().options_of("a").tags == {}


@pytest.mark.parametrize("value", ["grün", "grün".encode().decode("latin-1"), "漢字"])
def test_metadata_that_is_not_ascii_goes_out_as_s3_itself_shows_it(value: str, server: ScriptedServer) -> None:
    server.script(OK)
    server.store().put("a", b"x", options=BlobOptions(metadata={"colour": value}))
    sent = server.requests[0].headers["x-amz-meta-colour"]
    assert sent.startswith("=?utf-8?")
    decoded, charset = decode_header(sent)[0]
    assert decoded.decode(charset) == ("漢字" if value == "漢字" else "grün")


def test_a_key_that_xml_cannot_hold_does_not_keep_the_others_from_going(server: ScriptedServer) -> None:
    server.script(Answer(body=b"<DeleteResult/>"), Answer(204))
    assert server.store().delete_batch(["a", "b\x01", "c"]) == []
    assert [(request.method, request.path) for request in server.requests] == [
        ("POST", "/bucket?delete"),
        ("DELETE", "/bucket/b%01"),
    ]
    assert b"<Key>a</Key>" in server.requests[0].body
    assert b"\x01" not in server.requests[0].body


def test_requests_are_sent_as_often_as_configured_and_no_more(server: ScriptedServer) -> None:
    server.refuse(503, "SlowDown")
    with pytest.raises(SlowDownError):
        server.store(max_attempts=2).upload_part("k", "u1", 1, b"hello")
    assert len(server.requests) == 2


def test_a_key_that_a_batch_could_not_delete_is_told_but_a_missing_one_is_not(server: ScriptedServer) -> None:
    failures = "".join(
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>why</Message></Error>"
        for key, code in (("a", "AccessDenied"), ("b", "NoSuchKey"))
    )
    server.script(Answer(body=f"<DeleteResult>{failures}</DeleteResult>".encode()))
    (failure,) = server.store().delete_batch(["a", "b", "c"])
    assert (failure.key, failure.code, failure.message) == ("a", "AccessDenied", "why")


def test_parts_are_listed_over_all_pages(server: ScriptedServer) -> None:
    server.script(part_page(1), part_page(2), part_page(3, is_truncated=False))
    assert [part.part_number for part in server.store().list_parts("k", "u1")] == [1, 2, 3]
    assert ["part-number-marker=1" in request.path for request in server.requests] == [False, True, False]


def test_uploads_are_listed_over_all_pages(server: ScriptedServer) -> None:
    server.script(upload_page("a"), upload_page("b", is_truncated=False))
    assert [entry.upload_id for entry in server.store().list_uploads()] == ["ua", "ub"]
    assert "key-marker=a" in server.requests[1].path
    assert "upload-id-marker=ua" in server.requests[1].path


@pytest.mark.parametrize(
    "answer", [refusal(403, "SignatureDoesNotMatch"), Answer(hang_up=True)], ids=["refused", "no answer"]
)
def test_no_message_holds_a_credential(server: ScriptedServer, answer: Answer) -> None:
    server.script(answer)
    with pytest.raises(StoreError) as caught:
        server.store(session_token="t0k3n").put("k", b"hello")
    assert not re.search("AKIDTEST|s3cr3t-test|t0k3n", f"{caught.value}{caught.value!r}{caught.value.__cause__}")


# --- what is repeated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [Answer(hang_up=True), refusal(500, "InternalError"), refusal(503, "InternalError")],
    ids=["no answer", "500", "503"],
)
def test_opening_an_upload_is_never_repeated_by_itself(server: ScriptedServer, answer: Answer) -> None:
    """The answer may have been lost: a second Create would leave the first one's upload to nobody."""
    server.script(answer, Answer(body=CREATED))
    assert error_of(server.store(max_attempts=3).create_upload, "k") is StoreUnavailableError
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (HEADS, Answer(headers=HEAD)),
        (lambda store: store.upload_part("k", "u1", 1, b"hello"), OK),
        (lambda store: store.abort_upload("k", "u1"), Answer(204)),
    ],
    ids=["head", "part", "abort"],
)
def test_other_requests_are_repeated_by_themselves(server: ScriptedServer, call: Call, answer: Answer) -> None:
    server.script(Answer(hang_up=True), answer)
    call(server.store(max_attempts=3))
    assert len(server.requests) == 2


# --- lifecycle rules -------------------------------------------------------------------------------------------------


def rule(days: int | None, **rest: Any) -> dict[str, Any]:
    abort = {} if days is None else {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days}}
    return {"ID": f"rule {days} {rest}"[:200], "Status": "Enabled", "Filter": {"Prefix": ""}} | abort | rest


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        ([], None),
        ([rule(7)], 7),
        ([rule(7), rule(3)], 3),
        ([rule(7), rule(3, Status="Disabled")], 7),
        ([rule(7, Filter={"Prefix": "videos/"}), rule(3, Filter={"Prefix": "music/"})], 7),
        ([rule(None, Expiration={"Days": 1})], None),
    ],
)
def test_the_rules_tell_how_long_an_unfinished_upload_lives(
    rules: list[dict[str, Any]], days: int | None, moto_service: S3Service
) -> None:
    client = moto_service.client()
    client.delete_bucket_lifecycle(Bucket=BUCKET)
    if rules:
        client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    lifetime = s3_store(moto_service, BUCKET).upload_lifetime("videos/7.mp4")
    client.delete_bucket_lifecycle(Bucket=BUCKET)
    assert lifetime == (None if days is None else timedelta(days=days))


def test_a_bucket_without_lifecycle_rules_sets_no_limit(server: ScriptedServer) -> None:
    server.script(refusal(404, "NoSuchLifecycleConfiguration"))
    assert server.store().upload_lifetime("k") is None


def test_a_further_store_of_a_process_costs_little_memory() -> None:
    access = S3Access(region="us-east-1", access_key="a", secret_key="b")
    kept = [s3_client.make_clients(access)]  # whoever is first reads what describes S3
    tracemalloc.start()
    kept.append(s3_client.make_clients(access))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 4 * 1024 * 1024, "a description of its own takes twelve"
    searched = description_loader(None).search_paths
    assert len(searched) == len(set(searched)), "a process that makes clients for each request grows by nothing"
