"""What each operation does when its job runs: bring it about, then look whether readers see it.

Both halves may be repeated by any later run. Bytes are moved by the driver, which is given the job's checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Final

from worker.lease import Lease
from worker.operations.delete import Delete
from worker.operations.move import Move
from worker.operations.operation import NotShownError, Operation, Result
from worker.operations.read_stream import ReadStream
from worker.operations.writes import PutContent, WriteStream
from worker.runtime import Runtime
from worker.transfer.control import Stop

__all__ = ["OPERATIONS", "NotShownError", "Operation", "Result"]

OPERATIONS: Final[Mapping[str, Callable[[Runtime, Lease, Stop], Operation]]] = {
    "put_content": PutContent,
    "write_stream": WriteStream,
    "read_stream": ReadStream,
    "move": Move,
    "delete": Delete,
}
