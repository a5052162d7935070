"""Between our values and boto3's dictionaries. Pure: no request is made here."""

from contextlib import suppress
from datetime import UTC, datetime
from email.header import Header
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

from worker.errors import InvalidStoreRequestError, NotSupportedError
from worker.stores.blob_values import BlobHead, BlobOptions, Condition, PartReceipt, PutReceipt

Params = dict[str, Any]

_SENT: Final = {"CRC64NVME": "ChecksumCRC64NVME", "CRC32C": "ChecksumCRC32C", "MD5": "ContentMD5"}
_KEPT: Final = {"CRC64NVME": "ChecksumCRC64NVME", "CRC32C": "ChecksumCRC32C", "MD5": "ChecksumMD5"}
_HEADERS: Final = {
    "Cache-Control": "CacheControl",
    "Content-Disposition": "ContentDisposition",
    "Content-Encoding": "ContentEncoding",
    "Content-Language": "ContentLanguage",
}


def present(**params: Any) -> Params:
    """The parameters that have a value: boto3 refuses None."""
    return {name: value for name, value in params.items() if value is not None}


def checksum_params(checksum: str | None) -> Params:
    """The header for ``"ALGORITHM:base64"``."""
    if checksum is None:
        return {}
    algorithm, _, value = checksum.partition(":")
    if algorithm not in _SENT:
        raise InvalidStoreRequestError(f"s3: unknown checksum algorithm {algorithm!r}: use one of {', '.join(_SENT)}")
    return {_SENT[algorithm]: value}


def guard_params(algorithm: str | None, checksum: str | None, size: int | None) -> Params:
    """What completion checks of the whole blob; nothing for stores that know no full-object checksums."""
    if algorithm is None:
        return {}
    params = present(MpuObjectSize=size)
    if checksum is not None and checksum.startswith(f"{algorithm}:"):
        params |= checksum_params(checksum) | {"ChecksumType": "FULL_OBJECT"}
    return params


def condition_params(condition: Condition | None) -> Params:
    """If-Match or If-None-Match."""
    if condition is None:
        return {}
    return present(IfMatch=condition.if_match, IfNoneMatch="*" if condition.if_none_match else None)


def option_params(options: BlobOptions | None) -> Params:
    """Content type, user metadata, tags and the other headers that readers get."""
    if options is None:
        return {}
    headers = {_HEADERS[name]: value for name, value in options.headers.items() if name in _HEADERS}
    return headers | present(
        ContentType=options.content_type,
        Metadata={name: _header(value) for name, value in options.metadata.items()} or None,
        Tagging=urlencode(options.tags or {}) or None,
    )


def part_params(part: PartReceipt, algorithm: str | None) -> Params:
    """One part in the list that completes an upload."""
    params: Params = {"PartNumber": part.part_number, "ETag": part.etag}
    if algorithm is not None and part.checksum is not None and part.checksum.startswith(f"{algorithm}:"):
        params |= checksum_params(part.checksum)
    return params


def kept_checksum(answer: Params) -> str | None:
    """The checksum that the store keeps of the bytes; one made of the parts' checksums says nothing of the bytes."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return None
    found = next((f"{name}:{answer[field]}" for name, field in _KEPT.items() if answer.get(field)), None)
    return None if found is None or "-" in found else found  # some stores do not tell the type; "…==-3" is of 3 parts


def put_receipt(answer: Params) -> PutReceipt:
    """The answer to a call that published. Some stores leave the ETag out, or empty."""
    return PutReceipt(answer.get("ETag") or None, answer.get("VersionId"))


def part_receipt(answer: Params, part_number: int, size: int) -> PartReceipt:
    """A part as the store echoed it."""
    return PartReceipt(part_number, size, answer.get("ETag") or "", kept_checksum(answer))


def served_at(answer: Params) -> datetime:
    """The store's clock when it answered, in whole seconds; this machine's if the answer has no date."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def abort_days(rule: Params, key: str) -> int | None:
    """After how many days a lifecycle rule aborts an unfinished upload at the key; None: it does not."""
    chosen = rule.get("Filter", {})
    prefix = rule.get("Prefix") or chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or ""
    applies = rule.get("Status") == "Enabled" and key.startswith(prefix)
    days: int | None = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation") if applies else None
    return days


def advanced(answer: Params, marker: Any, last: Any) -> Any:
    """Where the next page begins; None after the last. Raises NotSupportedError if it would be the same one again."""
    if not answer.get("IsTruncated"):
        return None
    if not marker or marker == last:
        raise NotSupportedError("s3: the store says that there is more, and not where")
    return marker


def content_length(answer: Params) -> int:
    """The size that the store tells. Raises NotSupportedError if it tells none."""
    size = answer.get("ContentLength")
    if size is None:
        raise NotSupportedError("s3: the store tells no Content-Length")
    return int(size)


def blob_head(key: str, answer: Params) -> BlobHead:
    """The answer to HEAD."""
    return BlobHead(
        key=key,
        size=content_length(answer),
        etag=answer.get("ETag") or "",
        mod_time=answer["LastModified"],
        content_type=answer.get("ContentType"),
        metadata=_metadata(answer),
        version_id=answer.get("VersionId"),
        checksum=kept_checksum(answer),
        storage_class=answer.get("StorageClass"),
        encryption=answer.get("ServerSideEncryption"),
    )


def blob_options(answer: Params, tags: dict[str, str] | None) -> BlobOptions:
    """The answer to HEAD, as what a copy should carry."""
    return BlobOptions(
        content_type=answer.get("ContentType"),
        metadata=_metadata(answer),
        tags=tags,
        headers={name: answer[field] for name, field in _HEADERS.items() if answer.get(field)},
        storage_class=answer.get("StorageClass"),
        encryption=answer.get("ServerSideEncryption"),
        encryption_key=answer.get("SSEKMSKeyId"),
    )


def _header(value: str) -> str:
    """A value of user metadata as it can be sent: what is not ASCII as S3 itself shows it. Source: RFC 2047.

    botocore refuses it otherwise: https://github.com/boto/botocore/issues/2552.
    """
    if value.isascii():
        return value
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode()  # botocore takes every header for Latin-1, and stores send UTF-8
    return Header(value, "utf-8", maxlinelen=10_000).encode()


def _metadata(answer: Params) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
