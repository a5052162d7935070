"""delete: delete a path and everything below it."""

from datetime import datetime

from blobferry.contract import Phase
from worker.driver.delete_tree import time_of
from worker.jobs.lease import Lease
from worker.jobs.operations.operation import JobResult, NotVisibleError
from worker.runtime import Runtime
from worker.transfer.stop import Interrupted, Stop


class Delete:
    """Deletes a path and everything below it. The job's row is its :class:`~worker.driver.delete_tree.Deletion`."""

    is_sliced = True

    def __init__(self, runtime: Runtime, lease: Lease, stop: Stop) -> None:
        job = lease.job
        self.progressed = False
        #: A cancel takes effect between two batches, until the last one.
        self.past_point_of_no_return = job.phase == Phase.VERIFYING
        self.cutoff = job.cutoff
        self.deleted_any = job.deleted_any
        self._lease = lease
        self._stop = stop
        self._path = str(job.path)
        self._driver = runtime.driver(job.storage)

    def execute(self) -> None:
        """Delete the blobs that are not newer than the cutoff."""
        self._driver.delete(self._path, deletion=self, stop=self._stop)
        # Later runs only look, so that they never delete a blob that is written from now on.
        if not self._lease.pass_point_of_no_return(phase=Phase.VERIFYING):
            raise Interrupted
        self.past_point_of_no_return = True

    def verify(self) -> JobResult:
        """The path, once no blob that is as old as the cutoff is visible there."""
        head = self._driver.look(self._path)
        if head is not None and self.cutoff is not None and time_of(self._driver.store, head) <= self.cutoff:
            raise NotVisibleError("the blob is still there")
        return {"path": self._path}

    def close(self) -> None:
        """Nothing to release."""

    # --- the deletion, as a later run needs it -----------------------------------------------------------------------

    def begin(self, cutoff: datetime) -> None:
        """Save the cutoff, by the store's clock. Newer blobs stay."""
        self.cutoff = cutoff
        self._lease.write(cutoff=cutoff, phase=Phase.DELETING)

    def deleting(self) -> None:
        """Save that a batch is about to be deleted. From now on an empty path is no error."""
        self.deleted_any = True
        self._lease.write(deleted_any=True)

    def deleted(self, count: int) -> None:
        """Count deleted keys as progress."""
        self.progressed = self.progressed or count > 0
