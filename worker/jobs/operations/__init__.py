"""What each operation does when its job runs: bring it about, then look whether readers see it.

Both halves may be repeated by any later run. Bytes are moved by the driver, which is given the job's checkpoint.
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
