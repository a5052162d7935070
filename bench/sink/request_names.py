"""Which operation of S3 a request is, by botocore's names."""

from collections.abc import Mapping
from typing import Final

from bench.sink.discarding_socket import RequestHead

_OF_BUCKETS: Final = {
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "lifecycle"): "GetBucketLifecycleConfiguration",
    ("GET", "list-type"): "ListObjectsV2",
    ("POST", "delete"): "DeleteObjects",
}
_OF_BUCKETS_ALONE: Final = {"PUT": "CreateBucket", "HEAD": "HeadBucket", "GET": "ListObjects", "DELETE": "DeleteBucket"}
_OF_BLOBS: Final = {
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "acl"): "GetObjectAcl",
    ("GET", "uploadId"): "ListParts",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("PUT", "partNumber"): "UploadPart",
}
_OF_BLOBS_ALONE: Final = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject", "DELETE": "DeleteObject"}
_COPIES: Final = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}


def name_of(head: RequestHead, bucket: str, key: str) -> str:
    """The operation's name; "" for a request that the sink does not know."""
    if not bucket:
        return "ListBuckets"
    if not key:
        return _named(_OF_BUCKETS, _OF_BUCKETS_ALONE, head)
    name = _named(_OF_BLOBS, _OF_BLOBS_ALONE, head)
    return _COPIES.get(name, name) if "x-amz-copy-source" in head.headers else name


def _named(named: Mapping[tuple[str, str], str], alone: Mapping[str, str], head: RequestHead) -> str:
    for parameter in head.query:
        if (name := named.get((head.method, parameter))) is not None:
            return name
    return alone.get(head.method, "")
