"""The file target: one destination, and the run that makes it visible. A rename commits the file.

If a run finds the partial file, and renames it to its own name, no earlier run has committed it or still can.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

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
from worker.transfer.checkpoint import Checkpoint, SavedUpload, SentPart, VisibleVersion
from worker.transfer.download.destination import FileDestination
from worker.transfer.download.partial_file import PartialFile, has_partial, remove_partials
from worker.transfer.parts import PartThreads
from worker.transfer.plan import PartRange
from worker.transfer.sources.file_source import FileSource
from worker.transfer.stop import Interrupted, Stop, never

logger = logging.getLogger(__name__)

#: States in which the partial file may have become the file.
_COMMITTED: Final = (UploadState.COMPLETING, UploadState.COMPLETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget:
    """One file, and the run that writes it. Later runs of a job have greater tokens."""

    destination: FileDestination
    checkpoint: Checkpoint
    token: int
    threads: PartThreads
    overwrite: bool = True
    stop: Stop = never

    def base(self) -> VisibleVersion:
        """Return the version that readers see. Raises BlobExistsError if it must not be replaced."""
        base = self.destination.look()
        if not self.overwrite and not base.is_absent:
            raise BlobExistsError(f"{self.destination.url}: a file is there already, and overwrite is off")
        return base

    def load(self) -> SavedUpload | None:
        """Return the upload to continue; None if there is none, or if nothing of it is seen in this directory.

        The name of a partial file is unguessable. So whoever sees it sees that very file, though the host has another
        name by now, or the directory another path, or several hosts share it.
        """
        upload = self.checkpoint.load()
        if upload is None or not (upload.is_elsewhere or upload.key != self.destination.key):
            return upload
        if upload.is_elsewhere and self._sees(upload):
            self.checkpoint.found_here(self.destination.key)
            return self.checkpoint.load()
        now = self.destination.look()
        if upload.state in _COMMITTED and not now.is_absent and now.etag != upload.base.etag:
            raise self._superseded()  # the file may have been ours, and a reader has replaced it
        self.checkpoint.abandon(gone=False)
        return None

    @contextmanager
    def partial(self, upload: SavedUpload) -> Iterator[PartialFile | None]:
        """Yield the partial file, which only this run can commit; None if it is gone although parts have rows."""
        upload_id = upload.upload_id
        assert upload_id is not None, "a partial file is named before it is created"
        partial = PartialFile.adopt(self.destination, upload_id, self.token, upload.size)
        if partial is None and not upload.parts and upload.state == UploadState.OPEN:
            partial = self._create(upload_id, upload.size)
        if partial is None:
            yield None
            return
        with closing(partial):
            yield partial

    def commit(self, upload: SavedUpload, partial: PartialFile) -> bool:
        """Make the complete partial file the destination; False if a later run has taken it over."""
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

    def resolve_commit(self) -> bool:
        """Finish the commit that an earlier run began; if it took effect, complete the checkpoint and return True.

        Needs no source, which may be gone by now. Raises SupersededError, OutcomeUnknownError, BlobExistsError.
        """
        upload = self.load()
        if upload is None:
            return False
        if upload.state != UploadState.COMPLETING:
            return upload.state == UploadState.COMPLETED
        with self.partial(upload) as partial:
            now = self.destination.look()
            if partial is None:
                return self._was_committed(upload, now)
            if partial.is_committed():
                return self._completed(upload, now.etag)
            if now.etag != upload.base.etag:
                raise self._superseded()
            return self.commit(upload, partial)

    def begin_again(self, upload: SavedUpload, reason: str) -> None:
        """Remove the partial file and its rows. Raises TooManyRestartsError."""
        extra = {"destination": self.destination.url, "reason": reason}
        logger.warning("download begins again from byte 0", extra=extra)
        self._remove_partials(upload)
        self.checkpoint.abandon(gone=True)

    def _sees(self, upload: SavedUpload) -> bool:
        """Whether the partial file, or the file that it became, is in this directory; True if none was made yet."""
        if upload.upload_id is None or has_partial(self.destination, upload.upload_id):
            return True
        return upload.state in _COMMITTED and self._has_recorded_bytes(upload)

    def _create(self, upload_id: str, size: int) -> PartialFile:
        partial = PartialFile.create(self.destination, upload_id, self.token, size)
        try:
            self.checkpoint.opened(
                upload_id
            )  # saved already; saving it again checks that the job still belongs to this run
        except LeaseLostError:
            partial.close()
            self.destination.remove(partial.name)  # empty, and unknown to later runs
            raise
        return partial

    def _was_committed(self, upload: SavedUpload, now: VisibleVersion) -> bool:
        """Look whether the missing partial file is the file that readers see ``now``."""
        if now.is_absent:
            raise OutcomeUnknownError(
                f"{self.destination.url}: neither the file nor its partial file is there; it may have been completed "
                "and then removed, so it was not fetched again"
            )
        if now.etag == upload.base.etag:
            self.begin_again(upload, "the partial file is gone")
            return False
        if not self._has_recorded_bytes(upload):
            raise self._superseded()
        return self._completed(upload, now.etag)

    def _has_recorded_bytes(self, upload: SavedUpload) -> bool:
        """Read the visible file, and compare it with the checksums of the rows."""
        descriptor = self.destination.open_file(self.destination.name)
        if descriptor is None:
            return False
        with closing(FileSource(self.destination.url, descriptor)) as file:

            def reread(part: PartRange, buffer: memoryview) -> SentPart:
                algorithm = (upload.parts[part.number].checksum or "crc64nvme").partition(":")[0]
                checksum = checksum_of(PartBody(file, part, buffer), algorithm)
                return SentPart(part.number, part.offset, part.size, "", checksum)

            try:
                for row in upload.parts.values():
                    if self.stop():
                        raise Interrupted
                    found = self.threads.run(reread, PartRange(row.part_number, row.offset, row.size))
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
        self.checkpoint.completed(etag, None)  # at once: a reader may take the file away
        return True

    def _remove_partials(self, upload: SavedUpload) -> None:
        remove_partials(self.destination, upload.upload_id or "", self.token)

    def _superseded(self) -> SupersededError | BlobExistsError:
        if not self.overwrite:
            return BlobExistsError(f"{self.destination.url}: a file appeared there, and overwrite is off")
        return SupersededError(f"{self.destination.url}: another file appeared there; it was left alone")
