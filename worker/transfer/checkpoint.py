"""The checkpoint protocol: what a transfer saves on its way, so that another process can continue it.

Jobs have their checkpoint in SQL (``worker.jobs.sql_checkpoint``), plain driver calls and tests in memory. A checkpoint
belongs to one destination. Each method commits before it returns and raises LeaseLostError once another run owns the
job.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol

from blobferry.contract import UploadState
from worker.errors import TooManyRestartsError
from worker.stores.blob_values import BlobHead
from worker.transfer.fingerprint import pinned

MAX_RESTARTS: Final = 3  #: of a transfer with a checkpoint in memory


@dataclass(frozen=True, slots=True)
class VisibleVersion:
    """The version of a blob that readers see at one moment, or that they see none."""

    etag: str = ""  #: "" for an absent blob
    mod_time: datetime | None = None

    @property
    def is_absent(self) -> bool:
        """True if nothing is there."""
        return not self.etag

    @classmethod
    def of(cls, head: BlobHead | None) -> "VisibleVersion":
        """Return the version that a head shows; None is an absent blob."""
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
    """An upload as saved. A blob that is sent by one put, or copied by one call, has one without ``part_size``."""

    key: str
    size: int
    part_size: int | None  #: bytes of the sent parts
    base: VisibleVersion  #: visible when it was opened; from ``completing`` on, right before the commit call
    opened_at: datetime
    state: UploadState = UploadState.OPENING
    upload_id: str | None = None
    parts: Mapping[int, SentPart] = field(default_factory=dict)
    etag: str | None = None  #: of the blob, once completed
    prefix: int = 0  #: bytes at the beginning that the store copies itself
    prefix_parts: int = 0  #: number of its parts; 0 with a prefix: copied in one commit call
    is_elsewhere: bool = False  #: whether it was opened under another host's name, or in another directory

    @property
    def is_completing(self) -> bool:
        """Whether a commit call may have had an effect."""
        return self.state == UploadState.COMPLETING


class Checkpoint(Protocol):
    """Where a transfer saves its progress."""

    mark: str  #: value of the metadata entry by which the job recognises its blob

    def pin_source(self, size: int, fingerprint: Mapping[str, Any], *, is_compared: bool = False) -> bool:
        """Save the source's fingerprint. False, and nothing is saved, if the sent parts have to be compared first.

        ``is_compared``: that was done, so the fingerprint replaces the saved one. Raises SourceChangedError if the
        saved one proves that the source has changed.
        """
        ...

    def load(self) -> SavedUpload | None:
        """Return the upload to continue, with its parts; None if there is none."""
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
    ) -> SavedUpload:
        """Save an upload before Create is sent, and return it.

        Args:
            key: that of the blob.
            size: bytes of the blob; of a stream, those of its prefix.
            part_size: bytes of each sent part; None for a single put or copy.
            base: the version that readers see at the key now.
            prefix: number of bytes that the store copies itself.
            prefix_parts: number of their parts.
        """
        ...

    def opened(self, upload_id: str) -> SavedUpload:
        """Save the upload's id, which the store has returned. Returns the upload that has it."""
        ...

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Save parts that the store holds. ``progressed`` is False for parts that this run found and did not send."""
        ...

    def drop(self, part_numbers: Collection[int]) -> None:
        """Delete the rows of parts that the store does not hold."""
        ...

    def completing(self, base: VisibleVersion) -> None:
        """Save the point of no return, right before a commit call. Raises Interrupted if a cancel came first."""
        ...

    def refused(self) -> None:
        """Take :meth:`completing` back: the store has refused every commit call, so that none had an effect."""
        ...

    def completed(
        self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0, is_recognised: bool = False
    ) -> None:
        """Save that readers see the blob.

        Args:
            etag: that of the blob, as the store has answered.
            version_id: that of the blob, if the bucket keeps versions.
            bytes_sent: for the commit call.
            is_recognised: any later run finds out by a look that the blob is ours, without its ETag. Then this may be
                saved with the next write.
        """
        ...

    def abandon(self, *, gone: bool) -> None:
        """Begin again from byte 0: the upload is gone, or has to be aborted. Raises TooManyRestartsError."""
        ...

    def found_here(self, key: str) -> None:
        """Save that the upload, which was opened elsewhere, is seen at this place, under this key."""
        ...

    def known_upload_ids(self, key: str) -> set[str]:
        """Return the ids of all uploads at the key that a checkpoint has saved."""
        ...

    def now(self) -> datetime:
        """Return the time, by the clock that ``opened_at`` is from: this machine's own may be hours off."""
        ...


class MemoryCheckpoint:
    """A checkpoint that ends with its process. Its methods do what the protocol says."""

    def __init__(self, mark: str = "") -> None:
        self.mark = mark  #: "": the blob is not marked, only its checksum or ETag identifies it
        self.upload: SavedUpload | None = None
        self.abandoned: list[SavedUpload] = []
        self.bytes_sent = 0
        self._restarts = 0
        self._fingerprint: Mapping[str, Any] | None = None

    def pin_source(self, size: int, fingerprint: Mapping[str, Any], *, is_compared: bool = False) -> bool:
        found = pinned(self._fingerprint, fingerprint, is_compared=is_compared)
        self._fingerprint = found or self._fingerprint
        return found is not None

    def load(self) -> SavedUpload | None:
        return self.upload

    def opening(
        self, key: str, *, size: int, part_size: int | None, base: VisibleVersion,
        prefix: int = 0, prefix_parts: int = 0,
    ) -> SavedUpload:  # fmt: skip
        now = datetime.now().astimezone()
        self.upload = SavedUpload(key, size, part_size, base, opened_at=now, prefix=prefix, prefix_parts=prefix_parts)
        return self.upload

    def opened(self, upload_id: str) -> SavedUpload:
        return self._change(upload_id=upload_id, state=UploadState.OPEN)

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        self.bytes_sent += bytes_sent
        self._change(parts={**self._upload.parts, **{part.part_number: part for part in parts}})

    def drop(self, part_numbers: Collection[int]) -> None:
        kept = {number: part for number, part in self._upload.parts.items() if number not in part_numbers}
        self._change(parts=kept)

    def completing(self, base: VisibleVersion) -> None:
        self._change(state=UploadState.COMPLETING, base=base)

    def refused(self) -> None:
        self._change(state=UploadState.OPEN if self._upload.upload_id else UploadState.OPENING)

    def completed(
        self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0, is_recognised: bool = False
    ) -> None:
        self.bytes_sent += bytes_sent
        self._change(state=UploadState.COMPLETED, etag=etag)

    def abandon(self, *, gone: bool) -> None:
        """Forget the upload; the caller aborts those in ``abandoned``."""
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise TooManyRestartsError(f"{self._upload.key}: begun again {self._restarts} times from byte 0")
        if not gone:
            self.abandoned.append(self._upload)
        self.upload = None

    def found_here(self, key: str) -> None:
        self._change(key=key, is_elsewhere=False)

    def known_upload_ids(self, key: str) -> set[str]:
        """The ids that this process knows."""
        return {upload.upload_id for upload in (*self.abandoned, self.upload) if upload and upload.upload_id}

    def now(self) -> datetime:
        """The time of this process, which has opened all of its uploads."""
        return datetime.now().astimezone()

    def unfinished(self) -> list[SavedUpload]:
        """Return the uploads that were opened and neither completed nor lost. The caller aborts them."""
        return [
            upload
            for upload in (*self.abandoned, self.upload)
            if upload and upload.part_size is not None and upload.state != UploadState.COMPLETED
        ]

    @property
    def _upload(self) -> SavedUpload:
        assert self.upload is not None, "opening() comes first"
        return self.upload

    def _change(self, **values: Any) -> SavedUpload:
        self.upload = replace(self._upload, **values)
        return self.upload
