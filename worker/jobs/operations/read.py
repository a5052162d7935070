"""read_stream: write a blob to a file."""

from blobferry.contract import Phase
from worker.jobs.operations.operation import JobResult, TransferOperation
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.transfer.download.blob_download import download
from worker.transfer.download.destination import FileDestination
from worker.transfer.download.file_target import FileTarget
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.patience import Patience


class ReadStream(TransferOperation):
    """Writes a blob to a file that this host sees. The file is renamed into place, so a visible file is complete."""

    _destination: FileDestination | None = None

    def _open_checkpoint(self) -> SqlCheckpoint:
        if self._job.phase == Phase.VERIFYING:  # the file was renamed into place; its directory may be gone since
            return super()._open_checkpoint()
        roots = self._runtime.settings.sources.file_roots
        self._destination = FileDestination.open(self._request["dest"], roots)
        return self._checkpoint_at(self._destination, may_lie_elsewhere=True)

    def execute(self) -> None:
        """Download the blob, unless an earlier run has renamed the file into place."""
        assert self._destination is not None, "a verifying job is not executed again"
        target = FileTarget(
            destination=self._destination,
            checkpoint=self._checkpoint,
            token=self._job.token,
            threads=self._runtime.engine.threads,
            overwrite=self._request.get("overwrite", True),
            stop=self._stop,
        )
        if target.resolve_commit():
            return
        path = self._request["path"]
        head = self._driver.head(path)
        source = BlobSource(self._driver.store, head.key, path, head=head, patience=Patience.of_run(self._stop))
        part_size = self._runtime.engine.part_size
        download(target, source, self._request.get("offset", 0), part_size=part_size, checksum=head.checksum)

    def verify(self) -> JobResult:
        """The result. Does not look at the file: it was checked before the rename, and a reader may have removed it."""
        fingerprint = self._job.source_fingerprint or {}
        dest, etag = self._request["dest"], fingerprint.get("etag")
        return {"path": self._request["path"], "dest": dest, "size": self._job.size, "etag": etag}

    def close(self) -> None:
        """Close the file's directory."""
        if self._destination is not None:
            self._destination.close()
