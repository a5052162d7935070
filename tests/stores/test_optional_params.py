"""Optional parameters: sent until a store refuses them, and left out from then on; a warning once."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.stores.scripted_server import Answer, ScriptedServer, refusal
from worker.errors import InvalidStoreRequestError, NotSupportedError, StoreError
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.s3.s3_store import S3Store

CRC = "CRC64NVME:AAAAAAAAAAA="
ETAG = {"ETag": '"e"'}
HEAD = ETAG | {"Last-Modified": "Mon, 23 Nov 2026 00:00:00 GMT", "Content-Length": "5"}
COMPLETED = b"<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag></CompleteMultipartUploadResult>"
COPIED = b"<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>"
TAGGED = BlobOptions(tags={"team": "a"})
REFUSALS = {
    "400": refusal(400, "InvalidArgument"),
    "bare 400": Answer(400),
    "405": refusal(405, "MethodNotAllowed"),
    "411": refusal(411, "MissingContentLength"),
    "501": refusal(501, "NotImplemented"),
}
# The call; the capability that it needs; a header that says so; the answer to the call without it.
CALLS: dict[str, tuple[Callable[[S3Store], Any], Capability, str, Answer]] = {
    "put": (
        lambda store: store.put("k", b"x", checksum=CRC),
        Capability.CHECKSUM,
        "x-amz-checksum-crc64nvme",
        Answer(headers=ETAG),
    ),
    "tags of a put": (
        lambda store: store.put("k", b"x", options=TAGGED),
        Capability.TAGGING,
        "x-amz-tagging",
        Answer(headers=ETAG),
    ),
    "part": (
        lambda store: store.upload_part("k", "u", 1, b"x", checksum=CRC),
        Capability.CHECKSUM,
        "x-amz-checksum-crc64nvme",
        Answer(headers=ETAG),
    ),
    "copied part": (
        lambda store: store.copy_part("k", "u", 1, "s", 0, 5, source_if_match='"e"'),
        Capability.COPY_SOURCE_CONDITION,
        "x-amz-copy-source-if-match",
        Answer(200, COPIED.replace(b"CopyObjectResult", b"CopyPartResult")),
    ),
    "upload": (
        lambda store: store.create_upload("k"),
        Capability.CHECKSUM,
        "x-amz-checksum-algorithm",
        Answer(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"),
    ),
    "completion": (
        lambda store: store.complete_upload("k", "u", [PartReceipt(1, 5, '"e"')], size=5),
        Capability.UPLOAD_SIZE,
        "x-amz-mp-object-size",
        Answer(200, COMPLETED),
    ),
    "head": (lambda store: store.head("k"), Capability.CHECKSUM_MODE, "x-amz-checksum-mode", Answer(headers=HEAD)),
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_store_refuses_is_left_out_from_then_on(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, call: str, refused: Answer
) -> None:
    send, capability, header, answer = CALLS[call]
    store = server.store()
    # botocore asks for the bucket's region after a HEAD that is refused with 400.
    server.script(refused, *[refused] * (call == "head" and refused.status == 400), answer)
    with caplog.at_level(logging.WARNING):
        send(store)
        send(store)
    sent = [request for request in server.requests if request.path.startswith("/bucket/k")]
    assert [header in request.headers for request in sent] == [True, False, False]
    assert store.capabilities.missing == {capability}
    assert len(caplog.records) == 1


def test_of_several_parameters_only_the_refused_one_is_left_out(server: ScriptedServer) -> None:
    store = server.store()
    server.script(refusal(501, "NotImplemented"), refusal(501, "NotImplemented"), Answer(headers=ETAG))
    store.put("k", b"x", checksum=CRC, options=TAGGED)
    assert store.capabilities.missing == {Capability.TAGGING}
    assert "x-amz-checksum-crc64nvme" in server.requests[-1].headers


def test_if_only_none_of_them_is_accepted_all_are_left_out(server: ScriptedServer) -> None:
    store = server.store()
    refused = refusal(400, "InvalidArgument")
    server.script(refused, refused, refused, Answer(headers=ETAG))
    store.put("k", b"x", checksum=CRC, options=TAGGED)
    assert store.capabilities.missing == {Capability.CHECKSUM, Capability.TAGGING}


def test_a_refusal_about_something_else_is_raised_and_not_looked_into_again(server: ScriptedServer) -> None:
    store = server.store()
    server.script(refusal(400, "InvalidRequest"))
    for _ in range(2):
        with pytest.raises(InvalidStoreRequestError, match="InvalidRequest"):
            store.put("k", b"x", checksum=CRC)
    assert len(server.requests) == 3  # with it, without it; then only with it
    assert store.capabilities.missing == frozenset()


@pytest.mark.parametrize("code", ["InvalidStorageClass", "InvalidTag", "KMS.DisabledException"])
def test_a_refused_value_says_nothing_about_its_parameter(server: ScriptedServer, code: str) -> None:
    store = server.store()
    server.script(refusal(400, code))
    with pytest.raises(InvalidStoreRequestError, match=code):
        store.put("k", b"x", checksum=CRC, options=TAGGED)
    assert (len(server.requests), store.capabilities.missing) == (1, frozenset())


def test_a_refused_condition_does_not_hide_a_refused_parameter(server: ScriptedServer) -> None:
    store = server.store()
    server.script(refusal(501, "NotImplemented"))
    with pytest.raises(NotSupportedError):
        store.put("k", b"x", checksum=CRC, condition=Condition(if_none_match=True))
    server.script(refusal(501, "NotImplemented"), Answer(headers=ETAG))
    assert store.put("k", b"x", checksum=CRC).etag
    assert store.capabilities.missing == {Capability.CHECKSUM}


@pytest.mark.parametrize("status", [403, 404, 412, 500, 503])
def test_no_other_error_is_about_a_parameter(server: ScriptedServer, status: int) -> None:
    server.script(refusal(status, ""))
    with pytest.raises(StoreError):
        server.store().put("k", b"x", checksum=CRC)
    assert len(server.requests) == 1


@pytest.mark.parametrize("refused", [refusal(400, "InvalidArgument"), refusal(501, "NotImplemented")])
def test_without_batches_keys_are_deleted_one_by_one(server: ScriptedServer, refused: Answer) -> None:
    store = server.store()
    server.script(refused, Answer(204))
    assert store.delete_batch(["a", "b"]) == []
    assert store.delete_batch(["c"]) == []
    assert sorted(request.method + request.path for request in server.requests[1:]) == [
        "DELETE/bucket/a",
        "DELETE/bucket/b",
        "DELETE/bucket/c",
    ]
    assert store.capabilities.missing == {Capability.BATCH_DELETE}


def test_batches_whose_etags_are_refused_go_without_them(server: ScriptedServer) -> None:
    store = server.store()
    server.script(refusal(400, "MalformedXML"), Answer(200, b"<DeleteResult></DeleteResult>"))
    assert store.delete_batch(["a", "b"], etags={"a": '"1"', "b": '"2"'}) == []
    assert [b"<ETag>" in request.body for request in server.requests] == [True, False]
    assert store.capabilities.missing == {Capability.BATCH_DELETE_IF_MATCH}


def test_keys_whose_etags_are_refused_even_alone_go_without_them(server: ScriptedServer) -> None:
    store = server.store()
    refused = refusal(501, "NotImplemented")
    server.script(refused, refused, refused, Answer(204))
    assert store.delete_batch(["a"], etags={"a": '"1"'}) == []
    assert ["if-match" in request.headers for request in server.requests[2:]] == [True, False]
    assert store.capabilities.missing == {Capability.BATCH_DELETE, Capability.DELETE_IF_MATCH}


def test_a_store_that_does_not_list_uploads_is_asked_once(server: ScriptedServer) -> None:
    store = server.store()
    server.script(refusal(501, "NotImplemented"))
    for _ in range(2):
        with pytest.raises(NotSupportedError):
            list(store.list_uploads())
    assert len(server.requests) == 1


def test_what_one_process_has_seen_the_others_take_over() -> None:
    told: list[tuple[Capability, str]] = []
    capabilities = Capabilities(confirmed=[Capability.METADATA])
    capabilities.share([Capability.TAGGING, Capability.METADATA], lambda *what: told.append(what))
    assert capabilities.missing == {Capability.TAGGING}  # what is confirmed here is not believed to be missing
    capabilities.miss(Capability.TAGGING, Capability.BATCH_DELETE, reason="501")
    assert told == [(Capability.BATCH_DELETE, "501")]
    assert [capabilities.has(name) for name in (Capability.TAGGING, Capability.METADATA)] == [False, True]
