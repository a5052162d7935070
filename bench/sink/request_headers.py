"""What the headers of a request ask for, and those of an answer that show a blob."""

import time
from email.utils import formatdate, parsedate_to_datetime
from typing import Final
from urllib.parse import unquote

from bench.sink.blob_table import BlobTable, StoredBlob, only
from bench.sink.discarding_socket import Received, RequestHead
from bench.sink.s3_answers import Refusal

KEPT_HEADERS: Final = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
)
CHECKSUM: Final = "x-amz-checksum-"
NOT_CHECKSUMS: Final = ("x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type")


def kept_headers(head: RequestHead) -> dict[str, str]:
    """The headers of a request that the blob shows from then on."""
    kept = {name: head.headers[name] for name in KEPT_HEADERS if name in head.headers}
    encoding = kept.pop("content-encoding", "").removeprefix("aws-chunked").strip(", ")
    return kept | ({"content-encoding": encoding} if encoding else {}) | only(head.headers, "x-amz-meta-")


def checksums_of(head: RequestHead, body: Received) -> dict[str, str]:
    """The checksums that the request declares, in its headers or after its body."""
    found = only(head.headers, CHECKSUM) | only(body.trailers, CHECKSUM)
    return {name: value for name, value in found.items() if name not in NOT_CHECKSUMS}


def shown_headers(blob: StoredBlob, head: RequestHead) -> dict[str, str]:
    """The headers of an answer about the blob."""
    shown = {
        "ETag": f'"{blob.etag}"',
        "Last-Modified": formatdate(blob.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        **blob.headers,
    }
    if blob.checksums and head.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        shown |= blob.checksums | {"x-amz-checksum-type": "FULL_OBJECT"}
    return shown


def found_blob(table: BlobTable, key: str, head: RequestHead) -> StoredBlob:
    """The blob that a GET or HEAD asks for. Raises Refusal."""
    blob = table.blobs.get(key)
    if blob is None:
        raise Refusal(404, "NoSuchKey")
    if not _matches(blob, head.headers.get("if-match")):
        raise Refusal(412, "PreconditionFailed")
    if (since := head.headers.get("if-unmodified-since")) and blob.modified > _seconds(since):
        raise Refusal(412, "PreconditionFailed")
    return blob


def _seconds(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return time.time()


def copy_source(table: BlobTable, head: RequestHead) -> StoredBlob:
    """The blob that a copy names. Raises Refusal."""
    _, _, key = unquote(head.headers["x-amz-copy-source"]).lstrip("/").partition("?versionId=")[0].partition("/")
    source = table.blobs.get(key)
    if source is None:
        raise Refusal(404, "NoSuchKey")
    if not _matches(source, head.headers.get("x-amz-copy-source-if-match")):
        raise Refusal(412, "PreconditionFailed")
    return source


def check_conditions(table: BlobTable, key: str, head: RequestHead) -> None:
    """Raise Refusal unless the conditions of a write hold."""
    blob, wanted = table.blobs.get(key), head.headers.get("if-match")
    if blob is not None and head.headers.get("if-none-match") == "*":
        raise Refusal(412, "PreconditionFailed")
    if wanted is not None and blob is None:
        raise Refusal(404, "NoSuchKey")
    if blob is not None and not _matches(blob, wanted):
        raise Refusal(412, "PreconditionFailed")


def _matches(blob: StoredBlob, etag: str | None) -> bool:
    return etag is None or etag == "*" or etag.strip('"') == blob.etag
