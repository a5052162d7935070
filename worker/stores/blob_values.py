"""What goes into a store and what it answers, as frozen values.

ETags are opaque and kept as sent, quotes included. Sizes are bytes, times aware and UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from worker.units import GIB, MIB

_DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"  # S3's own


@dataclass(frozen=True, slots=True)
class Limits:
    """What a multipart upload may look like. Source: S3 user guide, "Amazon S3 multipart upload limits"."""

    min_part_size: int = 5 * MIB  #: bytes; the last part may be smaller
    max_part_size: int = 5 * GIB  #: bytes; also the most that one put or one copy may hold
    max_parts: int = 10_000  #: parts of one upload, numbered from 1
    max_delete: int = 1_000  #: keys of one delete_batch


@dataclass(frozen=True, slots=True)
class Condition:
    """What a commit call demands of the key at the moment it takes effect: at most one of the two is set."""

    if_match: str | None = None  #: the ETag that must be there, as sent by the store
    if_none_match: bool = False  #: True: nothing may be there


@dataclass(frozen=True, slots=True)
class BlobOptions:
    """What a blob carries beside its bytes."""

    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  #: user metadata; names are lower case
    tags: Mapping[str, str] | None = field(default_factory=dict)  #: None, of a copy: those of its source
    headers: Mapping[str, str] = field(
        default_factory=dict
    )  #: Cache-Control, Content-Disposition, -Encoding, -Language
    storage_class: str | None = None  #: a store that is configured with its own uses that
    encryption: str | None = None  #: "AES256", "aws:kms"; a store that is configured to encrypt uses its own
    encryption_key: str | None = None  #: the KMS key id that goes with "aws:kms"

    def updated(self, newer: "BlobOptions | None") -> "BlobOptions":
        """These, with the content type and the metadata that ``newer`` gives instead."""
        if newer is None:
            return self
        return replace(
            self, content_type=newer.content_type or self.content_type, metadata=newer.metadata or self.metadata
        )

    def without(self, name: str) -> "BlobOptions":
        """These, without one entry of the user metadata."""
        return replace(self, metadata={key: text for key, text in self.metadata.items() if key != name})

    def elsewhere(self) -> "BlobOptions":
        """What of these means the same in another store: its storage classes and keys are its own."""
        return replace(self, storage_class=None, encryption=None, encryption_key=None)


@dataclass(frozen=True, slots=True)
class BlobHead:
    """What a reader would see under a key now."""

    key: str
    size: int
    etag: str
    mod_time: datetime  #: aware, UTC, the store's clock
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    checksum: str | None = None  #: "ALGORITHM:base64" of the whole object, if the store keeps one
    storage_class: str | None = None
    encryption: str | None = None  #: as BlobOptions has it; with a KMS key, the ETag is no MD5


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """The store's answer to a call that published a blob. Any of it may be missing on some stores."""

    etag: str | None = None
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """A part as the store holds it."""

    part_number: int
    size: int
    etag: str
    checksum: str | None = None  #: "ALGORITHM:base64", where the store echoes it


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of a listing."""

    key: str
    size: int
    mod_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in byte order of the keys."""

    entries: Sequence[KeyEntry]
    prefixes: Sequence[str]  #: common prefixes, delimiter included; empty without a delimiter
    next_token: str | None  #: opaque; None on the last page
    served_at: datetime = field(default_factory=lambda: datetime.now(UTC))  #: by the store's clock; some give seconds


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that a batch did not delete, and why. A key that was not there is no failure."""

    key: str
    code: str  #: the store's own error code
    message: str


def carried(source: BlobOptions, options: BlobOptions | None) -> BlobOptions:
    """What a copy carries: all that its source does, or the ``options``, with the source's tags if these have none."""
    if options is None:
        return source
    return normal(options if options.tags is not None else replace(options, tags=source.tags))


def normal(options: BlobOptions | None) -> BlobOptions:
    """The options as S3 would hold them, in copies of their own."""
    options = options or BlobOptions()
    return replace(
        options,
        content_type=options.content_type or _DEFAULT_CONTENT_TYPE,
        metadata={name.lower(): value for name, value in options.metadata.items()},
        tags=dict(options.tags or {}),
        headers=dict(options.headers),
    )
