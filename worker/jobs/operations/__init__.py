"""The operations of jobs. A run executes one, then verifies that readers see the outcome.

Any later run may repeat both halves. The driver moves the bytes and writes the job's checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Final

from worker.jobs.lease import Lease
from worker.jobs.operations.delete import Delete
from worker.jobs.operations.move import Move
from worker.jobs.operations.operation import JobOperation, NotVisibleError
from worker.jobs.operations.read import ReadStream
from worker.jobs.operations.write import PutContent, WriteStream
from worker.runtime import Runtime
from worker.transfer.stop import Stop

__all__ = ["OPERATIONS", "JobOperation", "NotVisibleError"]

OPERATIONS: Final[Mapping[str, Callable[[Runtime, Lease, Stop], JobOperation]]] = {
    "put_content": PutContent,
    "write_stream": WriteStream,
    "read_stream": ReadStream,
    "move": Move,
    "delete": Delete,
}
