"""What the local store writes down beside bytes: one JSON record for each blob, part and upload."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from worker.errors import StoreUnavailableError
from worker.stores.blob_values import BlobHead, BlobOptions, KeyEntry, PartReceipt


@dataclass(frozen=True, slots=True)
class Record:
    """A blob or a part: which file holds its bytes, and what is known of them."""

    version: str  #: names the file of the bytes; never used twice
    size: int
    etag: str
    mod_time: datetime
    checksums: dict[str, str] = field(default_factory=dict)  #: by algorithm, the one to show first
    options: BlobOptions = field(default_factory=BlobOptions)
    upload_id: str | None = None  #: the upload that this blob was made of

    @property
    def checksum(self) -> str | None:
        """``"ALGORITHM:base64"``, if one is kept."""
        return next(iter(self.checksums.values()), None)

    def head(self, key: str) -> BlobHead:
        """As a reader sees the blob."""
        return BlobHead(
            key=key,
            size=self.size,
            etag=self.etag,
            mod_time=self.mod_time,
            content_type=self.options.content_type,
            metadata=self.options.metadata,
            checksum=self.checksum,
            storage_class=self.options.storage_class,
        )

    def entry(self, key: str) -> KeyEntry:
        """As a listing tells of the blob."""
        return KeyEntry(key, self.size, self.mod_time, self.etag)

    def receipt(self, part_number: int) -> PartReceipt:
        """As a part."""
        return PartReceipt(part_number, self.size, self.etag, self.checksum)


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An unfinished upload."""

    key: str
    opened_at: datetime
    options: BlobOptions


def dump(record: Record | UploadRecord) -> bytes:
    """The record as JSON."""
    return json.dumps(asdict(record), default=datetime.isoformat, indent=1).encode() + b"\n"


def load_record(text: bytes) -> Record:
    """A blob's or part's record."""
    fields = _load(text, "mod_time")
    try:
        return Record(**fields)
    except TypeError as error:
        raise _damaged(error) from error


def load_upload(text: bytes) -> UploadRecord:
    """An upload's record."""
    fields = _load(text, "opened_at")
    try:
        return UploadRecord(**fields)
    except TypeError as error:
        raise _damaged(error) from error


def _load(text: bytes, time: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(text)
        fields[time] = datetime.fromisoformat(fields[time])
        fields["options"] = BlobOptions(**fields["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(error) from error
    return fields


def _damaged(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"local: a record is damaged, by other hands than ours: {error!r}")
