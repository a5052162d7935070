"""delete: a path and everything under it."""

from datetime import datetime
from typing import Any

from blobferry.contract import Phase
from models import queries
from worker.jobs.lease import Lease
from worker.jobs.operations.operation import NotVisibleError, Result
from worker.runtime import Runtime
from worker.transfer.stop import Interrupted, Stop


class Delete:
    """A path and everything under it. Implements :class:`~worker.driver.delete_tree.Deletion` on the job's row."""

    is_sliced = True

    def __init__(self, runtime: Runtime, lease: Lease, stop: Stop) -> None:
        job = lease.job
        self.progressed = False
        #: Until the last batch a cancel takes effect, between two batches.
        self.past_point_of_no_return = job.phase == Phase.VERIFYING
        self.cutoff = job.cutoff
        self.deleted_any = job.deleted_any
        self._lease = lease
        self._stop = stop
        self._path = str(job.path)
        self._driver = runtime.driver(job.storage)

    def execute(self) -> None:
        """Delete what is not newer than the cutoff."""
        self._driver.delete(self._path, deletion=self, stop=self._stop)
        # Later runs only look: a blob that appears from now on came later.
        if not self._lease.write(
            lambda session: queries.pass_point_of_no_return(session, self._lease.job, phase=Phase.VERIFYING)
        ):
            raise Interrupted
        self.past_point_of_no_return = True

    def verify(self) -> Result:
        """The path, once no blob of before the cutoff is visible there."""
        head = self._driver.look(self._path)
        if head is not None and self.cutoff is not None and head.mod_time <= self.cutoff:
            raise NotVisibleError("the blob is still there")
        return {"path": self._path}

    def close(self) -> None:
        """Nothing to release."""

    # --- what a later run needs to know ------------------------------------------------------------------------------

    def begin(self, cutoff: datetime) -> None:
        """Save the cutoff, by the store's clock: keys newer than that stay."""
        self.cutoff = cutoff
        self._write(cutoff=cutoff, phase=Phase.DELETING)

    def deleting(self) -> None:
        """Save that a batch is about to go: from now on an empty path is no error."""
        self.deleted_any = True
        self._write(deleted_any=True)

    def deleted(self, count: int) -> None:
        """Count deleted keys as progress."""
        self.progressed = self.progressed or count > 0

    def _write(self, **values: Any) -> None:
        self._lease.write(lambda session: None, **values)
