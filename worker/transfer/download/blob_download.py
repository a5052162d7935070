"""Downloads a blob to a file, part by part, so that another process that sees the directory can continue.

Readers see the old file until all bytes are checked and on the disk. A part is on the disk before its row is written;
a part with a row is never fetched again.
"""

from dataclasses import dataclass
from typing import Final

from blobferry.contract import UploadState
from worker.errors import ChecksumMismatchError, TooManyRestartsError
from worker.stores.blob_values import Limits
from worker.stores.checksums import checksum_of, join_checksums
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SavedUpload, SentPart
from worker.transfer.download.file_target import FileTarget
from worker.transfer.download.partial_file import PartialFile, new_upload_id
from worker.transfer.parts import Task, recorder, run_all
from worker.transfer.plan import PartPlan, PartRange, plan_parts
from worker.transfer.sources.source import Source

LIMITS: Final = Limits(min_part_size=1, max_part_size=2**63, max_parts=10_000)  #: no more rows than an upload has
_JOINABLE: Final = ("CRC64NVME", "CRC32C")


def download(
    target: FileTarget, source: Source, offset: int = 0, *, part_size: int, checksum: str | None = None
) -> None:
    """Make the source's bytes from ``offset`` on the target's file, and complete the checkpoint.

    Continues from the checkpoint. Raises Interrupted, SourceError, DestinationError, TransferError,
    ChecksumMismatchError; partial file and checkpoint then stay, to be continued later.

    Args:
        target: the file, and its checkpoint.
        source: the bytes.
        offset: number of bytes of the source to leave out.
        part_size: bytes of each part.
        checksum: that of the whole source as the store shows it; None if it shows none.
    """
    size = max(source.size - offset, 0)
    target.checkpoint.pin_source(size, {**source.fingerprint, "offset": offset})
    can_compare = offset == 0 and checksum is not None and _name(checksum) in _JOINABLE
    transfer = _Download(target, source, offset, size, part_size, checksum if can_compare else None)
    while not transfer.advance():
        pass


@dataclass(frozen=True, slots=True)
class _Tee:
    """The source from ``offset`` on. Each read also writes the bytes to the partial file."""

    source: Source
    offset: int
    partial: PartialFile

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset`` of the file."""
        self.source.readinto(self.offset + offset, buffer)
        self.partial.write(buffer, offset)


@dataclass(frozen=True, slots=True)
class _Download:
    """One call of :func:`download`."""

    target: FileTarget
    source: Source
    offset: int  #: of the file's first byte in the source
    size: int  #: of the file
    part_size: int
    checksum: str | None  #: of the file, as the store shows it; None if there is none to compare with

    def advance(self) -> bool:
        """Take the next step from the state that the checkpoint has; True if the download is completed."""
        target, checkpoint = self.target, self.target.checkpoint
        upload = target.load()
        if upload is None:
            plan = plan_parts(self.size, part_size=self.part_size, limits=LIMITS)
            checkpoint.opening(target.destination.key, size=plan.size, part_size=plan.part_size, base=target.base())
            return False
        if upload.state in (UploadState.COMPLETING, UploadState.COMPLETED):
            return target.resolve_commit()
        if upload.upload_id is None:
            checkpoint.opened(
                new_upload_id(target.destination.name, mark=checkpoint.mark, version=str(self.source.fingerprint))
            )
            return False
        with target.partial(upload) as partial:
            return self._continue(upload, partial)

    def _continue(self, upload: SavedUpload, partial: PartialFile | None) -> bool:
        target = self.target
        if partial is None or partial.length < max((row.offset + row.size for row in upload.parts.values()), default=0):
            target.begin_again(upload, "the partial file lacks bytes that have rows")
            return False
        parts = self._fetch_missing(upload, partial)
        self.source.check()
        if partial.length != upload.size:
            target.begin_again(upload, f"the partial file has {partial.length} bytes instead of {upload.size}")
            return False
        self._check(upload, parts)
        return target.commit(upload, partial)

    def _fetch_missing(self, upload: SavedUpload, partial: PartialFile) -> dict[int, SentPart]:
        target, threads = self.target, self.target.threads
        assert upload.part_size is not None, "a download has parts"
        plan = PartPlan(upload.size, upload.part_size)
        missing = [part for part in plan if part.number not in upload.parts]
        if missing:
            target.destination.check_space(partial.missing)
        record = recorder(target.checkpoint)
        algorithm = _name(self.checksum or "crc64nvme")
        tee = _Tee(self.source, self.offset, partial)

        def fetch(part: PartRange, buffer: memoryview) -> SentPart:
            checksum = checksum_of(PartBody(tee, part, buffer), algorithm)
            return SentPart(part.number, part.offset, part.size, "", checksum)

        def prepare(part: PartRange) -> Task:
            return threads.task(fetch, part)

        def record_on_disk(parts: list[SentPart]) -> None:
            partial.sync()
            record(parts)

        fetched = run_all(threads.executor, threads.count, missing, prepare, record_on_disk, target.stop)
        return {**upload.parts, **{part.part_number: part for part in fetched}}

    def _check(self, upload: SavedUpload, parts: dict[int, SentPart]) -> None:
        """Compare with the store's checksum. If they differ, drop the parts, so that a retry fetches them again."""
        found = join_checksums((part.checksum, part.size) for _, part in sorted(parts.items()))
        if self.checksum and found and found != self.checksum and _name(found) == _name(self.checksum):
            error = ChecksumMismatchError(
                f"{self.source.url}: the received bytes have the checksum {found}, the store shows {self.checksum}"
            )
            try:
                self.target.begin_again(upload, str(error))
            except TooManyRestartsError as last:
                raise last from error
            raise error


def _name(checksum: str) -> str:
    return checksum.partition(":")[0]
