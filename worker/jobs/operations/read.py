"""read_stream: a blob to a file."""

from blobferry.contract import Phase
from worker.jobs.operations.operation import Result, TransferOperation
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.transfer.download.blob_download import download
from worker.transfer.download.destination import FileDestination
from worker.transfer.download.file_target import FileTarget
from worker.transfer.sources.blob_source import BlobSource


class ReadStream(TransferOperation):
    """A blob to a file of this host, renamed into place: who sees the file sees all of it."""

    _destination: FileDestination | None = None

    def _open_checkpoint(self) -> SqlCheckpoint:
        if self._job.phase == Phase.VERIFYING:  # it is published: nothing is opened that may be gone by now
            return super()._open_checkpoint()
        roots = self._runtime.settings.sources.file_roots
        self._destination = FileDestination.open(self._request["dest"], roots)
        return self._checkpoint_at(self._destination, begins_again_elsewhere=True)

    def execute(self) -> None:
        """See :class:`JobOperation`."""
        assert self._destination is not None, "what is published is not brought again"
        target = FileTarget(
            destination=self._destination,
            checkpoint=self._checkpoint,
            token=self._job.token,
            threads=self._runtime.engine.threads,
            overwrite=self._request.get("overwrite", True),
            stop=self._stop,
        )
        if target.settle():
            return
        path = self._request["path"]
        head = self._driver.head(path)
        source = BlobSource(self._driver.store, head.key, path, head=head)
        part_size = self._runtime.engine.part_size
        download(target, source, self._request.get("offset", 0), part_size=part_size, checksum=head.checksum)

    def verify(self) -> Result:
        """It had the right size and checksum when it was renamed; whoever waited for it may have taken it by now."""
        fingerprint = self._job.source_fingerprint or {}
        dest, etag = self._request["dest"], fingerprint.get("etag")
        return {"path": self._request["path"], "dest": dest, "size": self._job.size, "etag": etag}

    def close(self) -> None:
        """Close the directory."""
        if self._destination is not None:
            self._destination.close()
