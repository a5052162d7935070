"""The file target: one destination, and one run that makes it visible. Publishing a file is a rename.

Who renames decides who publishes: a run that has the partial file under its own name knows that no earlier run has
published it, nor ever will.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from blobferry.contract import UploadState
from worker.errors import (
    BlobExistsError,
    DestinationUnavailableError,
    LeaseLostError,
    OutcomeUnknownError,
    SourceChangedError,
    SourceUnavailableError,
    SupersededError,
)
from worker.stores.checksums import checksum_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import Base, Checkpoint, SavedUpload, SentPart
from worker.transfer.control import Interrupted, Stop, never
from worker.transfer.destinations import FileDestination
from worker.transfer.partials import PartialFile, remove_partials
from worker.transfer.plan import PartRange
from worker.transfer.sending import PartThreads
from worker.transfer.sources import FileSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget:
    """``token`` is that of the run: later runs of a job have greater ones."""

    destination: FileDestination
    checkpoint: Checkpoint
    token: int
    threads: PartThreads
    overwrite: bool = True
    stop: Stop = never

    def base(self) -> Base:
        """What readers see at the destination now. Raises BlobExistsError if it must not be replaced."""
        base = self.destination.look()
        if not self.overwrite and not base.is_absent:
            raise BlobExistsError(f"{self.destination.url}: a file is there already, and overwrite is off")
        return base

    @contextmanager
    def partial(self, upload: SavedUpload) -> Iterator[PartialFile | None]:
        """The upload's partial file, for this run alone to publish; None if it is gone, with bytes that have rows."""
        upload_id = upload.upload_id
        assert upload_id is not None, "a partial file is named before it is made"
        partial = PartialFile.adopt(self.destination, upload_id, self.token, upload.size)
        if partial is None and not upload.parts and upload.state == UploadState.OPEN:
            partial = self._create(upload_id, upload.size)
        if partial is None:
            yield None
            return
        with closing(partial):
            yield partial

    def publish(self, upload: SavedUpload, partial: PartialFile) -> bool:
        """Make the complete partial file the destination; False if it is no longer this run's."""
        if self.stop():
            raise Interrupted
        self.destination.check()
        partial.finish()
        etag = partial.etag
        self.checkpoint.completing(self.base())
        if self.overwrite:
            if not self.destination.rename(partial.name, self.destination.name):
                return False
        elif not self.destination.link(partial.name):
            return False
        return self._completed(upload, etag)

    def settle(self) -> bool:
        """Bring to its end what an earlier run had begun to publish: True, and the checkpoint says ``completed``.

        Needs no source: that may be gone by now. Raises SupersededError, OutcomeUnknownError, BlobExistsError.
        """
        upload = self.checkpoint.load()
        if upload is None or upload.key != self.destination.key:
            return False
        if upload.state != UploadState.COMPLETING:
            return upload.state == UploadState.COMPLETED
        with self.partial(upload) as partial:
            now = self.destination.look()
            if partial is None:
                return self._was_published(upload, now)
            if partial.is_published():
                return self._completed(upload, now.etag)
            if now.etag != upload.base.etag:
                raise self._superseded()
            return self.publish(upload, partial)

    def begin_again(self, upload: SavedUpload, reason: str) -> None:
        """Drop all bytes; the checkpoint then knows of none. Raises TooManyRestartsError."""
        extra = {"destination": self.destination.url, "reason": reason}
        logger.warning("download begins again from byte 0", extra=extra)
        self._remove_partials(upload)
        self.checkpoint.abandon(gone=True)

    def _create(self, upload_id: str, size: int) -> PartialFile:
        partial = PartialFile.create(self.destination, upload_id, self.token, size)
        try:
            self.checkpoint.opened(upload_id)  # known already: this asks whether the job is still this run's
        except LeaseLostError:
            partial.close()
            self.destination.remove(partial.name)  # still empty, and nobody else will ever look for it
            raise
        return partial

    def _was_published(self, upload: SavedUpload, now: Base) -> bool:
        """Nobody has the partial file any more: whether it is what readers see ``now``."""
        if now.is_absent:
            raise OutcomeUnknownError(
                f"{self.destination.url}: neither the file nor its partial file is there; it may have been published "
                "and then taken away, so it was not fetched again"
            )
        if now.etag == upload.base.etag:
            self.begin_again(upload, "the partial file is gone")
            return False
        if not self._is_there(upload):
            raise self._superseded()
        return self._completed(upload, now.etag)

    def _is_there(self, upload: SavedUpload) -> bool:
        """Whether readers see the bytes of the rows: the file is read again."""
        descriptor = self.destination.open_file(self.destination.name)
        if descriptor is None:
            return False
        with closing(FileSource(self.destination.url, descriptor)) as file:

            def again(part: PartRange, buffer: memoryview) -> SentPart:
                algorithm = (upload.parts[part.number].checksum or "crc64nvme").partition(":")[0]
                checksum = checksum_of(PartBody(file, part, buffer), algorithm)
                return SentPart(part.number, part.offset, part.size, "", checksum)

            try:
                for row in upload.parts.values():
                    if self.stop():
                        raise Interrupted
                    found = self.threads.run(again, PartRange(row.part_number, row.offset, row.size))
                    if found.checksum != row.checksum:
                        return False
            except SourceChangedError:
                return False
            except SourceUnavailableError as error:
                raise DestinationUnavailableError(str(error)) from error
            return file.size == upload.size == sum(row.size for row in upload.parts.values())

    def _completed(self, upload: SavedUpload, etag: str) -> bool:
        self._remove_partials(upload)
        self.destination.sync()
        self.checkpoint.completed(etag, None)
        return True

    def _remove_partials(self, upload: SavedUpload) -> None:
        remove_partials(self.destination, upload.upload_id or "", self.token)

    def _superseded(self) -> SupersededError | BlobExistsError:
        if not self.overwrite:
            return BlobExistsError(f"{self.destination.url}: a file appeared there, and overwrite is off")
        return SupersededError(f"{self.destination.url}: another file appeared there; it was left alone")
