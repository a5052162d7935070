"""What tests do with buckets in a directory, also in processes of their own."""

import faulthandler
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stores.contract import pages
from worker.stores.blob_values import Limits
from worker.stores.store import Store

FREE = Limits(min_part_size=1)
OLD, NEW = b"old bytes", b"NEW"


def all_keys(store: Store, **arguments: Any) -> list[str]:
    return [entry.key for page in pages(store, **arguments) for entry in page.entries]


def files(path: Path) -> list[str]:
    """The files of blobs and parts in the directory."""
    return sorted(str(file.relative_to(path)) for file in path.glob("files/*"))


def in_child(run: Callable[[], object]) -> int:
    """Run it in a forked child; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    faulthandler.dump_traceback_later(90, exit=True)  # a child that hangs says where
    try:
        run()
        code = 0
    finally:
        os._exit(code)


def exit_codes(run: Callable[[], object], number: int) -> list[int]:
    """Run it in so many children at once."""
    return [status(pid) for pid in [in_child(run) for _ in range(number)]]


def status(pid: int) -> int:
    """The exit code of a child, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
