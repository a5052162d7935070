"""Translates our values into boto3's parameters and its answers into our values. Pure: sends no request."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from worker.errors import InvalidStoreRequestError, NotSupportedError, StoreUnavailableError
from worker.stores.blob_values import BlobHead, Condition, KeyEntry, PartReceipt, PutReceipt

Params = dict[str, Any]

_SENT: Final = {"CRC64NVME": "ChecksumCRC64NVME", "CRC32C": "ChecksumCRC32C", "MD5": "ContentMD5"}
_KEPT: Final = {"CRC64NVME": "ChecksumCRC64NVME", "CRC32C": "ChecksumCRC32C", "MD5": "ChecksumMD5"}
_NO_ETAG: Final = "no-etag:"


def without_none(**params: Any) -> Params:
    """The parameters whose value is not None, which boto3 refuses."""
    return {name: value for name, value in params.items() if value is not None}


def checksum_params(checksum: str | None) -> Params:
    """The header for ``"ALGORITHM:base64"``."""
    if checksum is None:
        return {}
    algorithm, _, value = checksum.partition(":")
    if algorithm not in _SENT:
        raise InvalidStoreRequestError(f"s3: unknown checksum algorithm {algorithm!r}: use one of {', '.join(_SENT)}")
    return {_SENT[algorithm]: value}


def whole_blob_params(algorithm: str | None, checksum: str | None) -> Params:
    """The checksum that completion must check; nothing for a store without full-object checksums."""
    if algorithm is None or checksum is None or not checksum.startswith(f"{algorithm}:"):
        return {}
    return checksum_params(checksum) | {"ChecksumType": "FULL_OBJECT"}


def condition_params(condition: Condition | None) -> Params:
    """If-Match or If-None-Match."""
    if condition is None:
        return {}
    return without_none(IfMatch=sent_etag(condition.if_match), IfNoneMatch="*" if condition.if_none_match else None)


def part_params(part: PartReceipt, algorithm: str | None) -> Params:
    """One entry of the part list that completes an upload."""
    params: Params = {"PartNumber": part.part_number, "ETag": part.etag}
    if algorithm is not None and part.checksum is not None and part.checksum.startswith(f"{algorithm}:"):
        params |= checksum_params(part.checksum)
    return params


def full_object_checksum(answer: Params) -> str | None:
    """The store's checksum of the bytes; None for a composite one, which is computed from the parts' checksums."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return None
    found = next((f"{name}:{answer[field]}" for name, field in _KEPT.items() if answer.get(field)), None)
    # Some stores send no type: "…==-3" is a composite of 3 parts.
    return None if found is None or "-" in found else found


def etag_of_answer(answer: Params) -> str:
    """The ETag of a blob; for a store that shows none, a name of the version by time and size, which is never sent."""
    etag: str | None = answer.get("ETag")
    return etag or f"{_NO_ETAG}{answer.get('LastModified', '')}:{answer.get('ContentLength', '')}"


def sent_etag(etag: str | None) -> str | None:
    """The ETag as a condition; None for a version that has none."""
    return None if etag is None or etag.startswith(_NO_ETAG) else etag


def put_receipt(answer: Params) -> PutReceipt:
    """The answer to a commit call. Some stores omit the ETag or leave it empty."""
    return PutReceipt(answer.get("ETag") or None, answer.get("VersionId"))


def upload_id_of(answer: Params) -> str:
    """The id of a new upload. Raises StoreUnavailableError for an answer without one, such as a proxy's page."""
    upload_id = answer.get("UploadId")
    if not upload_id:
        raise StoreUnavailableError("s3: the store has opened an upload without telling its id")
    return str(upload_id)


def part_receipt(answer: Params, part_number: int, size: int) -> PartReceipt:
    """The part that the answer describes."""
    return PartReceipt(part_number, size, answer.get("ETag") or "", full_object_checksum(answer))


def answered_at(answer: Params) -> datetime:
    """The Date header of the answer, in whole seconds; this machine's clock if there is none."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def abort_days(rule: Params, key: str) -> int | None:
    """Days after which a lifecycle rule aborts an unfinished upload at the key; None if it does not apply."""
    chosen = rule.get("Filter", {})
    prefix = rule.get("Prefix") or chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or ""
    applies = rule.get("Status") == "Enabled" and key.startswith(prefix)
    days: int | None = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation") if applies else None
    return days


def next_marker(answer: Params, marker: Any, previous: Any) -> Any:
    """The marker of the next page; None after the last one.

    Raises NotSupportedError if a truncated answer has no new marker: asking again would return this page for ever.
    """
    if not answer.get("IsTruncated"):
        return None
    if not marker or marker == previous:
        raise NotSupportedError("s3: the store truncated a listing without telling where it continues")
    return marker


def key_entries(answer: Params) -> list[KeyEntry]:
    """The keys of a page. Every field but the key may be missing."""
    found = (item for item in answer.get("Contents", []) if item.get("Key"))
    return [KeyEntry(item["Key"], item.get("Size"), item.get("LastModified"), item.get("ETag") or "") for item in found]


def content_length(answer: Params) -> int:
    """The size in bytes. Raises NotSupportedError if the answer has none."""
    size = answer.get("ContentLength")
    if size is None:
        raise NotSupportedError("s3: the store answered without a Content-Length")
    return int(size)


def blob_head(key: str, answer: Params) -> BlobHead:
    """The head that an answer to HEAD describes."""
    return BlobHead(
        key=key,
        size=content_length(answer),
        etag=etag_of_answer(answer),
        mod_time=answer.get("LastModified"),
        content_type=answer.get("ContentType"),
        metadata=user_metadata(answer),
        version_id=answer.get("VersionId"),
        checksum=full_object_checksum(answer),
        storage_class=answer.get("StorageClass"),
        encryption=answer.get("ServerSideEncryption"),
        locked=lock_of(answer),
    )


def user_metadata(answer: Params) -> dict[str, str]:
    """The user metadata that an answer shows."""
    return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}


def lock_of(answer: Params) -> str | None:
    """What locks the version that an answer shows; None for nothing, and for a retention that is over."""
    if answer.get("ObjectLockLegalHoldStatus") == "ON":
        return "a legal hold"
    mode, until = answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")
    if not mode or (until is not None and until <= datetime.now(UTC)):
        return None
    return f"a retention in mode {mode}" + (f" until {until.isoformat()}" if until else "")
