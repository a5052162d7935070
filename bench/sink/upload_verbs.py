"""What requests for uploads by parts do to a bucket, and their answers."""

import itertools
import xml.etree.ElementTree as ElementTree

from bench.sink.blob_table import BlobTable, StoredBlob, StoredPart, StoredUpload, drawn_etag, joined_etag, now
from bench.sink.discarding_socket import Received, RequestHead
from bench.sink.request_headers import CHECKSUM, check_conditions, checksums_of, copy_source, kept_headers
from bench.sink.s3_answers import Answer, Refusal, element, iso, text_of, xml


def create_upload(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """CreateMultipartUpload."""
    upload_id = drawn_etag()
    table.uploads[upload_id] = StoredUpload(key, kept_headers(head), now())
    return xml("InitiateMultipartUploadResult", element("Key", key), element("UploadId", upload_id))


def _upload(table: BlobTable, key: str, head: RequestHead) -> StoredUpload:
    upload = table.uploads.get(head.query["uploadId"])
    if upload is None or upload.key != key:
        raise Refusal(404, "NoSuchUpload")
    return upload


def upload_part(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """UploadPart."""
    upload, checksums = _upload(table, key, head), checksums_of(head, body)
    etag = body.md5 or drawn_etag()
    upload.parts[int(head.query["partNumber"])] = StoredPart(body.size, etag, checksums, now())
    return Answer(200, {"ETag": f'"{etag}"', **checksums})


def copy_part(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """UploadPartCopy."""
    upload, source = _upload(table, key, head), copy_source(table, head)
    first, _, last = head.headers.get("x-amz-copy-source-range", "").removeprefix("bytes=").partition("-")
    size = int(last) - int(first) + 1 if first else source.size
    part = StoredPart(size, drawn_etag(), {}, now())
    upload.parts[int(head.query["partNumber"])] = part
    return xml("CopyPartResult", element("ETag", f'"{part.etag}"'), element("LastModified", iso(part.modified)))


def complete_upload(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """CompleteMultipartUpload."""
    upload = _upload(table, key, head)
    check_conditions(table, key, head)
    parts = []
    for entry in ElementTree.fromstring(body.content).iterfind("{*}Part"):
        part = upload.parts.get(int(text_of(entry, "PartNumber")))
        if part is None or part.etag != text_of(entry, "ETag").strip('"'):
            raise Refusal(400, "InvalidPart")
        parts.append(part)
    if not parts:
        raise Refusal(400, "MalformedXML")
    etag = joined_etag([part.etag for part in parts])
    blob = StoredBlob(sum(part.size for part in parts), etag, now(), upload.headers, checksums_of(head, body))
    table.put(key, blob)
    del table.uploads[head.query["uploadId"]]
    return xml("CompleteMultipartUploadResult", element("Key", key), element("ETag", f'"{etag}"'))


def abort_upload(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """AbortMultipartUpload."""
    _upload(table, key, head)
    del table.uploads[head.query["uploadId"]]
    return Answer(204)


def list_parts(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """ListParts."""
    upload, marker = _upload(table, key, head), int(head.query.get("part-number-marker") or 0)
    most = int(head.query.get("max-parts") or 1000)
    numbers = sorted(number for number in upload.parts if number > marker)
    entries = []
    for number in numbers[:most]:
        entry, part = element("Part"), upload.parts[number]
        fields = {"PartNumber": str(number), "ETag": f'"{part.etag}"', "Size": str(part.size)}
        for name, value in part.checksums.items():
            fields[f"Checksum{name.removeprefix(CHECKSUM).upper()}"] = value
        for name, value in (fields | {"LastModified": iso(part.modified)}).items():
            ElementTree.SubElement(entry, name).text = value
        entries.append(entry)
    is_truncated = "true" if len(numbers) > most else "false"
    return xml("ListPartsResult", element("IsTruncated", is_truncated), *entries)


def list_uploads(table: BlobTable, key: str, head: RequestHead, body: Received) -> Answer:
    """ListMultipartUploads, at most a thousand."""
    prefix, entries = head.query.get("prefix", ""), []
    marker = (head.query.get("key-marker", ""), head.query.get("upload-id-marker", ""))
    found = sorted((upload.key, upload_id, upload) for upload_id, upload in table.uploads.items())
    for name, upload_id, upload in found:
        if name.startswith(prefix) and (name, upload_id) > marker:
            entry = element("Upload")
            for field, value in {"Key": name, "UploadId": upload_id, "Initiated": iso(upload.opened)}.items():
                ElementTree.SubElement(entry, field).text = value
            entries.append(entry)
    return xml("ListMultipartUploadsResult", element("IsTruncated", "false"), *itertools.islice(entries, 1000))
