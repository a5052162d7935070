"""move: copy a blob to another path, then delete the source."""

from worker.errors import PathNotFoundError
from worker.jobs.operations.operation import JobResult, TransferOperation, result_of
from worker.jobs.sql_checkpoint import SqlCheckpoint


class Move(TransferOperation):
    """Moves a blob to another path, perhaps of another storage."""

    def _open_checkpoint(self) -> SqlCheckpoint:
        name = self._request.get("dest_storage") or self._job.storage
        self._dest = self._runtime.driver(name)
        return self._checkpoint_in(self._dest.store, storage=name)

    def execute(self) -> None:
        """Copy the blob, unless an earlier run has done so."""
        source_path, dest_path = self._request["source_path"], self._request["dest_path"]
        if not self._is_committed(self._dest, dest_path):
            self._driver.copy(
                source_path,
                dest_path,
                dest=self._dest,
                overwrite=self._request.get("overwrite", True),
                checkpoint=self._checkpoint,
                stop=self._stop,
            )

    def verify(self) -> JobResult:
        """Once the copy is visible, delete the source if it is still the version that was copied."""
        source_path, dest_path = self._request["source_path"], self._request["dest_path"]
        if self._checkpoint.load() is None:  # source and destination are one blob
            head = self._dest.look(dest_path)
            if head is None:
                raise PathNotFoundError(source_path, self._driver.store.name)
            return result_of(dest_path, head)
        head = self._visible(self._dest, dest_path)
        self._checkpoint.deleting_source()
        copied = self._job.source_fingerprint or {}
        self._driver.delete_moved(source_path, copied, mark=self._checkpoint.mark, stop=self._stop)
        return result_of(dest_path, head)
