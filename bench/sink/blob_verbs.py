"""What requests for blobs and keys do to a bucket, and their answers."""

import xml.etree.ElementTree as ElementTree

from bench.sink.blob_table import BlobTable, StoredBlob, drawn_etag, now
from bench.sink.discarding_socket import Received, RequestHead
from bench.sink.request_headers import (
    CHECKSUM,
    check_conditions,
    checksums_of,
    copy_source,
    found_blob,
    kept_headers,
    shown_headers,
)
from bench.sink.s3_answers import Answer, Refusal, element, iso, listing, text_of, xml


def put_blob(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """PutObject."""
    check_conditions(table, key, head)
    etag = body.md5 or f"{drawn_etag()}-1"
    checksums = checksums_of(head, body)
    table.put(key, StoredBlob(body.size, etag, now(), kept_headers(head), checksums))
    return Answer(200, {"ETag": f'"{etag}"', **checksums})


def head_blob(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """HeadObject."""
    blob = found_blob(table, key, head)
    return Answer(200, shown_headers(blob, head), size=blob.size)


def get_blob(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """GetObject, of all of it or of a range."""
    blob = found_blob(table, key, head)
    wanted, headers = head.headers.get("range", ""), shown_headers(blob, head)
    if not blob.is_generated:
        headers = _without_checksums(headers)
    if not wanted.startswith("bytes="):
        return Answer(200, headers, size=blob.size, sends_from=0)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    begin = int(first) if first else max(0, blob.size - int(last))
    end = min(int(last), blob.size - 1) if first and last else blob.size - 1
    if begin >= blob.size:
        raise Refusal(416, "InvalidRange")
    headers["Content-Range"] = f"bytes {begin}-{end}/{blob.size}"
    if begin or end < blob.size - 1:
        headers = _without_checksums(headers)
    return Answer(206, headers, size=end - begin + 1, sends_from=begin)


def _without_checksums(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith(CHECKSUM)}


def copy_blob(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """CopyObject."""
    source = copy_source(table, head)
    check_conditions(table, key, head)
    replaces = head.headers.get("x-amz-metadata-directive") == "REPLACE"
    headers = kept_headers(head) if replaces else dict(source.headers)
    copied = StoredBlob(source.size, source.etag, now(), headers, dict(source.checksums))
    table.put(key, copied)
    return xml("CopyObjectResult", element("ETag", f'"{copied.etag}"'), element("LastModified", iso(copied.modified)))


def delete_blob(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """DeleteObject."""
    if "if-match" in head.headers:
        check_conditions(table, key, head)
    table.remove(key)
    return Answer(204)


def delete_blobs(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """DeleteObjects."""
    request = ElementTree.fromstring(body.content)
    is_quiet = text_of(request, "Quiet") == "true"
    deleted = []
    for entry in request.iterfind("{*}Object"):
        name = text_of(entry, "Key")
        table.remove(name)
        if not is_quiet:
            found = element("Deleted")
            ElementTree.SubElement(found, "Key").text = name
            deleted.append(found)
    return xml("DeleteResult", *deleted)


def list_blobs(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """ListObjectsV2."""
    return listing(table, head.query)


def list_blobs_v1(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """ListObjects."""
    return listing(table, head.query, is_first_version=True)
