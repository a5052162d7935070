"""All requests that the sink answers, by botocore's names of the operations."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Final

from bench.sink import blob_verbs, upload_verbs
from bench.sink.blob_table import BlobTable, BlobTables
from bench.sink.discarding_socket import Received, RequestHead
from bench.sink.s3_answers import Answer, Refusal, element, xml

Verb = Callable[[BlobTable, str, RequestHead, Received], Answer]


def _empty(name: str) -> Verb:
    return lambda table, key, head, body: xml(name)


def _absent(code: str) -> Verb:
    def refuse(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
        raise Refusal(404, code)

    return refuse


VERBS: Final[dict[str, Verb]] = {
    "PutObject": blob_verbs.put_blob,
    "HeadObject": blob_verbs.head_blob,
    "GetObject": blob_verbs.get_blob,
    "CopyObject": blob_verbs.copy_blob,
    "DeleteObject": blob_verbs.delete_blob,
    "DeleteObjects": blob_verbs.delete_blobs,
    "ListObjectsV2": blob_verbs.list_blobs,
    "ListObjects": blob_verbs.list_blobs_v1,
    "CreateMultipartUpload": upload_verbs.create_upload,
    "UploadPart": upload_verbs.upload_part,
    "UploadPartCopy": upload_verbs.copy_part,
    "CompleteMultipartUpload": upload_verbs.complete_upload,
    "AbortMultipartUpload": upload_verbs.abort_upload,
    "ListParts": upload_verbs.list_parts,
    "ListMultipartUploads": upload_verbs.list_uploads,
    "HeadBucket": lambda table, key, head, body: Answer(200),
    "GetBucketLocation": _empty("LocationConstraint"),
    "GetBucketVersioning": _empty("VersioningConfiguration"),
    "GetObjectTagging": _empty("Tagging"),
    "GetObjectAcl": _empty("AccessControlPolicy"),
    "GetBucketLifecycleConfiguration": _absent("NoSuchLifecycleConfiguration"),
}


class S3Verbs:
    """The requests that the sink answers, over its tables."""

    def __init__(self, tables: BlobTables) -> None:
        self._tables = tables

    def answer(self, name: str, bucket: str, key: str, head: RequestHead, body: Received) -> Answer:
        """Do what the request named ``name`` (botocore's name of the operation) asks. Refusals are answers too."""
        tables = self._tables
        with tables.lock:
            tables.verbs[name] += 1
            try:
                if name == "ListBuckets":
                    return xml("ListAllMyBucketsResult", *(_bucket(found) for found in tables.buckets))
                if name == "CreateBucket":
                    tables.buckets.setdefault(bucket, BlobTable())
                    return Answer(200)
                if bucket not in tables.buckets:
                    raise Refusal(404, "NoSuchBucket")
                verb = VERBS.get(name)
                if verb is None:
                    raise Refusal(501, "NotImplemented")
                return verb(tables.buckets[bucket], key, head, body)
            except Refusal as refusal:
                return refusal.answer()


def _bucket(name: str) -> ElementTree.Element:
    bucket = element("Buckets")
    entry = ElementTree.SubElement(bucket, "Bucket")
    ElementTree.SubElement(entry, "Name").text = name
    return bucket
