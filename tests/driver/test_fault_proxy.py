"""The fault proxy itself: what passes is unchanged, and each fault does what its name says, where it is aimed."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from dev.proxies.s3_fault_rules import recognise
from dev.proxies.s3_faults import Fault, FaultProxy, Kind, fault_proxy
from dev.services import S3Service, create_bucket

pytestmark = pytest.mark.no_cover

STALL = 0.3  #: seconds
_numbers = count(1)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, moto_service: S3Service) -> Iterator[FaultProxy]:
    """In front of moto, or of the server at another address."""
    with fault_proxy(getattr(request, "param", moto_service.endpoint), stall_seconds=STALL) as proxy:
        yield proxy


@pytest.fixture
def bucket(moto_service: S3Service) -> str:
    return create_bucket(moto_service, f"fault-proxy-{next(_numbers)}")


@pytest.fixture
def client(moto_service: S3Service, proxy: FaultProxy) -> Iterator[Any]:
    """A client that goes through the proxy and repeats nothing."""
    with closing(replace(moto_service, endpoint=proxy.endpoint).client()) as client:
        yield client


Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def ask(proxy: FaultProxy, bucket: str) -> Ask:
    """Sends a request for a key on a connection of its own, of the plainest client: status and body."""

    def send(method: str, key: str = "key", body: bytes = b"", timeout: float = 5) -> tuple[int, bytes]:
        url = urlsplit(proxy.endpoint)
        with closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)) as connection:
            signature = {"Authorization": "AWS4-HMAC-SHA256 Credential=moto/d/r/s3/a"}
            connection.request(method, f"/{bucket}/{key}", body, signature)
            with connection.getresponse() as answer:
                return answer.status, answer.read()

    return send


def test_every_operation_passes_and_is_recognised(client: Any, proxy: FaultProxy, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "a b/ü+c"}
    big = bytes(range(256)) * 4_096
    client.put_object(**where, Body=big, Metadata={"a": "b"}, Tagging="c=d")
    assert client.head_object(**where)["Metadata"] == {"a": "b"}
    assert client.get_object(**where)["Body"].read() == big
    assert client.get_object(**where, Range="bytes=3-5")["Body"].read() == big[3:6]
    assert client.get_object_tagging(**where)["TagSet"] == [{"Key": "c", "Value": "d"}]
    client.copy_object(Bucket=bucket, Key="copy", CopySource=where)
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    parts = [
        client.upload_part(**upload, PartNumber=1, Body=big),
        client.upload_part_copy(**upload, PartNumber=2, CopySource=where)["CopyPartResult"],
    ]
    assert len(client.list_parts(**upload)["Parts"]) == 2
    named = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(parts, 1)]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": named})
    assert client.get_object(Bucket=bucket, Key="parts")["Body"].read() == big + big
    lost = client.create_multipart_upload(Bucket=bucket, Key="lost")
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    client.abort_multipart_upload(Bucket=bucket, Key="lost", UploadId=lost["UploadId"])
    assert client.list_objects_v2(Bucket=bucket, Prefix="a b/")["KeyCount"] == 1
    client.delete_object(**where)
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "copy"}, {"Key": "parts"}]})
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    proxy.wait_until_idle()
    seen = proxy.exchanges()
    assert " ".join(exchange.call.operation for exchange in seen) == (
        "put head get get get_tags copy create_upload upload_part copy_part list_parts complete_upload get "
        "create_upload list_uploads abort_upload list delete delete_batch list"
    )
    assert {exchange.call.bucket for exchange in seen} == {bucket}
    assert (seen[0].call.key, seen[0].sent, seen[2].answered) == (where["Key"], len(big), len(big))
    assert not proxy.injected()


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("PUT", "/bucket", "put_bucket"),
        ("HEAD", "/bucket", "head_bucket"),
        ("GET", "/bucket?versioning", "get_bucket"),
        ("PUT", "/bucket/key?tagging", "put_tags"),
        ("DELETE", "/bucket/key?versionId=7", "delete"),
    ],
)
def test_what_a_driver_never_asks_has_a_name_too(method: str, target: str, operation: str) -> None:
    assert recognise(method, target, copies=False).operation == operation


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("internal_error", 500, "InternalError"),
        ("slow_down", 503, "SlowDown"),
        ("access_denied", 403, "AccessDenied"),
        ("error_in_200", 200, "InternalError"),
    ],
)
@pytest.mark.parametrize("effect", [False, True])
def test_an_error_answer_comes_with_or_without_effect(
    proxy: FaultProxy, ask: Ask, kind: Kind, status: int, code: str, effect: bool
) -> None:
    proxy.inject(Fault("put", kind, effect=effect))
    found, body = ask("PUT", body=b"content")
    assert (found, f"<Code>{code}</Code>" in body.decode()) == (status, True)
    assert ask("GET")[0] == (200 if effect else 404)
    assert dict(proxy.injected()) == {("put", kind): 1}


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault("put", "hang_up"), False),
        (Fault("put", "hang_up", effect=True), True),
        (Fault("put", "cut_request"), False),
        (Fault("put", "cut_answer"), True),  # which has no body: it is not answered at all
        (Fault("put", "stall"), False),
        (Fault("put", "stall", effect=True), True),
        (Fault("put", "late"), True),
    ],
    ids=str,
)
def test_a_connection_ends_before_or_after_the_effect(proxy: FaultProxy, ask: Ask, fault: Fault, stored: bool) -> None:
    proxy.inject(fault)
    with pytest.raises(OSError):  # noqa: PT011  reset, closed or timed out
        ask("PUT", body=b"content" * 100_000, timeout=STALL / 2 if fault.kind == "late" else 5)
    proxy.wait_until_idle()
    assert ask("GET")[0] == (200 if stored else 404)


def test_an_answer_is_cut_in_the_middle_of_its_body(proxy: FaultProxy, ask: Ask) -> None:
    ask("PUT", body=b"0123456789" * 100_000)
    proxy.inject(Fault("get", "cut_answer"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask("GET")
    assert caught.value.partial == b"0123456789" * 50_000
    assert ask("GET")[1] == b"0123456789" * 100_000


def test_a_batch_fails_key_by_key(client: Any, proxy: FaultProxy, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a&b", Body=b"")
    proxy.inject(Fault("delete_batch", "error_in_200"))
    batch = {"Objects": [{"Key": "a&b"}, {"Key": "c"}]}
    failed = client.delete_objects(Bucket=bucket, Delete=batch)["Errors"]
    assert [(item["Key"], item["Code"]) for item in failed] == [("a&b", "InternalError"), ("c", "InternalError")]
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_a_fault_hits_as_many_calls_as_it_says(proxy: FaultProxy, ask: Ask) -> None:
    proxy.inject(Fault("get", "slow_down", times=2, after=1), Fault("get", "internal_error", times=None, after=4))
    assert ask("HEAD")[0] == 404
    assert [ask("GET")[0] for _ in range(6)] == [404, 503, 503, 404, 500, 500]
    assert dict(proxy.injected()) == {("get", "slow_down"): 2, ("get", "internal_error"): 2}
    proxy.inject()
    assert (ask("GET")[0], dict(proxy.injected())) == (404, {})


def test_chance_is_the_same_for_the_same_seed(proxy: FaultProxy, ask: Ask) -> None:
    def statuses(seed: int) -> list[int]:
        proxy.inject_at_random(seed, 0.5, [Fault("", "slow_down"), Fault("get", "access_denied")])
        return [ask("GET")[0] for _ in range(30)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert set(statuses(1)) == {404, 503, 403}


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1"], indirect=True)
def test_a_server_that_is_gone_is_a_connection_that_ends(ask: Ask) -> None:
    with pytest.raises(OSError):  # noqa: PT011  reset or closed
        ask("GET")
