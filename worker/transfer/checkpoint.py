"""The checkpoint protocol: what a transfer saves as it goes, so that another process can continue.

Jobs keep theirs in SQL (``worker.jobs.sql_checkpoint``), plain driver calls and tests in memory. A checkpoint belongs
to one destination. Each method commits before it returns and raises LeaseLostError once another run owns the job.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol

from blobferry.contract import UploadState
from worker.errors import SourceChangedError, TooManyRestartsError
from worker.stores.blob_values import BlobHead

MAX_RESTARTS: Final = 3  #: of a transfer with a checkpoint in memory


@dataclass(frozen=True, slots=True)
class VisibleVersion:
    """What readers see at the destination at one moment: a version of a blob, or nothing."""

    etag: str = ""  #: "" for an absent blob
    mod_time: datetime | None = None

    @property
    def is_absent(self) -> bool:
        """True if nothing is there."""
        return not self.etag

    @classmethod
    def of(cls, head: BlobHead | None) -> "VisibleVersion":
        """The version that a head shows; None is an absent blob."""
        return cls(head.etag, head.mod_time) if head else cls()


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store holds: bytes ``[offset, offset + size)`` of the blob."""

    part_number: int
    offset: int
    size: int
    etag: str
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class SavedUpload:
    """An upload as it was saved. A blob small enough for one put has one, too, without ``part_size``."""

    key: str
    size: int
    part_size: int | None  #: of the parts that are sent
    base: VisibleVersion  #: visible when it was opened; once completing, right before the commit call
    opened_at: datetime
    state: UploadState = UploadState.OPENING
    upload_id: str | None = None
    parts: Mapping[int, SentPart] = field(default_factory=dict)
    etag: str | None = None  #: of the blob, once completed
    prefix: int = 0  #: bytes at the beginning that the store copies itself
    prefix_parts: int = 0  #: number of its parts; 0 with a prefix: copied in one commit call


class Checkpoint(Protocol):
    """Where a transfer saves its progress."""

    mark: str  #: entry of the blob's metadata by which the job recognises it

    def pin_source(self, size: int, fingerprint: Mapping[str, Any]) -> None:
        """Remember the source, or raise SourceChangedError if another one was remembered."""
        ...

    def load(self) -> SavedUpload | None:
        """The saved upload to continue, with its parts; None if there is none."""
        ...

    def opening(
        self,
        key: str,
        *,
        size: int,
        part_size: int | None,
        base: VisibleVersion,
        prefix: int = 0,
        prefix_parts: int = 0,
    ) -> None:
        """Save an upload before Create is sent.

        Args:
            key: of the blob.
            size: of the blob in bytes; of a stream, of its prefix.
            part_size: bytes of sent parts; None for a single put or copy.
            base: what readers see at the key now.
            prefix: bytes that the store copies itself.
            prefix_parts: number of their parts.
        """
        ...

    def opened(self, upload_id: str) -> None:
        """Save the id that the store has given the upload."""
        ...

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Save parts that the store holds. ``progressed`` is False for parts that this run found there."""
        ...

    def drop(self, part_numbers: Collection[int]) -> None:
        """Forget parts that the store does not hold."""
        ...

    def completing(self, base: VisibleVersion) -> None:
        """The point of no return, right before a commit call. Raises Interrupted if a cancel came first."""
        ...

    def completed(self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0) -> None:
        """Readers see the blob."""
        ...

    def abandon(self, *, gone: bool) -> None:
        """Begin again from byte 0: the upload is gone, or is to be aborted. Raises TooManyRestartsError."""
        ...

    def known_upload_ids(self, key: str) -> set[str]:
        """Ids of uploads at the key that somebody has written down."""
        ...

    def now(self) -> datetime:
        """The time by the clock that says when an upload was opened: this machine's own may be hours off."""
        ...


class MemoryCheckpoint:
    """A checkpoint that dies with its process."""

    def __init__(self, mark: str = "") -> None:
        self.mark = mark  #: "": the blob is not marked, and known by its checksum or ETag alone
        self.upload: SavedUpload | None = None
        self.abandoned: list[SavedUpload] = []
        self.bytes_sent = 0
        self._restarts = 0
        self._fingerprint: Mapping[str, Any] | None = None

    def pin_source(self, size: int, fingerprint: Mapping[str, Any]) -> None:
        """Remember or compare the source."""
        if self._fingerprint not in (None, fingerprint):
            raise SourceChangedError(f"the source was {self._fingerprint}, it is {fingerprint}")
        self._fingerprint = fingerprint

    def load(self) -> SavedUpload | None:
        """The saved upload to continue, with its parts; None if there is none."""
        return self.upload

    def opening(
        self,
        key: str,
        *,
        size: int,
        part_size: int | None,
        base: VisibleVersion,
        prefix: int = 0,
        prefix_parts: int = 0,
    ) -> None:
        """Remember an upload that is about to be opened."""
        now = datetime.now().astimezone()
        self.upload = SavedUpload(key, size, part_size, base, opened_at=now, prefix=prefix, prefix_parts=prefix_parts)

    def opened(self, upload_id: str) -> None:
        """Remember its id."""
        self._change(upload_id=upload_id, state=UploadState.OPEN)

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Remember parts."""
        self.bytes_sent += bytes_sent
        self._change(parts={**self._upload.parts, **{part.part_number: part for part in parts}})

    def drop(self, part_numbers: Collection[int]) -> None:
        """Forget parts."""
        kept = {number: part for number, part in self._upload.parts.items() if number not in part_numbers}
        self._change(parts=kept)

    def completing(self, base: VisibleVersion) -> None:
        """Remember what was visible."""
        self._change(state=UploadState.COMPLETING, base=base)

    def completed(self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0) -> None:
        """Remember the end."""
        self.bytes_sent += bytes_sent
        self._change(state=UploadState.COMPLETED, etag=etag)

    def abandon(self, *, gone: bool) -> None:
        """Forget the upload; the caller aborts those in ``abandoned``."""
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise TooManyRestartsError(f"{self._upload.key}: begun again {self._restarts} times")
        if not gone:
            self.abandoned.append(self._upload)
        self.upload = None

    def known_upload_ids(self, key: str) -> set[str]:
        """The ids that this process knows."""
        return {upload.upload_id for upload in (*self.abandoned, self.upload) if upload and upload.upload_id}

    def now(self) -> datetime:
        """The time of this process, which has opened all of its uploads."""
        return datetime.now().astimezone()

    def unfinished(self) -> list[SavedUpload]:
        """Uploads that were opened and neither completed nor lost: the caller aborts them."""
        return [
            upload
            for upload in (*self.abandoned, self.upload)
            if upload and upload.part_size is not None and upload.state != UploadState.COMPLETED
        ]

    @property
    def _upload(self) -> SavedUpload:
        assert self.upload is not None, "an upload is opened before anything is said of it"
        return self.upload

    def _change(self, **values: Any) -> None:
        self.upload = replace(self._upload, **values)
