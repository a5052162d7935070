"""The protocol between the runner and an operation, and the base of operations that make a blob or a file visible."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from models.upload import Place
from worker.driver import Driver
from worker.jobs.lease import Lease
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.runtime import Runtime
from worker.stores.blob_values import BlobHead
from worker.stores.store import Store
from worker.transfer.stop import Stop
from worker.transfer.upload.commit import resolve_commit
from worker.transfer.upload.whereabouts import is_found

JobResult = Mapping[str, Any]
"""The result of a job, as its row and Celery keep it."""


class NotVisibleError(Exception):
    """Stat does not show the outcome yet. The message is the difference."""


class JobOperation(Protocol):
    """The operation of one job, in one run."""

    @property
    def progressed(self) -> bool:
        """Whether this run has made progress."""
        ...

    @property
    def past_point_of_no_return(self) -> bool:
        """Whether readers may already see the outcome, so that a cancel comes too late."""
        ...

    @property
    def is_sliced(self) -> bool:
        """Whether the job may be split into slices; False if a new slice would start from byte 0."""
        ...

    def execute(self) -> None:
        """Do the work. Any later run may repeat it. Raises Interrupted when the run has to stop; BlobferryError."""
        ...

    def verify(self) -> JobResult:
        """The job's result, once readers see the outcome. Raises NotVisibleError until then; BlobferryError."""
        ...

    def close(self) -> None:
        """Release what this run has opened."""
        ...


class TransferOperation:
    """Base of the operations that make a blob or a file visible."""

    is_sliced = True

    def __init__(self, runtime: Runtime, lease: Lease, stop: Stop) -> None:
        job = lease.job
        self._runtime = runtime
        self._lease = lease
        self._job = job
        self._stop = stop
        self._request: Mapping[str, Any] = job.request or {}
        self._driver = runtime.driver(job.storage)
        self._checkpoint = self._open_checkpoint()

    def _open_checkpoint(self) -> SqlCheckpoint:
        return self._checkpoint_in(self._driver.store)

    def _checkpoint_in(self, store: Store, **how: Any) -> SqlCheckpoint:
        return self._checkpoint_at(store, is_found=partial(is_found, store), **how)

    def _checkpoint_at(self, place: Place, **how: Any) -> SqlCheckpoint:
        return SqlCheckpoint(self._lease, place, max_restarts=self._runtime.settings.retry.max_restarts, **how)

    @property
    def progressed(self) -> bool:
        """Whether this run has moved bytes."""
        return self._checkpoint.progressed

    @property
    def past_point_of_no_return(self) -> bool:
        """Whether the commit call may have been made."""
        return self._checkpoint.past_point_of_no_return

    def close(self) -> None:
        """Nothing to release."""

    def _is_committed(self, driver: Driver, path: str) -> bool:
        """Whether readers see the blob that an earlier run began to commit. Raises SupersededError, StoreError."""
        return resolve_commit(driver.store, driver.key(path), self._checkpoint)

    def _visible(self, driver: Driver, path: str) -> BlobHead:
        head = driver.look(path)
        difference = self._checkpoint.expected().difference(driver.store, head)
        if head is None or difference is not None:
            raise NotVisibleError(difference)
        return head


def result_of(path: str, head: BlobHead) -> JobResult:
    """The result of a job that has made a blob visible."""
    return {"path": path, "size": head.size, "etag": head.etag, "version_id": head.version_id}
