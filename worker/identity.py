"""Who this process is: a name that no other worker ever has, whatever hosts and containers call themselves."""

import os
import secrets
from socket import gethostname
from typing import Final

#: Of a worker: made before it forks, so that its children share it.
WORKER_ID: Final = secrets.token_hex(4)


def process_name(worker_id: str = WORKER_ID, pid: int | None = None) -> str:
    """``id@host:pid`` of a child of the worker; by default of this process."""
    return f"{worker_id}@{gethostname()}:{os.getpid() if pid is None else pid}"
