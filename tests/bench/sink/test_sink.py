"""The sink answers a real client as S3 does, though it keeps no bytes."""

import base64
import hashlib
import io
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from awscrt import checksums
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.sink.generated import block
from bench.sink_service import Sink
from bench.stage import control
from worker.stores.blob_values import Condition
from worker.stores.s3.s3_store import S3Access, S3Store

BUCKET = "tests"
MIB = 1024 * 1024


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"])


def head(s3: Any, key: str) -> Any:
    return s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")


def parts_of(s3: Any, key: str, *contents: bytes) -> tuple[str, list[dict[str, Any]]]:
    upload_id = s3.create_multipart_upload(Bucket=BUCKET, Key=key, Metadata={"mark": "7"})["UploadId"]
    parts = []
    for number, content in enumerate(contents, 1):
        answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload_id, PartNumber=number, Body=content)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    return upload_id, parts


# --- whole blobs -----------------------------------------------------------------------------------------------------


def test_head_shows_what_was_put(s3: Any) -> None:
    s3.put_object(
        Bucket=BUCKET,
        Key="a/b c+ü",
        Body=b"hello",
        ContentType="text/plain",
        Metadata={"mark": "7"},
        ChecksumCRC64NVME="AAAAAAAAAAA=",
    )
    found = head(s3, "a/b c+ü")
    assert found["ContentLength"] == 5
    assert found["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert found["ContentType"] == "text/plain"
    assert found["Metadata"] == {"mark": "7"}
    assert (found["ChecksumCRC64NVME"], found["ChecksumType"]) == ("AAAAAAAAAAA=", "FULL_OBJECT")


def test_a_missing_key_is_not_found(s3: Any) -> None:
    assert code_of(lambda: s3.head_object(Bucket=BUCKET, Key="missing")) == "404"
    assert code_of(lambda: s3.get_object(Bucket=BUCKET, Key="missing")) == "NoSuchKey"


def test_a_large_body_counts_and_has_an_etag_that_is_no_md5(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="large", Body=bytes(5 * MIB + 3))
    found = head(s3, "large")
    assert found["ContentLength"] == 5 * MIB + 3
    assert found["ETag"].strip('"').endswith("-1")


def test_conditions_of_a_put_are_those_of_s3(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    assert code_of(lambda: s3.put_object(Bucket=BUCKET, Key="a", Body=b"2", IfNoneMatch="*")) == "PreconditionFailed"
    assert code_of(lambda: s3.put_object(Bucket=BUCKET, Key="a", Body=b"2", IfMatch='"x"')) == "PreconditionFailed"
    assert code_of(lambda: s3.put_object(Bucket=BUCKET, Key="b", Body=b"2", IfMatch=etag)) == "NoSuchKey"
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"22", IfMatch=etag)
    assert head(s3, "a")["ContentLength"] == 2


def test_a_delete_with_another_etag_is_refused(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="a", Body=b"1")["ETag"]
    assert code_of(lambda: s3.delete_object(Bucket=BUCKET, Key="a", IfMatch='"x"')) == "PreconditionFailed"
    s3.delete_object(Bucket=BUCKET, Key="a", IfMatch=etag)
    assert code_of(lambda: head(s3, "a")) == "404"


def test_a_copy_keeps_metadata_unless_told_otherwise(s3: Any) -> None:
    source = {"Bucket": BUCKET, "Key": "a b"}
    s3.put_object(Bucket=BUCKET, Key="a b", Body=b"123", Metadata={"mark": "7"})
    s3.copy_object(Bucket=BUCKET, Key="same", CopySource=source)
    s3.copy_object(Bucket=BUCKET, Key="new", CopySource=source, Metadata={"x": "y"}, MetadataDirective="REPLACE")
    assert (head(s3, "same")["Metadata"], head(s3, "new")["Metadata"]) == ({"mark": "7"}, {"x": "y"})
    refused = {"Bucket": BUCKET, "Key": "c", "CopySource": source, "CopySourceIfMatch": '"x"'}
    assert code_of(lambda: s3.copy_object(**refused)) == "PreconditionFailed"


# --- what it sends ---------------------------------------------------------------------------------------------------


def test_generated_bytes_have_the_checksum_that_head_shows(empty_sink: Sink, s3: Any) -> None:
    size = 2 * MIB + 17
    control(empty_sink, "fill", bucket=BUCKET, prefix="g", count=1, size=size)
    content = s3.get_object(Bucket=BUCKET, Key="g00000000")["Body"].read()
    assert content == (bytes(block()) * 3)[:size]
    checksum = base64.b64encode(checksums.crc64nvme(content).to_bytes(8, "big")).decode()
    assert head(s3, "g00000000")["ChecksumCRC64NVME"] == checksum


def test_a_range_is_that_of_the_whole(empty_sink: Sink, s3: Any) -> None:
    control(empty_sink, "fill", bucket=BUCKET, prefix="g", count=1, size=3 * MIB)
    answer = s3.get_object(Bucket=BUCKET, Key="g00000000", Range=f"bytes={MIB - 2}-{MIB + 1}")
    assert answer["ContentRange"] == f"bytes {MIB - 2}-{MIB + 1}/{3 * MIB}"
    assert answer["Body"].read() == (bytes(block()) * 2)[MIB - 2 : MIB + 2]
    beyond = {"Bucket": BUCKET, "Key": "g00000000", "Range": f"bytes={3 * MIB}-"}
    assert code_of(lambda: s3.get_object(**beyond)) == "InvalidRange"


# --- uploads ---------------------------------------------------------------------------------------------------------


def test_an_upload_becomes_a_blob_of_its_parts(s3: Any) -> None:
    upload_id, parts = parts_of(s3, "a", bytes(5 * MIB), b"end")
    listed = s3.list_parts(Bucket=BUCKET, Key="a", UploadId=upload_id)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 5 * MIB), (2, 3)]
    assert [entry["Key"] for entry in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == ["a"]
    completed = {"Bucket": BUCKET, "Key": "a", "UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
    assert s3.complete_multipart_upload(**completed)["ETag"].strip('"').endswith("-2")
    assert (head(s3, "a")["ContentLength"], head(s3, "a")["Metadata"]) == (5 * MIB + 3, {"mark": "7"})
    assert code_of(lambda: s3.complete_multipart_upload(**completed)) == "NoSuchUpload"


def test_a_completion_checks_parts_and_conditions(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"old")
    upload_id, parts = parts_of(s3, "a", b"end")
    upload = {"Bucket": BUCKET, "Key": "a", "UploadId": upload_id}
    wrong = {"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}
    assert code_of(lambda: s3.complete_multipart_upload(**upload, MultipartUpload=wrong)) == "InvalidPart"
    conditional = {**upload, "MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
    assert code_of(lambda: s3.complete_multipart_upload(**conditional)) == "PreconditionFailed"
    assert head(s3, "a")["ContentLength"] == 3
    s3.abort_multipart_upload(**upload)
    assert code_of(lambda: s3.list_parts(**upload)) == "NoSuchUpload"


def test_parts_are_copied(empty_sink: Sink, s3: Any) -> None:
    control(empty_sink, "fill", bucket=BUCKET, prefix="g", count=1, size=20 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.copy({"Bucket": BUCKET, "Key": "g00000000"}, BUCKET, "copy", Config=config)
    assert head(s3, "copy")["ContentLength"] == 20 * MIB
    assert control(empty_sink, "counts", "GET")["verbs"]["UploadPartCopy"] == 4


# --- many keys -------------------------------------------------------------------------------------------------------


def test_a_listing_has_pages_and_directories(s3: Any) -> None:
    for key in ("b", "a/1", "a/2", "a+x", "a&<"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 2})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == ["a&<", "a+x", "a/1", "a/2", "b"]
    answer = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
    assert [entry["Prefix"] for entry in answer["CommonPrefixes"]] == ["a/"]
    assert [entry["Key"] for entry in answer["Contents"]] == ["a&<", "a+x", "b"]


def test_a_batch_of_deletes_leaves_the_others(empty_sink: Sink, s3: Any) -> None:
    control(empty_sink, "fill", bucket=BUCKET, prefix="g", count=5, size=1)
    keys = [{"Key": f"g0000000{number}"} for number in (0, 2, 3)]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    assert [entry["Key"] for entry in answer["Deleted"]] == [key["Key"] for key in keys]
    left = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [entry["Key"] for entry in left] == ["g00000001", "g00000004"]


# --- bodies as clients frame them ------------------------------------------------------------------------------------


@pytest.fixture
def secure_s3(empty_sink: Sink) -> Any:
    """A client with boto3's own defaults, which frames bodies over TLS in chunks with a checksum at their end."""
    return boto3.client(
        "s3",
        endpoint_url=empty_sink.secure_endpoint,
        verify=str(empty_sink.authority),
        aws_access_key_id="bench",
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
def test_a_body_in_chunks_counts_without_its_frame(secure_s3: Any, size: int) -> None:
    secure_s3.put_object(Bucket=BUCKET, Key="a", Body=io.BytesIO(bytes(size)))
    found = head(secure_s3, "a")
    assert found["ContentLength"] == size
    assert found["ChecksumCRC32"]
    assert "ContentEncoding" not in found
    secure_s3.put_object(Bucket=BUCKET, Key="b", Body=b"next request of the same connection")
    assert head(secure_s3, "b")["ContentLength"] == 35


# --- its pace and counts ---------------------------------------------------------------------------------------------


def test_requests_and_bytes_are_counted(empty_sink: Sink, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"12345")
    s3.get_object(Bucket=BUCKET, Key="a")["Body"].read()
    counts = control(empty_sink, "counts", "GET")
    assert counts == {"verbs": {"PutObject": 1, "GetObject": 1}, "received": 5, "sent": 5}


def test_a_delay_and_a_rate_are_obeyed(empty_sink: Sink, s3: Any) -> None:
    control(empty_sink, "pace", delay=0.05, rate=10 * MIB)
    started = time.monotonic()
    s3.put_object(Bucket=BUCKET, Key="a", Body=bytes(2 * MIB))
    assert time.monotonic() - started >= 0.2


def test_our_own_store_needs_nothing_else(empty_sink: Sink) -> None:
    access = S3Access(
        endpoint=empty_sink.endpoint, region="us-east-1", access_key="bench", secret_key="secret", path_style=True
    )
    store = S3Store(access, BUCKET)
    absent = Condition(if_none_match=True)
    store.put("a", b"123", checksum="CRC64NVME:AAAAAAAAAAA=", condition=absent)
    assert store.head("a").checksum == "CRC64NVME:AAAAAAAAAAA="
    assert store.upload_lifetime("a") is None
    assert store.options_of("a").tags == {}
