"""What each operation does when its job runs: bring it about, then look whether readers see it.

Both halves may be repeated by any later run. Bytes are moved by the driver, which is given the job's checkpoint.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from blobferry.contract import Phase
from models import Database, Job, queries
from worker.checkpoint import SqlCheckpoint
from worker.driver import Driver
from worker.errors import PathNotFoundError
from worker.runtime import Runtime
from worker.stores.values import BlobHead, BlobOptions
from worker.transfer.blob_source import BlobSource
from worker.transfer.control import Stop
from worker.transfer.destinations import FileDestination
from worker.transfer.downloading import download
from worker.transfer.file_target import FileTarget

Result = Mapping[str, Any]


class NotShownError(Exception):
    """Stat does not show the outcome yet."""


class Operation(Protocol):
    """One job's operation, for one run."""

    @property
    def progressed(self) -> bool:
        """Whether this run has brought the job forward."""
        ...

    @property
    def past_return(self) -> bool:
        """Whether readers may see the outcome already: a cancel is then too late."""
        ...

    def bring(self) -> None:
        """Bring it about. Raises Interrupted once the run is to stop, BlobferryError."""
        ...

    def confirm(self) -> Result:
        """The job's result, once readers see the outcome. Raises NotShownError, BlobferryError."""
        ...

    def close(self) -> None:
        """Give back what the run needed."""
        ...


class _Transfer:
    """What operations have in common that make a blob or a file visible."""

    def __init__(self, runtime: Runtime, job: Job, stop: Stop) -> None:
        self._runtime = runtime
        self._job = job
        self._stop = stop
        self._request: Mapping[str, Any] = job.request or {}
        self._driver = runtime.driver(job.storage)
        self._checkpoint = self._open_checkpoint()

    def _open_checkpoint(self) -> SqlCheckpoint:
        return self._runtime.checkpoint(self._job, self._driver.store)

    @property
    def progressed(self) -> bool:
        return self._checkpoint.progressed

    @property
    def past_return(self) -> bool:
        return self._checkpoint.past_return

    def close(self) -> None:
        """Nothing is held."""

    def _shown(self, driver: Driver, path: str) -> BlobHead:
        head = driver.look(path)
        difference = self._checkpoint.expected().difference(head)
        if head is None or difference is not None:
            raise NotShownError(difference)
        return head


class WriteStream(_Transfer):
    """A source to a path."""

    def bring(self) -> None:
        """See :class:`Operation`."""
        path = self._request["path"]
        if self._driver.settle(path, self._checkpoint):  # before the source is opened: it may be gone by now
            return
        source = self._runtime.open_source(self._request["source"], self._stop)
        try:
            self._driver.write_stream(path, self._request.get("offset", 0), source, **self._how())
        finally:
            source.close()

    def confirm(self) -> Result:
        """See :class:`Operation`."""
        return result_of(self._request["path"], self._shown(self._driver, self._request["path"]))

    def _how(self) -> dict[str, Any]:
        return {
            "overwrite": self._request.get("overwrite", True),
            "options": BlobOptions(self._request.get("content_type"), self._request.get("metadata") or {}),
            "checkpoint": self._checkpoint,
            "stop": self._stop,
        }


class PutContent(WriteStream):
    """Bytes that came with the request."""

    def bring(self) -> None:
        """See :class:`Operation`."""
        path = self._request["path"]
        if not self._driver.settle(path, self._checkpoint):
            self._driver.put_content(path, b64decode(self._request["contents"]["base64"]), **self._how())


class Move(_Transfer):
    """From one path to another, perhaps of another storage."""

    def _open_checkpoint(self) -> SqlCheckpoint:
        name = self._request.get("dest_storage") or self._job.storage
        self._dest = self._runtime.driver(name)
        return self._runtime.checkpoint(self._job, self._dest.store, storage=name)

    def bring(self) -> None:
        """See :class:`Operation`."""
        source_path, dest_path = self._request["source_path"], self._request["dest_path"]
        if not self._dest.settle(dest_path, self._checkpoint):
            self._driver.copy(
                source_path,
                dest_path,
                dest=self._dest,
                overwrite=self._request.get("overwrite", True),
                checkpoint=self._checkpoint,
                stop=self._stop,
            )

    def confirm(self) -> Result:
        """See :class:`Operation`."""
        source_path, dest_path = self._request["source_path"], self._request["dest_path"]
        if self._checkpoint.load() is None:  # it was moved onto itself
            head = self._dest.look(dest_path)
            if head is None:
                raise PathNotFoundError(source_path, self._driver.store.name)
            return result_of(dest_path, head)
        head = self._shown(self._dest, dest_path)
        self._checkpoint.deleting_source()
        self._driver.delete_moved(source_path, (self._job.source_fingerprint or {})["etag"])
        return result_of(dest_path, head)


class ReadStream(_Transfer):
    """A blob to a file of this host, renamed into place: who sees the file sees all of it."""

    def _open_checkpoint(self) -> SqlCheckpoint:
        roots = self._runtime.settings.sources.file_roots
        self._destination = FileDestination.open(self._request["dest"], roots)
        return self._runtime.checkpoint(self._job, self._destination, begins_again_elsewhere=True)

    def bring(self) -> None:
        """See :class:`Operation`."""
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
        head = self._driver.look(path)
        if head is None:
            raise PathNotFoundError(path, self._driver.store.name)
        source = BlobSource(self._driver.store, head.key, path, head=head)
        part_size = self._runtime.engine.part_size
        download(target, source, self._request.get("offset", 0), part_size=part_size, checksum=head.checksum)

    def confirm(self) -> Result:
        """It had the right size and checksum when it was renamed; whoever waited for it may have taken it by now."""
        fingerprint = self._job.source_fingerprint or {}
        dest, etag = self._request["dest"], fingerprint.get("etag")
        return {"path": self._request["path"], "dest": dest, "size": self._job.size, "etag": etag}

    def close(self) -> None:
        """Close the directory."""
        self._destination.close()


class Delete:
    """A path and everything under it. It is its own memory: see :class:`~worker.transfer.deleting.Deletion`."""

    past_return = False  # a cancel stops it between two batches

    def __init__(self, runtime: Runtime, job: Job, stop: Stop) -> None:
        self.progressed = False
        self.cutoff = job.cutoff
        self.deleted_any = job.deleted_any
        self._database: Database = runtime.database
        self._job = job
        self._stop = stop
        self._path = str(job.path)
        self._driver = runtime.driver(job.storage)

    def bring(self) -> None:
        """See :class:`Operation`."""
        self._driver.delete(self._path, deletion=self, stop=self._stop)

    def confirm(self) -> Result:
        """See :class:`Operation`."""
        head = self._driver.look(self._path)
        if head is not None and self.cutoff is not None and head.mod_time <= self.cutoff:
            raise NotShownError("the blob is still there")
        return {"path": self._path}

    def close(self) -> None:
        """Nothing is held."""

    # --- what it must not forget -----------------------------------------------------------------------------------

    def begin(self, cutoff: datetime) -> None:
        """Nothing newer goes."""
        self.cutoff = cutoff
        self._write(cutoff=cutoff, phase=Phase.DELETING)

    def deleting(self) -> None:
        """From now on it is no error if nothing is there."""
        if not self.deleted_any:
            self.deleted_any = True
            self._write(deleted_any=True)

    def deleted(self, count: int) -> None:
        """So many keys are gone."""
        self.progressed = True

    def _write(self, **values: Any) -> None:
        with self._database.begin() as session:
            queries.update_owned(session, self._job.id, self._job.token, **values)


def result_of(path: str, head: BlobHead) -> Result:
    """What a job leaves behind that has made a blob visible."""
    return {"path": path, "size": head.size, "etag": head.etag, "version_id": head.version_id}


OPERATIONS: Final[Mapping[str, Callable[[Runtime, Job, Stop], Operation]]] = {
    "write_stream": WriteStream,
    "put_content": PutContent,
    "read_stream": ReadStream,
    "move": Move,
    "delete": Delete,
}
