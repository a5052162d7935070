"""What each operation does when its job runs: execute it, then verify that readers see the outcome.

Both halves may be repeated by any later run. The driver moves the bytes, with the job's checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Final

from worker.jobs.lease import Lease
from worker.jobs.operations.delete import Delete
from worker.jobs.operations.move import Move
from worker.jobs.operations.operation import JobOperation, NotVisibleError, Result
from worker.jobs.operations.read import ReadStream
from worker.jobs.operations.write import PutContent, WriteStream
from worker.runtime import Runtime
from worker.transfer.stop import Stop

__all__ = ["OPERATIONS", "JobOperation", "NotVisibleError", "Result"]

OPERATIONS: Final[Mapping[str, Callable[[Runtime, Lease, Stop], JobOperation]]] = {
    "put_content": PutContent,
    "write_stream": WriteStream,
    "read_stream": ReadStream,
    "move": Move,
    "delete": Delete,
}
